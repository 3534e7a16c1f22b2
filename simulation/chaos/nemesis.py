"""Breaks one thing after another, and sees to it that the engine serves again before the next.

Guarantees: which faults strike, in which order, with which pauses and draws, is a function of
the seed and of how long strikes take. Each fault strikes once before any strikes again, as far
as time allows; one that did not bite goes first in the next round.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError
from raysaga.simulation.chaos.processes import descendants, is_alive
from raysaga.simulation.chaos.stage import Stage

PAUSE_S = (1.0, 4.0)
"""Bounds of the pause between two strikes."""

COMBINED = 0.3
"""Share of the faults that combine which strike together with another."""

SERVED_S = 90.0
"""How long after a fault was healed the engine may take to accept an order and to end one."""

FULL_RATIO = 1.5
"""A time is enough for faults if it is so many times what they usually take."""

Told = Callable[[str, str, str], None]
"""Called with a fault's name, what it did, and a text."""


class Nemesis:
    """What breaks a run.

    Attributes:
        blows: Every strike so far, the one under way included.
        unserved: After which strikes nobody was served again in time.
    """

    def __init__(self, stage: Stage, faults: Sequence[Fault], seed: int, tell: Told) -> None:
        self.blows: list[Blow] = []
        self.unserved: list[str] = []
        self._stage = stage
        self._faults = list(faults)
        self._seed = seed
        self._tell = tell

    async def rage(self, for_s: float) -> None:
        """Strike until the time is up; the last strike is not cut short."""
        end = time.monotonic() + for_s
        chance = random.Random(f"{self._seed} nemesis")
        while True:
            round_ = affordable(self._faults, end - time.monotonic())
            chance.shuffle(round_)
            bitten = tally(self.blows)
            round_.sort(key=lambda fault: bitten[fault.name]["bit"] > 0)
            struck = False
            for fault in round_:
                if time.monotonic() + fault.seconds > end:
                    continue
                struck = True
                await asyncio.sleep(chance.uniform(*PAUSE_S))
                others = [f for f in round_ if f.combines and f is not fault]
                at_once = [fault]
                if fault.combines and others and chance.random() < COMBINED:
                    at_once.append(chance.choice(others))
                await asyncio.gather(*(self.strike(one) for one in at_once))
                await self.mend(" and ".join(one.name for one in at_once))
            if not struck:
                break
        # What is left is too short for any of them.
        await asyncio.sleep(max(end - time.monotonic(), 0.0))

    async def strike(self, fault: Fault) -> Blow:
        """Have one fault strike, and note what came of it."""
        number = len(self.blows) + 1
        blow = Blow(
            fault=fault.name,
            number=number,
            chance=random.Random(f"{self._seed} {fault.name} {number}"),
            told=lambda what, text: self._tell(fault.name, what, text),
        )
        self.blows.append(blow)
        try:
            async with asyncio.timeout(fault.strike_s_max):
                await fault.strike(self._stage, blow)
        except TimeoutError:
            blow.misfortune = f"not over within {fault.strike_s_max:g} s"
        except Exception as error:  # noqa: BLE001 - a fault that fails must not lose the run
            blow.misfortune = f"{type(error).__name__}: {error}"
        if blow.misfortune:
            self._tell(fault.name, "missed", blow.misfortune)
        return blow

    async def mend(self, after: str) -> None:
        """Take away every trouble, and wait until orders are accepted and end."""
        stage = self._stage
        for path in (stage.workplace / "trouble").glob("*.json"):
            path.unlink(missing_ok=True)
        for pid in descendants():
            # Who was stopped and not woken, by a fault that was cut short.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        try:
            if stage.keeper is None or not is_alive(stage.keeper.pid):
                self._tell(after, "restart", "the keeper is gone")
                await stage.kill()
                await stage.start()
            elif stage.callers is None or not is_alive(stage.callers.pid):
                self._tell(after, "restart", "the callers are gone")
                await stage.restart_callers()
            await self._served(SERVED_S)
        except NeverHappenedError as never:
            # A violation, and the run goes on: the next strike shall find something to break.
            self.unserved.append(f"after {after}: {never}")
            self._tell(after, "unserved", str(never))
            await stage.kill()
            await stage.start()

    async def _served(self, timeout_s: float) -> None:
        before = self._stage.pulse()

        def goes_on() -> bool:
            now = self._stage.pulse()
            if now["submitted"] < before["submitted"]:
                before.clear()
            return all(now[name] > before[name] for name in ("accepted", "ended"))

        await self._stage.until(goes_on, "orders are accepted and end", timeout_s)


def affordable(faults: Sequence[Fault], for_s: float) -> list[Fault]:
    """Return the faults that fit into a time, the quickest of them if not all do."""
    found: list[Fault] = []
    left_s = for_s
    for fault in sorted(faults, key=lambda fault: fault.seconds):
        left_s -= FULL_RATIO * fault.seconds
        if left_s < 0:
            break
        found.append(fault)
    return found


def tally(blows: Sequence[Blow]) -> defaultdict[str, Counter[str]]:
    """Return how often each fault was inflicted, bit, or was inflicted and did not bite."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for blow in blows:
        counts = found[blow.fault]
        counts["inflicted"] += bool(blow.inflicted_at_ms)
        counts["bit"] += bool(blow.bit_at_ms)
        counts["missed"] += not blow.bit_at_ms
    return found
