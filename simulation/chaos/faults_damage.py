"""Faults of a data folder that is damaged: a flipped bit, a cut file, a disk that is read-only.

Each plays aside, on a copy of the run's folder: what is damaged there is lost, and nothing can
be checked against it later. What must hold: what cannot be read is refused or parked, and
whatever is answered is what was true before.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

from raysaga.actors.placement import shard_of
from raysaga.simulation.chaos.aside import aside, ends_of
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError
from raysaga.simulation.chaos.machine import flaw_of, lacks_mounts
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import LOOK_EVERY_S, Stage
from raysaga.simulation.chaos.trouble import troubled
from raysaga.statemachines.ids import SagaId

READ_AGAIN: Final = 200
"""Sagas whose end is read again after the damage."""

ANSWER_S_MAX = 5.0
"""How long an engine with a damaged folder is waited for; silence is a good answer."""

STATUS_S_MAX: Final = 60.0

LOOKED_AT_S: Final = 10.0
"""How long a shard is looked at whose file was cut."""


class FlipBits(Fault):
    """A bit of a saga's record, of one under way and of one that is over."""

    name: ClassVar[str] = "flip-bits"
    numbers: ClassVar[tuple[int, ...]] = (26,)
    what: ClassVar[str] = "flips bits in two sagas' records, on a copy of the folder"
    seconds: ClassVar[float] = 30.0
    strike_s_max: ClassVar[float] = 420.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when the saga under way is parked as unreadable."""
        key = f"flip-{blow.number}"
        victim = f"order:{key}"
        async with _kept_waiting(stage, key):
            await stage.order(stage.callers, "operate", operates=False)
            async with aside(stage, "flipped", copied=True, rate_per_s=0.0) as other:
                truth = ends_of(other)
                over = blow.chance.choice(sorted(truth))
                flips = _flip(other, victim) + _flip(other, over)
                blow.inflicted(f"{flips} places in the records of {victim} and {over}")
                await other.start(stage.launch)
                found = await _status(other, victim, _is_unreadable, "is unreadable")
                blow.bit(f"{victim} is {found['phase']}: {found['code']}")
                await _read_again(other, blow, truth, [over, *_sample(blow, truth)])
                code = await other.order(other.callers, "submit", key="after-the-flip")
                if code:
                    blow.broke(f"after a flipped bit, new orders are refused: {code}")
                blow.healed("the copy is thrown away")
        await stage.order(stage.callers, "operate", operates=True)


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


FAULTS: Final[tuple[Fault, ...]] = (FlipBits(), CutFile(), StartReadOnly())


# -- what they do --------------------------------------------------------------


@asynccontextmanager
async def _kept_waiting(stage: Stage, key: str) -> AsyncIterator[None]:
    """Have a saga wait half way, for as long as this lasts."""
    saga_id = f"order:{key}"
    async with troubled(stage.workplace, "shipping", {"mode": "hang", "saga_id": saga_id}):
        await stage.order(stage.callers, "submit", key=key)
        await _status(stage, saga_id, _is_half_way, "is half way")
        yield


def _is_half_way(status: Mapping[str, Any]) -> bool:
    attempts = {step["name"]: step["attempts"] for step in status["steps"]}
    # At a second attempt what came before it is on the disk.
    return bool(attempts.get("schedule_shipping", 0) >= 2)


def _is_unreadable(status: Mapping[str, Any]) -> bool:
    return bool(status["code"] == "JOURNAL_CORRUPT")


async def _status(
    stage: Stage, saga_id: str, wanted: Callable[[Mapping[str, Any]], bool], what: str
) -> Mapping[str, Any]:
    """Return the status of a saga once it is as `wanted`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + STATUS_S_MAX
    while loop.time() < end:
        found = await stage.order(stage.callers, "status", saga_id=saga_id)
        if found is not None and wanted(found):
            return dict(found)
        await asyncio.sleep(LOOK_EVERY_S)
    raise NeverHappenedError(f"{saga_id} {what}", STATUS_S_MAX)


def _flip(stage: Stage, saga_id: str) -> int:
    """Flip a bit of the key in every copy of a saga's first record; return how many there were."""
    key = saga_id.partition(":")[2].encode()
    needle = b"order_id" + bytes([0xA0 | len(key)]) + key
    folder = stage.data()
    file = folder.journal_path(shard_of(SagaId(saga_id), folder.shard_count)) / "data.mdb"
    data, count = bytearray(file.read_bytes()), 0
    at = data.find(needle)
    while at >= 0:
        data[at + len(needle) - 1] ^= 0x01
        count += 1
        at = data.find(needle, at + 1)
    file.write_bytes(bytes(data))
    return count


def _sample(blow: Blow, truth: Mapping[str, Any]) -> list[str]:
    return blow.chance.sample(sorted(truth), min(READ_AGAIN, len(truth)))


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
