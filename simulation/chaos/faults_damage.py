"""Faults of a data folder: a flipped bit, a file that is cut, a disk that is read-only.

Each plays aside, on a copy of the run's folder: what is damaged there is lost, and nothing can
be checked against it later. What must hold: what cannot be used is refused, and whatever is
answered all the same is what was true before.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from raysaga.actors.placement import shard_of
from raysaga.simulation.chaos.aside import aside, ends_of, flaws_of, problems_of
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError
from raysaga.simulation.chaos.flipped_bit import FlippedBit
from raysaga.simulation.chaos.machine import flaw_of, lacks_mounts
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import LOOK_EVERY_S, Stage
from raysaga.simulation.chaos.trouble import troubled
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase

READ_AGAIN: Final = 200
"""Sagas whose end is read again after the damage."""

ANSWER_S_MAX = 5.0
"""How long an engine with a damaged folder is waited for; silence is a good answer."""

LOOKED_AT_S: Final = 10.0
"""How long a shard is looked at whose file was cut."""

UNDER_WAY: Final = frozenset(Phase) - PARKED - TERMINAL

TURNED_AWAY_MIN: Final = 40
"""Calls that shipping turns away before a bit is flipped, so that sagas of both shards wait."""

REST_S: Final = 60.0
"""How long sagas may take to end beside a damaged one, and with it when it is whole again."""


class FlipBit(Fault):
    """A bit of a record says something else than was written, and is put back later."""

    name: ClassVar[str] = "flip-bit"
    numbers: ClassVar[tuple[int, ...]] = (26,)
    what: ClassVar[str] = "flips a bit in one record each of two sagas, in a copy"
    seconds: ClassVar[float] = 60.0
    strike_s_max: ClassVar[float] = 420.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when the saga under way is parked, and verifying tells of the two alone."""
        async with troubled(stage.workplace, "shipping", {"mode": "down"}) as trouble:
            await stage.until(lambda: len(trouble.bites()) >= TURNED_AWAY_MIN, "sagas wait")
            async with aside(stage, "flipped", copied=True, rate_per_s=0.0) as other:
                waits = FlippedBit.draw(other.data(), UNDER_WAY, blow.chance)
                ended = FlippedBit.draw(other.data(), TERMINAL, blow.chance)
                await _beside_damage(other, stage, blow, waits, ended)
                await _mended(other, stage, blow, waits, ended)


class CutFile(Fault):
    """A journal's file that is cut in half while it is mapped."""

    name: ClassVar[str] = "cut-file"
    numbers: ClassVar[tuple[int, ...]] = (28,)
    what: ClassVar[str] = "cuts a journal's file in half under a running shard, on a copy"
    seconds: ClassVar[float] = 40.0
    strike_s_max: ClassVar[float] = 420.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when the shard's process has ended; what is answered all the same is the truth."""
        async with aside(stage, "cut", copied=True, rate_per_s=0.0) as other:
            truth = ends_of(other)
            await other.start(stage.launch)
            shard = blow.chance.randrange(other.data().shard_count)
            pid = await other.pid(f"shard/{shard}")
            file = other.data().journal_path(shard) / "data.mdb"
            half = _bytes_of(file) // 2
            os.truncate(file, half)
            blow.inflicted(f"shard/{shard}, process {pid}: cut to {half} bytes")
            lost = [s for s in sorted(truth) if shard_of(SagaId(s), _shards(other)) == shard]
            asked = blow.chance.sample(lost, min(READ_AGAIN, len(lost)))
            asking = asyncio.create_task(_read_again(other, blow, truth, asked))
            try:
                await other.until(lambda: not is_alive(pid), f"process {pid} has ended")
                blow.bit(f"shard/{shard}: process {pid} has ended")
                await asyncio.sleep(LOOKED_AT_S)
                serves = len(_starts(other, shard, after=pid))
                blow.bit(f"{serves} of its successors had started {LOOKED_AT_S:g} s later")
            finally:
                await asking
            blow.healed("the copy is thrown away")


