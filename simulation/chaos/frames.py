"""A man in the middle on a local socket: sees every frame, and loses, doubles, holds or cuts.

He takes the place of a door (`actors/local_wire.py`): its socket is moved aside, and he listens
where it was. Who connects from then on goes through him; connections that were there before
stay as they are.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path

from raysaga.simulation.chaos.fault import NeverHappenedError

_HEADER = struct.Struct("<IBQ")
"""Length, kind and number, as `local_wire` has it."""

_BATCH = 0

AGAIN_S = 1.0
"""After so long a doubled frame comes again."""


def frame(content: bytes, number: int = 1) -> bytes:
    """Return one frame with a batch."""
    return _HEADER.pack(len(content), _BATCH, number) + content


class Fate(Enum):
    """What becomes of a frame."""

    PASS = "pass"  # noqa: S105 - not a password
    LOSE = "lose"
    DOUBLE = "double"
    """It comes again a second later, when it may have been answered."""
    CUT = "cut"
    """Its connection ends before it is handed on."""


Decide = Callable[[bool, int], tuple[Fate, float]]
"""Given whether a frame goes to the door, and its length: its fate, and how long it is held."""


class Middle:
    """One man in the middle.

    Attributes:
        connections: How many have gone through him.
        passed: Frames that he has handed on.
        met: Frames that he has done something to.
    """

    def __init__(self, decide: Decide) -> None:
        self.connections = 0
        self.passed = 0
        self.met = 0
        self._decide = decide
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, door: Path, decide: Decide) -> AsyncIterator[Middle]:
        """Stand before the door at `door` until the end of the block.

        Raises:
            NeverHappenedError: If nobody listens there.
        """
        middle, aside = cls(decide), door.with_suffix(".real")
        try:
            door.rename(aside)
        except FileNotFoundError as error:
            raise NeverHappenedError(f"somebody listens at {door}", 0.0) from error
        server = await asyncio.start_unix_server(
            lambda r, w: middle._connected(aside, r, w), str(door)
        )
        place = door.stat().st_ino
        try:
            yield middle
        finally:
            server.close()
            # The one behind may have been replaced meanwhile, by one that listens here itself.
            with suppress(FileNotFoundError):
                if door.stat().st_ino == place:
                    aside.rename(door)
            aside.unlink(missing_ok=True)
            for task in list(middle._tasks):
                task.cancel()

    async def _connected(
        self, door: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_unix_connection(str(door))
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there, to_door=True))
                both.create_task(self._carry(back, writer, to_door=False))
        except* (OSError, EOFError, _CutError):
            # One end is gone, or was cut off; so is the other now.
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()
            self._tasks.discard(task)

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, to_door: bool
    ) -> None:
        while True:
            header = await source.readexactly(_HEADER.size)
            length, _, _ = _HEADER.unpack(header)
            content = await source.readexactly(length)
            fate, held_s = self._decide(to_door, length)
            self.met += fate is not Fate.PASS or held_s > 0
            if held_s:
                await asyncio.sleep(held_s)
            if fate is Fate.CUT:
                raise _CutError
            if fate is Fate.LOSE:
                continue
            target.write(header + content)
            if fate is Fate.DOUBLE:
                asyncio.get_running_loop().call_later(AGAIN_S, _again, target, header + content)
            self.passed += 1
            await target.drain()


def _again(target: asyncio.StreamWriter, sent: bytes) -> None:
    if not target.is_closing():
        target.write(sent)


class _CutError(Exception):
    """The connection is to end now."""
