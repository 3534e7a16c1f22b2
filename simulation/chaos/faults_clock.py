"""Faults of the clock: it jumps forward, by an hour and by a day, and all goes on.

It plays aside, in a folder of its own: instants that jump cannot be put in order with those of
the run. All processes of the engine and of the callers get their wall clock from
`shifted_clock`; the monotonic clock is left alone, as by an operator who sets the time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final

from raysaga.simulation.chaos import shifted_clock
from raysaga.simulation.chaos.aside import aside, ends_of, flaws_of
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError, now_ms
from raysaga.simulation.chaos.shifted_clock import put
from raysaga.simulation.chaos.stage import Stage

HOUR_S: Final = 3_600
DAY_S: Final = 24 * HOUR_S

OFFSETS_S: Final = (-DAY_S, -HOUR_S, 0, HOUR_S, DAY_S)
"""Where the clock is put, one after the other, counted from the true time.

Forward only: put back, it holds up what waits for an instant (docs/evidence/FOUND.md, open).
"""

NEAR_MS: Final = 60_000

TRIES_MAX: Final = 5
TRY_EVERY_S: Final = 0.5

ENDED_MIN: Final = 10
"""Sagas that must end by each clock."""

REST_S: Final = 60.0


class ClockJumps(Fault):
    """The wall clock of every process is a day behind, and jumps until it is a day ahead."""

    name: ClassVar[str] = "clock-jumps"
    numbers: ClassVar[tuple[int, ...]] = (33,)
    what: ClassVar[str] = "has the wall clock jump by hours and a day, in a folder of its own"
    seconds: ClassVar[float] = 45.0
    strike_s_max: ClassVar[float] = 420.0
    offsets_s: ClassVar[tuple[int, ...]] = OFFSETS_S

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when a saga was accepted at an instant by the clock that jumped."""
        async with aside(stage, "clocks", copied=False) as other:
            clock = other.workplace / "clock"
            put(clock, self.offsets_s[0])
            launch = replace(
                stage.launch, environment={**stage.launch.environment, **environment_of(clock)}
            )
            await other.start(launch)
            for number, offset_s in enumerate(self.offsets_s):
                put(clock, offset_s)
                blow.inflicted(f"{offset_s:+d} s")
                await _jumped(other, blow, f"clock-{number}", offset_s)
            under_way = await other.order(other.callers, "rest", timeout_s=REST_S)
            for saga in under_way:
                blow.broke(f"not at rest after the clock has jumped: {saga}")
            await other.stop()
            _judge(other, blow)
            blow.healed("the folder is thrown away")


FAULTS: Final[tuple[Fault, ...]] = (ClockJumps(),)


def environment_of(clock: Path) -> dict[str, str]:
    """Return what makes Python processes, and all that they start, look at the file `clock`."""
    site = clock.with_suffix(".site")
    site.mkdir()
    shutil.copy(shifted_clock.__file__, site / "sitecustomize.py")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {shifted_clock.VARIABLE: str(clock), "PYTHONPATH": os.pathsep.join(paths)}


async def _jumped(stage: Stage, blow: Blow, key: str, offset_s: int) -> None:
    """See an order accepted by the clock as it is now, and wait until others have ended."""
    ended = stage.pulse()["ended"]
    off_ms = 0
    # Whoever was about to accept it may have read the clock before.
    for again in range(TRIES_MAX):
        code = await stage.order(stage.callers, "submit", key=f"{key}-{again}")
        if code:
            blow.broke(f"with the clock at {offset_s:+d} s an order meets {code}")
            return
        status = await stage.order(stage.callers, "status", saga_id=f"order:{key}-{again}")
        off_ms = status["accepted_at_ms"] - now_ms() - offset_s * 1_000
        if abs(off_ms) < NEAR_MS:
            blow.bit(f"{key}-{again} was accepted {offset_s:+d} s from now, by its clock")
            await stage.until(lambda: stage.pulse()["ended"] > ended + ENDED_MIN, "sagas end")
            return
        await asyncio.sleep(TRY_EVERY_S)
    raise NeverHappenedError(f"the clock is put to {offset_s:+d} s: off by {off_ms} ms", 0.0)


def _judge(stage: Stage, blow: Blow) -> None:
    for flaw in flaws_of(stage):
        blow.broke(f"after the clock jumped: {flaw}")
    ends = ends_of(stage)
    expired = [s for s, status in ends.items() if status["code"] == "DEADLINE_EXCEEDED"]
    blow.bit(f"{len(ends)} sagas ended, {len(expired)} of them turned back by a deadline")
