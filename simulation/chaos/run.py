"""Conducts one run: orders all the time, faults one after another, a quiet tail, and the verdict.

Guarantees: whatever happens, Ctrl-C included, no process of the run is left. A run holds if the
checker finds nothing, and, if it was long enough for all its faults, each of them bit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysaga.simulation.chaos.child import ChildGoneError
from raysaga.simulation.chaos.evidence import Evidence, gather
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError, now_ms
from raysaga.simulation.chaos.gauge import Gauge
from raysaga.simulation.chaos.nemesis import Nemesis, affordable, tally
from raysaga.simulation.chaos.orders import STOCK, UNREACHABLE
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.checker import Violation, check

WARM_UP_S = 3.0

REST_S = 150.0
"""The bound of I10: within so long after the last fault nothing may be under way any more."""

TAIL_SHARE = 0.1
"""Share of a run in which nothing is broken, at its end, with orders going on."""

LAST_SUBMITS = 5

RATE_PER_S = 60.0
SHARDS = 2


def scenery(seed: int, rate_per_s: float) -> dict[str, Any]:
    """Return what the engine of a run is made of, as plain data."""
    return {
        "seed": seed,
        "shards": SHARDS,
        "rate_per_s": rate_per_s,
        "in_flight_max": 600,
        "settings": {
            "reconcile_ms": 500,
            "suspect_wait_ms": 500,
            # So that three times the capacity is more than is admitted within seconds.
            "sagas_in_flight_max": 1_500,
            "dedicated_actors_max": 2,
        },
        "services": {
            "inventory": {"stock": dict(STOCK)},
            "shipping": {"unserviceable_prefixes": [UNREACHABLE]},
            "notification": {"maildir": "mail"},
        },
    }


@dataclass(slots=True, kw_only=True)
class Run:
    """One run, and what came of it.

    Attributes:
        workplace: Where everything of it is kept.
        seed: Decides orders, faults and their order.
        faults: Those that were chosen.
        for_s: How long orders are submitted, in seconds.
        rate_per_s: Orders a second.
        told: Called with a fault's name, what it did, and a text.
    """

    workplace: Path
    seed: int
    faults: Sequence[Fault]
    for_s: float
    rate_per_s: float = RATE_PER_S
    told: Callable[[str, str, str], None] = lambda _name, _what, _text: None
    began_at_ms: int = 0
    healed_at_ms: int = 0
    ended_at_ms: int = 0
    blows: list[Blow] = field(default_factory=list)
    events: list[tuple[int, str, str, str]] = field(default_factory=list)
    gauge: Gauge | None = None
    stage: Stage | None = None
    violations: list[Violation] = field(default_factory=list)
    evidence: Evidence | None = None

    @property
    def is_full(self) -> bool:
        """Whether there is time for every fault."""
        return len(affordable(self.faults, self.for_s * (1 - TAIL_SHARE))) == len(self.faults)

    @property
    def never_bit(self) -> list[str]:
        """Faults that were chosen and did not bite."""
        counts = tally(self.blows)
        return [fault.name for fault in self.faults if not counts[fault.name]["bit"]]

    @property
    def holds(self) -> bool:
        """Whether no promise was broken, and every fault bit that had the time to."""
        return not self.violations and not (self.is_full and self.never_bit)

    async def play(self) -> None:
        """Play the run, and let the checker decide.

        Raises:
            NeverHappenedError: If the engine does not even start.
        """
        self.stage = stage = Stage(self.workplace, scenery(self.seed, self.rate_per_s))
        nemesis = Nemesis(stage, self.faults, self.seed, self._tell)
        self.blows = nemesis.blows
        self.began_at_ms = now_ms()
        try:
            await stage.start()
            end = time.monotonic() + self.for_s
            self.gauge = gauge = Gauge(stage)
            watching = asyncio.create_task(gauge.watch())
            await asyncio.sleep(WARM_UP_S)
            tail_s = self.for_s * TAIL_SHARE
            await nemesis.rage(max(end - tail_s - time.monotonic(), 0.0))
            self.healed_at_ms = now_ms()
            self._tell("", "quiet", "nothing is broken any more")
            await asyncio.sleep(max(end - time.monotonic(), 0.0))
            left = await self._rest(stage)
            watching.cancel()
            left["left_over"].extend(gauge.beyond_bounds())
        finally:
            self._tell("", "ending", "all processes end")
            await stage.close()
        self.ended_at_ms = now_ms()
        self._tell("", "checking", "the checker reads what is left")
        await asyncio.to_thread(self._judge, left, nemesis.unserved)

    def _tell(self, name: str, what: str, text: str) -> None:
        self.events.append((now_ms(), name, what, text))
        self.told(name, what, text)

    async def _rest(self, stage: Stage) -> dict[str, list[str]]:
        """Let everything come to rest, and read it once more; return what is not as it should."""
        callers = stage.callers
        # Whoever has stopped at its bound has lost nothing yet; the checker says what it means.
        late = await _patient(stage, "rest", timeout_s=REST_S)
        unserved = await _patient(stage, "last", count=LAST_SUBMITS)
        left_over = []
        with suppress(NeverHappenedError):
            for shard in await stage.order(callers, "stats"):
                left_over += [
                    f"shard {shard['shard']} has {shard[name]} {name}"
                    for name in ("in_memory", "queued")
                    if shard[name]
                ]
        await _patient(stage, "readings")
        return {"late": late, "unserved": unserved, "left_over": left_over}

    def _judge(self, left: Mapping[str, list[str]], unserved: list[str]) -> None:
        self.evidence = gather(
            self.workplace,
            self.blows,
            began_at_ms=self.began_at_ms,
            healed_at_ms=self.healed_at_ms,
            ended_at_ms=self.ended_at_ms,
            late=left["late"],
            unserved=[*left["unserved"], *unserved],
            left_over=left["left_over"],
            ray_logs=[] if self.stage is None else self.stage.ray_logs,
            poison=frozenset(
                blow.target for blow in self.blows if blow.fault == "poison-order" and blow.target
            ),
        )
        self.violations = check(self.evidence.seen)
        for blow in self.blows:
            self.violations += [Violation(blow.fault, "", what) for what in blow.broken]


async def _patient(stage: Stage, verb: str, **facts: Any) -> list[str]:
    """Have the callers do what may take long; return what they say, as a list."""
    assert stage.callers is not None
    try:
        answer = await stage.callers.ask(verb, facts, 4 * REST_S)
    except (ChildGoneError, NeverHappenedError) as error:
        return [f"{verb}: {error}"]
    return answer if isinstance(answer, list) else []
