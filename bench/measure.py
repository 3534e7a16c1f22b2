"""Runs one workload at one level against a real engine, and counts what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from raysaga.actors.errors import OverloadedError
from raysaga.bench.bed import Bed
from raysaga.bench.judge import RunRefusedError
from raysaga.bench.loops import SHED, One, arrivals_s, closed_loop, open_loop, told
from raysaga.bench.meter import (
    Reading,
    Used,
    disk_bytes,
    disk_kib_per_saga,
    foreign_cores,
    machine_busy_s,
    used_between,
)
from raysaga.bench.workloads import Workload

WARM_UP_SHARE = 0.2
"""Time that sagas are run for and not measured before the others, as a share of theirs."""


class Load(NamedTuple):
    """How a workload is driven.

    Attributes:
        in_flight: Callers of a closed loop.
        seconds: Aim of one measurement.
        dedicated: Whether each saga has an actor of its own.
        rate_per_s: Arrivals of an open loop; None for a closed one.
        seed: Of the arrivals.
    """

    in_flight: int
    seconds: float
    dedicated: bool = False
    rate_per_s: float | None = None
    seed: int = 1


def one_saga(bed: Bed, workload: Workload, run: str, *, dedicated: bool, sheds: bool) -> One:
    """Return what drives saga N of a run, and refuses ends that the workload does not allow.

    Args:
        bed: The engine.
        workload: Whose sagas.
        run: Part of their keys.
        dedicated: Whether each has an actor of its own.
        sheds: Whether one that was not admitted is let go; else it is tried again.
    """
    sagas, definition, make, ends = bed.sagas, workload.definition, workload.make, workload.ends

    async def one(number: int) -> str:
        key, request = make(number, run)
        while True:
            try:
                handle = await sagas.submit(definition, request, key=key, dedicated=dedicated)
                break
            except OverloadedError as overloaded:
                if sheds:
                    return SHED
                await asyncio.sleep(overloaded.retry_after_ms / 1_000)
        outcome = await handle.result()
        if outcome.status not in ends:
            raise RunRefusedError(f"{outcome.saga_id} ended {outcome.status}: {outcome.code}")
        return outcome.status

    return one


async def run_level(
    bed: Bed, workload: Workload, load: Load, numbers: Iterator[int], run: str
) -> dict[str, Any]:
    """Run one level after a warm-up; return a line of results.

    Raises:
        RunRefusedError: If a saga ended as the workload does not allow.
    """
    one = one_saga(bed, workload, run, dedicated=load.dedicated, sheds=False)
    warm_up_s = load.seconds * WARM_UP_SHARE
    await closed_loop(one, numbers, in_flight=load.in_flight, seconds=warm_up_s)
    before = await _counts(bed)
    if load.rate_per_s is None:
        loop = await closed_loop(one, numbers, in_flight=load.in_flight, seconds=load.seconds)
    else:
        schedule = arrivals_s(load.rate_per_s, load.seconds, load.seed)
        loop = await open_loop(one, numbers, schedule)
    after = await _counts(bed)
    line = told(loop) | costs(before, after, len(loop.ended), loop.seconds)
    memory = bed.meter.memory_mib()
    if load.rate_per_s is None:
        line |= {"loop": "closed", "in_flight": load.in_flight}
    else:
        line |= {"loop": "open", "rate_per_s": load.rate_per_s}
    steps = workload.facts.get("steps")
    if steps:
        line["us_per_step"] = round(1e6 / (line["sagas_per_s"] * steps), 2)
        line["step_ms_p50"] = round(line["p50_ms"] / steps, 4)
    return line | {"memory_mib": round(sum(memory.values()), 1), "memory_mib_by_process": memory}


class Counts(NamedTuple):
    """What the engine and the machine had counted at one moment."""

    shards: Sequence[dict[str, Any]]
    services: Mapping[str, dict[str, Any]]
    used: Reading
    busy_s: float
    disk_bytes: int | None


async def _counts(bed: Bed) -> Counts:
    return Counts(
        await bed.sagas.stats(),
        await bed.service_stats(),
        bed.meter.read(),
        machine_busy_s(),
        disk_bytes(bed.folder),
    )


def costs(before: Counts, after: Counts, sagas: int, seconds: float) -> dict[str, Any]:
    """Return what was used between two moments, by saga."""
    used = used_between(before.used, after.used)
    total = Used(
        cpu_s=sum(u.cpu_s for u in used.values()),
        written_bytes=sum(u.written_bytes for u in used.values()),
    )
    batches = _grown(before.services.values(), after.services.values(), "batches")
    return {
        "flushes_per_saga": round(_grown(before.shards, after.shards, "commits") / sagas, 4),
        "ledger_flushes_per_saga": round(batches / sagas, 4),
        "records_per_saga": round(_grown(before.shards, after.shards, "entries") / sagas, 3),
        "exchanges_per_saga": round(
            (_by_participant(after, "exchanges") - _by_participant(before, "exchanges")) / sagas, 4
        ),
        "calls_per_saga": round(
            (_by_participant(after, "sent") - _by_participant(before, "sent")) / sagas, 3
        ),
        "conflicts_per_saga": round(
            _grown(before.services.values(), after.services.values(), "conflicts") / sagas, 4
        ),
        "cpu_ms_per_saga": round(total.cpu_s * 1e3 / sagas, 4),
        "cpu_ms_per_saga_by_process": {
            name: round(u.cpu_s * 1e3 / sagas, 4) for name, u in sorted(used.items())
        },
        "foreign_cores": foreign_cores(after.busy_s - before.busy_s, used, seconds),
        "disk_kib_per_saga": disk_kib_per_saga(before.disk_bytes, after.disk_bytes, sagas),
        "written_kib_per_saga": round(total.written_bytes / 1024 / sagas, 3),
        "written_kib_per_saga_by_process": {
            name: round(u.written_bytes / 1024 / sagas, 3) for name, u in sorted(used.items())
        },
    }


def _grown(before: Any, after: Any, name: str) -> int:
    return sum(int(a[name]) for a in after) - sum(int(b[name]) for b in before)


def _by_participant(counts: Counts, name: str) -> int:
    return sum(int(p[name]) for s in counts.shards for p in s["participants"].values())
