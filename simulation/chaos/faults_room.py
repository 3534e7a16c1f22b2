"""Faults of room: a full disk, a full journal, and a reader who lets nothing be used again.

What is full refuses new orders by a code and finishes what it accepted; nothing is to be
repaired afterwards.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import ClassVar, Final

from raysaga.actors.archive import Archive
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError
from raysaga.simulation.chaos.faults_nodes import accepted
from raysaga.simulation.chaos.machine import lacks_mounts
from raysaga.simulation.chaos.small_disk import fill_up, on_a_small_disk
from raysaga.simulation.chaos.stage import Stage

MIB: Final = 1 << 20

SPARE_BYTES: Final = 48 * MIB
"""Free on the small disk at first: more than a ballast, or nothing would ever be taken in."""

FULL_S: Final = 3.0
"""How long a disk stays full after the first refusal."""

REFUSED: Final = "refused STORAGE_FULL"
"""How the callers count what a full engine answers."""

ORDERS_MIN: Final = 5
"""Orders that must be accepted again before it counts as healed."""

READER_S_MAX: Final = 20.0

PINNED_BYTES_MIN: Final = 2 * MIB
"""Growth of a journal beside an old reader from which on he counts as felt."""


class DiskFull(Fault):
    """ENOSPC: the disk of the data folder is filled up, and then emptied."""

    name: ClassVar[str] = "disk-full"
    numbers: ClassVar[tuple[int, ...]] = (23,)
    what: ClassVar[str] = "fills up the disk of the data folder, a small one"
    seconds: ClassVar[float] = 30.0
    strike_s_max: ClassVar[float] = 420.0

    def missing(self) -> str:
        """Return what is missing to mount a small disk."""
        return lacks_mounts()

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when an order was refused because there is no room."""
        async with on_a_small_disk(stage, SPARE_BYTES):
            await accepted(stage, ORDERS_MIN)
            filler = stage.folder / "filler"
            refused = stage.pulse()[REFUSED]
            fill_up(filler)
            blow.inflicted(f"the disk of {stage.folder.name}, {SPARE_BYTES // MIB} MiB were free")
            try:
                await stage.until(lambda: stage.pulse()[REFUSED] > refused, "an order is refused")
                await asyncio.sleep(FULL_S)
                blow.bit(f"{stage.pulse()[REFUSED] - refused} orders were told STORAGE_FULL")
            finally:
                filler.unlink()
            await accepted(stage, ORDERS_MIN)
            blow.healed("there is room, and orders are accepted")


class JournalFull(Fault):
    """The map of a journal is at its cap, with all of the disk free."""

    name: ClassVar[str] = "journal-full"
    numbers: ClassVar[tuple[int, ...]] = (24,)
    what: ClassVar[str] = "caps the journals just above what they hold"
    seconds: ClassVar[float] = 40.0
    strike_s_max: ClassVar[float] = 420.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when an order was refused; healed by a higher cap, as an operator would."""
        before = stage.launch
        await stage.stop()
        ratio = 0.1
        cap = int((_live_bytes(stage) + MIB) / (1 - ratio))
        settings = {"map_bytes_first": MIB, "map_bytes_max": cap, "reserve_ratio": ratio}
        try:
            capped = replace(before, settings={**before.settings, **settings})
            await stage.start(capped)
            blow.inflicted(f"every journal is capped at {cap} bytes")
            await stage.until(lambda: stage.pulse()[REFUSED], "an order is refused")
            await asyncio.sleep(FULL_S)
            blow.bit(f"{stage.pulse()[REFUSED]} orders were told STORAGE_FULL")
        finally:
            await stage.stop()
            await stage.start(before)
        await accepted(stage, ORDERS_MIN)
        blow.healed("the cap is raised, and orders are accepted")


class OldReader(Fault):
    """A process that holds a view of a journal open, and is killed while it does."""

    name: ClassVar[str] = "old-reader"
    numbers: ClassVar[tuple[int, ...]] = (25,)
    what: ClassVar[str] = "pins a journal's pages with a view that is never closed"
    seconds: ClassVar[float] = 15.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bitten when the journal has grown beside him as it does not otherwise."""
        shard = blow.chance.randrange(stage.data().shard_count)
        async with _looking(stage, shard) as pid:
            size, ended = _size(stage, shard), stage.pulse()["ended"]
            blow.inflicted(f"shard/{shard}: process {pid} looks at its journal")
            await stage.until(
                lambda: _size(stage, shard) - size >= PINNED_BYTES_MIN,
                "the journal has grown",
                READER_S_MAX,
            )
            grown, sagas = _size(stage, shard) - size, stage.pulse()["ended"] - ended
            blow.bit(f"the file grew by {grown} bytes while {sagas} sagas ended")
        await accepted(stage, ORDERS_MIN)
        blow.healed("the reader was killed, and orders are accepted")


FAULTS: Final[tuple[Fault, ...]] = (DiskFull(), JournalFull(), OldReader())


@asynccontextmanager
async def _looking(stage: Stage, shard: int) -> AsyncIterator[int]:
    """Have a process look at a journal; kill it at the end, so that its slot is left over."""
    module = "raysaga.simulation.chaos.old_reader"
    command = [sys.executable, "-m", module, str(stage.folder), str(shard)]
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE)
    try:
        assert process.stdout is not None
        if not await process.stdout.readline():
            raise NeverHappenedError("somebody looks at the journal", 0.0)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


def _live_bytes(stage: Stage) -> int:
    with Archive.open(stage.folder) as archive:
        return max(usage.used for usage in archive.usages())


def _size(stage: Stage, shard: int) -> int:
    return (stage.data().journal_path(shard) / "data.mdb").stat().st_size
