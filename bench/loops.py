"""Drives anything that can be done many times: in a closed loop, or at instants of a schedule.

Guarantees: what is counted has ended. In an open loop a latency begins at the instant that
the schedule intended, whatever held the start up, so that a stall is felt by all who would
have come during it (coordinated omission: G. Tene, "How NOT to Measure Latency", 2013). In a
closed loop nobody comes while all wait; its latencies are what its own callers saw.
Costs: some ten microseconds for each start.

Imports nothing but the standard library: the programs that drive peers use it as well.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raysaga.bench.latencies import quantiles_ms

COMPLETED, COMPENSATED, SHED = "completed", "compensated", "shed"
"""How a saga ends: everything done, everything undone, or not admitted and not tried again."""

One = Callable[[int], Awaitable[str]]
"""Does number N, and returns how it ended."""


class Ended(NamedTuple):
    """One that has ended: when, counted from the start of the loop; how; after how long."""

    at_s: float
    how: str
    latency_s: float


@dataclass(slots=True, kw_only=True)
class Loop:
    """What a loop gave.

    Attributes:
        seconds: From its start until the last had ended.
        ended: Each that has ended, in that order.
        started_count: How many were begun.
    """

    seconds: float = 0.0
    ended: list[Ended] = field(default_factory=list)
    started_count: int = 0

    @property
    def by_end(self) -> Counter[str]:
        """How many have ended how."""
        return Counter(one.how for one in self.ended)

    def latencies_s(self, *ends: str) -> list[float]:
        """Return the latencies of those that have ended so; of all if nothing is named."""
        return [one.latency_s for one in self.ended if not ends or one.how in ends]


async def closed_loop(
    one: One,
    numbers: Iterator[int],
    *,
    in_flight: int,
    seconds: float,
) -> Loop:
    """Keep `in_flight` under way for `seconds`.

    Those that are under way then are waited for and counted, and so is the time this takes.
    """
    loop = Loop()
    began_at = time.perf_counter()
    until = began_at + seconds

    async def caller() -> None:
        while (start := time.perf_counter()) < until:
            loop.started_count += 1
            how = await one(next(numbers))
            end = time.perf_counter()
            loop.ended.append(Ended(end - began_at, how, end - start))

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    loop.seconds = time.perf_counter() - began_at
    return loop


def arrivals_s(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield instants of a Poisson process, counted from its start."""
    chance = random.Random(seed)
    at_s = chance.expovariate(rate_per_s)
    while at_s < seconds:
        yield at_s
        at_s += chance.expovariate(rate_per_s)


async def open_loop(one: One, numbers: Iterator[int], schedule_s: Iterator[float]) -> Loop:
    """Begin one at each instant of the schedule, late rather than never; wait for all."""
    loop = Loop()
    tasks: set[asyncio.Task[None]] = set()
    began_at = time.perf_counter()

    async def arrive(intended_at: float) -> None:
        how = await one(next(numbers))
        end = time.perf_counter()
        loop.ended.append(Ended(end - began_at, how, end - intended_at))

    for at_s in schedule_s:
        intended_at = began_at + at_s
        wait_s = intended_at - time.perf_counter()
        if wait_s > 0 or loop.started_count % 64 == 0:
            # What is late is begun at once, but never without a look at the answers.
            await asyncio.sleep(max(wait_s, 0))
        task = asyncio.ensure_future(arrive(intended_at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        loop.started_count += 1
    await asyncio.gather(*tasks)
    loop.seconds = time.perf_counter() - began_at
    return loop


def told(loop: Loop) -> dict[str, Any]:
    """Return a loop's rate, ends and latencies. The rate is of sagas that have ended."""
    ends = loop.by_end
    ended = len(loop.ended) - ends[SHED]
    return {
        "ended": ended,
        "completed": ends[COMPLETED],
        "compensated": ended - ends[COMPLETED],
        "shed": ends[SHED],
        "seconds": round(loop.seconds, 3),
        "sagas_per_s": round(ended / loop.seconds, 1),
        **quantiles_ms([one.latency_s for one in loop.ended if one.how != SHED]),
    }
