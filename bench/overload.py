"""Offers three times as much as the engine can do, and then half, and watches the way back."""

from __future__ import annotations

import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

from raysaga.bench.bed import calm_services, open_bed
from raysaga.bench.judge import RunRefusedError, judge
from raysaga.bench.latencies import quantiles_ms
from raysaga.bench.loops import SHED, Ended, arrivals_s, closed_loop, open_loop, told
from raysaga.bench.measure import one_saga
from raysaga.bench.workloads import happy

IN_FLIGHT = 512
"""Callers by which the capacity is found."""

TIMES = 3.0
"""How much more than the capacity is offered."""

CALM_SHARE = 0.5
"""Share of the capacity that is offered before and after."""

SLICE_S = 0.25
"""Of the timeline."""

CALM_FACTOR = 2.0
"""The way back is over when a slice's median is at most so many times that of before."""


async def run_overload(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    """Return what came through, what was turned away, and how long the way back took.

    Raises:
        RunRefusedError: If the books do not balance.
    """
    async with open_bed(folder, services=calm_services()) as bed:
        numbers = itertools.count()
        one = one_saga(bed, happy(), "o", dedicated=False, sheds=True)
        await closed_loop(one, numbers, in_flight=IN_FLIGHT, seconds=1.0)
        full = await closed_loop(one, numbers, in_flight=IN_FLIGHT, seconds=seconds / 2)
        capacity = len(full.ended) / full.seconds
        calm_rate, storm_rate = capacity * CALM_SHARE, capacity * TIMES
        storm_s = seconds

        def schedule() -> Any:
            yield from arrivals_s(calm_rate, seconds, seed)
            for at_s in arrivals_s(storm_rate, storm_s, seed + 1):
                yield seconds + at_s
            for at_s in arrivals_s(calm_rate, 2 * seconds, seed + 2):
                yield seconds + storm_s + at_s

        loop = await open_loop(one, numbers, schedule())
        await bed.rest()
    timeline = _timeline(loop.ended)
    calm_at_s = seconds
    storm_over_s = seconds + storm_s
    before = [e.latency_s for e in loop.ended if e.at_s - e.latency_s < calm_at_s]
    during = [
        e for e in loop.ended if calm_at_s <= e.at_s - e.latency_s < storm_over_s and e.how != SHED
    ]
    return {
        "capacity_per_s": round(capacity, 1),
        "offered_per_s": round(storm_rate, 1),
        "offered_s": storm_s,
        "latency_before": quantiles_ms(before),
        "latency_during": quantiles_ms([e.latency_s for e in during]),
        "came_through_per_s_during": round(_rate(loop.ended, calm_at_s, storm_over_s), 1),
        "back_after_s": _back_after_s(timeline, quantiles_ms(before)["p50_ms"], storm_over_s),
        "timeline": timeline,
        **told(loop),
    } | judge(folder, seed=seed)


def _rate(ended: list[Ended], from_s: float, to_s: float) -> float:
    count = sum(1 for e in ended if e.how != SHED and from_s <= e.at_s < to_s)
    return count / (to_s - from_s)


def _timeline(ended: list[Ended]) -> list[dict[str, float]]:
    """Return slices of time: what was offered, came through, was shed; the median latency."""
    slices: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    latencies: dict[int, list[float]] = defaultdict(list)
    for one in ended:
        slices[int((one.at_s - one.latency_s) / SLICE_S)]["offered_per_s"] += 1 / SLICE_S
        at = slices[int(one.at_s / SLICE_S)]
        if one.how == SHED:
            at["shed_per_s"] += 1 / SLICE_S
        else:
            at["ended_per_s"] += 1 / SLICE_S
            latencies[int((one.at_s - one.latency_s) / SLICE_S)].append(one.latency_s)
    return [
        {
            "at_s": round(k * SLICE_S, 2),
            **{name: round(value, 1) for name, value in slices[k].items()},
            **({"p50_ms": quantiles_ms(latencies[k])["p50_ms"]} if latencies[k] else {}),
        }
        for k in sorted(slices)
    ]


def _back_after_s(
    timeline: list[dict[str, float]], before_p50_ms: float, storm_over_s: float
) -> float:
    """Return after how long arrivals are answered as before the storm, and stay so."""
    for i in reversed(range(len(timeline))):
        row = timeline[i]
        if row["at_s"] < storm_over_s:
            return 0.0
        if row.get("p50_ms", 0.0) > CALM_FACTOR * before_p50_ms:
            return round(row["at_s"] + SLICE_S - storm_over_s, 2)
    raise RunRefusedError("the storm left no trace to time")
