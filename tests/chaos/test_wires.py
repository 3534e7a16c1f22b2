"""The man in the middle does to frames what he is told, and leaves the door as it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.actors.local_wire import LocalDoor, LocalWire
from raysaga.simulation.chaos.frames import Fate, Middle


class Door:
    """A door that notes what arrives and answers the same."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self.news = asyncio.Event()

    async def exchange(self, batch: bytes) -> bytes:
        self.arrived.append(batch)
        self.news.set()
        return batch

    async def has(self, count: int) -> None:
        while len(self.arrived) < count:
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 10)


async def test_what_passes_arrives_and_is_answered(tmp_path: Path) -> None:
    door, path = Door(), tmp_path / "door.sock"
    opened = await LocalDoor.open(path, door.exchange)
    async with Middle.before(path, lambda _to_door, _length: (Fate.PASS, 0.0)) as middle:
        wire = await LocalWire.connect(str(path))
        assert await wire.exchange(b"hello") == b"hello"
        assert (middle.passed, middle.met, middle.connections) == (2, 0, 1)
        wire.hang_up()
    wire = await LocalWire.connect(str(path))
    assert await wire.exchange(b"again") == b"again"
    wire.hang_up()
    opened.close()


async def test_a_lost_answer_is_never_heard_and_was_done(tmp_path: Path) -> None:
    door, path = Door(), tmp_path / "door.sock"
    opened = await LocalDoor.open(path, door.exchange)
    lose_back = lambda to_door, _length: (Fate.PASS if to_door else Fate.LOSE, 0.0)  # noqa: E731
    async with Middle.before(path, lose_back):
        wire = await LocalWire.connect(str(path))
        asked = asyncio.create_task(wire.exchange(b"hello"))
        await door.has(1)
        assert not asked.done()
    # With the man in the middle the connection ends.
    with pytest.raises(ConnectionError):
        await asked
    opened.close()


async def test_a_doubled_frame_arrives_twice(tmp_path: Path) -> None:
    door, path = Door(), tmp_path / "door.sock"
    opened = await LocalDoor.open(path, door.exchange)
    double = lambda to_door, _length: (Fate.DOUBLE if to_door else Fate.PASS, 0.0)  # noqa: E731
    async with Middle.before(path, double) as middle:
        wire = await LocalWire.connect(str(path))
        assert await wire.exchange(b"hello") == b"hello"
        await door.has(2)
        assert middle.met == 1
        wire.hang_up()
    assert door.arrived == [b"hello", b"hello"]
    opened.close()


async def test_a_cut_fails_what_is_under_way(tmp_path: Path) -> None:
    door, path = Door(), tmp_path / "door.sock"
    opened = await LocalDoor.open(path, door.exchange)
    async with Middle.before(path, lambda _to_door, _length: (Fate.CUT, 0.0)):
        wire = await LocalWire.connect(str(path))
        with pytest.raises(ConnectionError):
            await wire.exchange(b"hello")
    assert door.arrived == []
    opened.close()
