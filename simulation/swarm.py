"""Plays many histories, on every core, and adds up what they have shown.

Each worker is a fresh interpreter that plays its seeds one after the other; what
a seed shows does not depend on the worker, nor on the seeds before it. However the process
that began them ends, they end with it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from raysaga.actors.orphans import end_with_parent
from raysaga.simulation.checker import Violation, check
from raysaga.simulation.play import play
from raysaga.simulation.recipe import recipe_of
from raysaga.simulation.sometimes import SEEDS_MIN, SOMETIMES, reached

SEEDS_TOGETHER = 20
"""Seeds that a worker is given at once: about a second of work."""

FAILURES_MAX = 20
"""Failing seeds that are told; after that a run stops."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What some histories have shown together.

    Attributes:
        seeds: How many were played.
        sagas: Sagas submitted in them.
        calls: Calls that left a host.
        virtual_s: Time that passed in them.
        reached: How often each thing that must happen sometimes did.
        failures: Seeds that broke a promise, with what they broke.
    """

    seeds: int = 0
    sagas: int = 0
    calls: int = 0
    virtual_s: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, list[Violation]]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in what others have shown."""
        self.seeds += other.seeds
        self.sagas += other.sagas
        self.calls += other.calls
        self.virtual_s += other.virtual_s
        self.reached += other.reached
        self.failures += other.failures

    @property
    def never(self) -> list[str]:
        """What should have happened in a run of this length, and never did."""
        if self.seeds < SEEDS_MIN:
            return []
        return [what for what in SOMETIMES if not self.reached[what]]

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "seeds": self.seeds,
            "sagas": self.sagas,
            "calls": self.calls,
            "virtual_hours": round(self.virtual_s / 3_600, 1),
            "violations": sum(len(found) for _, found in self.failures),
            "failures": [
                {"seed": seed, "violations": [violation._asdict() for violation in found]}
                for seed, found in sorted(self.failures)
            ],
            "sometimes": {what: self.reached[what] for what in SOMETIMES},
            "never": self.never,
        }


def play_seeds(first: int, many: int) -> Tally:
    """Play seeds one after the other."""
    tally = Tally(seeds=many)
    for seed in range(first, first + many):
        recipe = recipe_of(seed)
        seen = play(recipe)
        found = check(seen)
        tally.sagas += recipe.saga_count
        tally.calls += sum(type(line).__name__ == "Sent" for line in seen.lines)
        tally.virtual_s += seen.ended_at_ms / 1_000
        tally.reached += reached(seen)
        if found:
            tally.failures.append((seed, found))
    return tally


def run(
    first: int,
    *,
    seeds: int | None = None,
    hours: float | None = None,
    workers: int | None = None,
) -> Iterator[Tally]:
    """Play seeds from `first` on, so many or for so long; yield the sum so far, again and again.

    It stops early when too many have failed.
    """
    assert (seeds is None) != (hours is None)
    until = None if hours is None else time.monotonic() + hours * 3_600
    workers = workers or os.cpu_count() or 1
    total = Tally()
    parts = _parts(first, seeds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=end_with_parent) as pool:
        open_parts: set[Future[Tally]] = set()
        while True:
            is_time = until is not None and time.monotonic() > until
            if not is_time and len(total.failures) < FAILURES_MAX:
                while len(open_parts) < 2 * workers and (part := next(parts, None)):
                    open_parts.add(pool.submit(play_seeds, *part))
            if not open_parts:
                return
            done, open_parts = wait(open_parts, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())
            yield total


def _parts(first: int, seeds: int | None) -> Iterator[tuple[int, int]]:
    """Yield where each part begins, and how long it is."""
    for at in count(first, SEEDS_TOGETHER):
        left = SEEDS_TOGETHER if seeds is None else first + seeds - at
        if left <= 0:
            return
        yield at, min(SEEDS_TOGETHER, left)
