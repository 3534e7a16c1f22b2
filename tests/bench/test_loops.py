"""Loops count what has ended, and an open loop does not forgive a stall."""

from __future__ import annotations

import asyncio
import itertools

from raysaga.bench.latencies import quantiles_ms
from raysaga.bench.loops import SHED, arrivals_s, closed_loop, open_loop, told


async def test_a_closed_loop_keeps_so_many_under_way_and_waits_for_the_last() -> None:
    under_way = most = 0

    async def one(number: int) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return "completed" if number % 2 else "compensated"

    loop = await closed_loop(one, itertools.count(), in_flight=7, seconds=0.02)
    assert (most, under_way) == (7, 0)
    assert len(loop.ended) == loop.started_count
    line = told(loop)
    assert line["completed"] + line["compensated"] == line["ended"] == len(loop.ended)


async def test_who_would_have_come_during_a_stall_has_waited_for_it() -> None:
    """The third call stops the whole program; all that were meant to come then feel it."""
    stall_s = 0.2

    async def one(number: int) -> str:
        if number == 2:
            until = asyncio.get_running_loop().time() + stall_s
            while asyncio.get_running_loop().time() < until:
                pass
        return "completed"

    schedule = [i * 0.01 for i in range(12)]
    loop = await open_loop(one, itertools.count(), iter(schedule))
    assert len(loop.ended) == len(schedule)
    late = [ended for ended in loop.ended if ended.latency_s > stall_s / 4]
    assert len(late) >= 8, "every arrival of the stall, and not only the call that caused it"


async def test_what_was_not_admitted_is_in_no_rate() -> None:
    async def one(number: int) -> str:
        return SHED if number % 2 else "completed"

    loop = await open_loop(one, itertools.count(), iter([0.0] * 10))
    line = told(loop)
    assert (line["ended"], line["shed"]) == (5, 5)
    assert line["sagas_per_s"] * line["seconds"] < 6


def test_arrivals_are_the_same_for_a_seed_and_as_many_as_their_rate_says() -> None:
    arrivals = list(arrivals_s(1_000.0, 10.0, seed=3))
    assert arrivals == list(arrivals_s(1_000.0, 10.0, seed=3))
    assert arrivals == sorted(arrivals)
    assert 9_500 < len(arrivals) < 10_500


def test_quantiles_are_of_the_sample_and_not_between() -> None:
    found = quantiles_ms([i / 1_000 for i in range(1, 1_001)])
    assert found == {"p50_ms": 501.0, "p95_ms": 951.0, "p99_ms": 991.0, "p99_9_ms": 1000.0,
                     "max_ms": 1000.0}  # fmt: skip
    assert quantiles_ms([]) == {}