class StartReadOnly(Fault):
    """A folder on a disk that was mounted read-only."""

    name: ClassVar[str] = "start-read-only"
    numbers: ClassVar[tuple[int, ...]] = (32,)
    what: ClassVar[str] = "starts an engine on a read-only disk, with a copy of the folder"
    seconds: ClassVar[float] = 30.0
    strike_s_max: ClassVar[float] = 420.0

    def missing(self) -> str:
        """Return what is missing to mount a folder read-only."""
        return lacks_mounts()

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when the engine has refused to start, and said why."""
        async with aside(stage, "read-only", copied=True, rate_per_s=0.0) as other:
            with _read_only(other.folder):
                blow.inflicted("the folder is read-only")
                with suppress(NeverHappenedError):
                    await other.start(stage.launch)
                    blow.broke("an engine has started on a read-only disk")
                await other.stop()
            told = _last_line(other.workplace / "log" / "keeper-1.txt")
            blow.bit(f"the engine says: {told}")
            if "cannot be written to" not in told:
                blow.broke(f"a read-only disk is not told as such: {told}")
            await other.start(stage.launch)
            code = await other.order(other.callers, "submit", key="after-read-only")
            if code:
                blow.broke(f"on the disk that can be written to again, an order meets {code}")
            blow.healed("it can be written to, and an order was accepted")


FAULTS: Final[tuple[Fault, ...]] = (FlipBit(), CutFile(), StartReadOnly())


# -- what they do --------------------------------------------------------------


async def _beside_damage(
    other: Stage, stage: Stage, blow: Blow, waits: FlippedBit, ended: FlippedBit
) -> None:
    """See that the damage of two sagas is told, harms no other, and is nobody's answer."""
    damaged = (waits, ended)
    truth = ends_of(other)
    for bit in damaged:
        bit.flip()
        blow.inflicted(f"bit {bit.place} of record {bit.seq} of {bit.saga_id}")
    await other.start(stage.launch)
    code = await other.order(other.callers, "submit", key="beside-the-damage")
    if code:
        blow.broke(f"beside a damaged record an order meets {code}")
    left = await _left_beside(other, waits.saga_id)
    if _is_parked(left, waits.saga_id):
        blow.bit(f"{left[0]}; all others have ended")
    else:
        blow.broke(f"beside a damaged record of {waits.saga_id}: {', '.join(left) or 'all ended'}")
    for bit in damaged:
        if await other.order(other.callers, "status", saga_id=bit.saga_id) is not None:
            blow.broke(f"{bit.saga_id} is answered from a damaged record")
    code = await other.order(other.callers, "retry", saga_id=waits.saga_id)
    if code != "ORDER_REFUSED":
        blow.broke(f"to send on a saga that cannot be read meets {code or 'consent'}")
    whole = sorted(truth.keys() - {bit.saga_id for bit in damaged})
    asked = blow.chance.sample(whole, min(READ_AGAIN, len(whole)))
    await _read_again(other, blow, truth, asked)
    await other.stop()
    problems = await asyncio.to_thread(lambda: list(problems_of(other)))
    if _are_told(problems, damaged):
        blow.bit(f"verifying tells of the two alone: {'; '.join(problems)}")
    else:
        blow.broke(f"verifying tells of {len(problems)} problems: {'; '.join(problems[:5])}")


async def _mended(
    other: Stage, stage: Stage, blow: Blow, waits: FlippedBit, ended: FlippedBit
) -> None:
    """Put the bits back; nothing may be wrong then, and what was parked must go on to its end."""
    for bit in (waits, ended):
        bit.put_back()
    await other.start(stage.launch)
    # The operator among the callers sends it on.
    for saga in await other.order(other.callers, "rest", timeout_s=REST_S):
        blow.broke(f"not at rest when its record is whole again: {saga}")
    await other.stop()
    for flaw in await asyncio.to_thread(lambda: list(flaws_of(other))):
        blow.broke(f"after the bits were put back: {flaw}")
    blow.healed("the bits are put back, every saga has ended, and the books are in order")


async def _left_beside(stage: Stage, parked: str) -> list[str]:
    """Return what is under way or parked, once that is one parked saga alone, or time is up."""
    end = time.monotonic() + REST_S
    while True:
        left: list[str] = await stage.order(stage.callers, "rest", timeout_s=0.0)
        if _is_parked(left, parked) or time.monotonic() > end:
            return left
        await asyncio.sleep(LOOK_EVERY_S)


def _is_parked(left: list[str], saga_id: str) -> bool:
    """Return whether nothing is left but this saga, parked because it cannot be read."""
    if len(left) != 1:
        return False
    return left[0].startswith(f"{saga_id} is parked_") and left[0].endswith(" JOURNAL_CORRUPT")


def _are_told(problems: list[str], damaged: tuple[FlippedBit, ...]) -> bool:
    """Return whether the problems are one of each damaged record, and no other."""
    told = {bit.saga_id for bit in damaged for p in problems if f" {bit.saga_id}: record " in p}
    return len(problems) == len(told) == len(damaged)


async def _read_again(
    stage: Stage, blow: Blow, truth: Mapping[str, dict[str, Any]], asked: list[str]
) -> None:
    """Read sagas that are over; an answer that is not the truth is a broken promise."""
    for saga_id in asked:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                told = await stage.order(stage.callers, "status", saga_id=saga_id)
        except (TimeoutError, NeverHappenedError):
            return
        if told is None:
            continue
        facts = ("phase", "code", "remaining") if told["results"] else ("phase", "code")
        wrong = [f for f in facts if told[f] != truth[saga_id][f]]
        if told["results"] and told["results"] != truth[saga_id]["results"]:
            wrong.append("results")
        if wrong:
            blow.broke(f"{saga_id} is read wrongly after the damage: {', '.join(wrong)}")


def _shards(stage: Stage) -> int:
    return stage.data().shard_count


def _bytes_of(file: Path) -> int:
    return file.stat().st_size


def _starts(stage: Stage, shard: int, *, after: int) -> list[int]:
    """Return the processes of a shard that have started to serve after another has."""
    log = stage.folder / "log" / f"shard-{shard}.jsonl"
    lines = (json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    pids = [int(line["pid"]) for line in lines if line["event"] == "host_started"]
    return pids[pids.index(after) + 1 :]


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Mount a folder on itself, read-only, for as long as the `with` lasts."""
    flaw = flaw_of(["mount", "--bind", str(folder), str(folder)])
    if flaw:
        raise NeverHappenedError(f"the folder is mounted: {flaw}", 0.0)
    try:
        flaw = flaw_of(["mount", "-o", "remount,ro,bind", str(folder)])
        if flaw:
            raise NeverHappenedError(f"the folder is read-only: {flaw}", 0.0)
        yield
    finally:
        flaw_of(["umount", "--lazy", str(folder)])
