"""Exchanges over a unix socket: each answer to its question, and each loss told."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors.clock import SystemClock
from raysaga.actors.lane import Landing, Lane
from raysaga.actors.local_wire import LocalDoor, LocalWire, socket_path
from raysaga.actors.settings import EngineSettings
from raysaga.actors.wire import BATCH_BYTES_MAX
from raysaga.statemachines.errors import ValidationError


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough for a socket, wherever the tests' own folder is."""
    with tempfile.TemporaryDirectory(prefix="raysaga-test-") as folder:
        yield Path(folder) / "door.sock"


def socket_is_at(path: Path) -> bool:
    return path.is_socket()


async def echo(batch: bytes) -> bytes:
    return batch[::-1]


async def test_answers_find_their_questions_in_whatever_order_they_come(path: Path) -> None:
    gates = {b"a": asyncio.Event(), b"b": asyncio.Event()}

    async def answer(batch: bytes) -> bytes:
        await gates[batch].wait()
        return b"to " + batch

    door = await LocalDoor.open(path, answer)
    wire = await LocalWire.connect(str(path))
    first = asyncio.ensure_future(wire.exchange(b"a"))
    second = asyncio.ensure_future(wire.exchange(b"b"))
    gates[b"b"].set()
    assert await second == b"to b"
    assert not first.done()
    gates[b"a"].set()
    assert await first == b"to a"
    wire.hang_up()
    door.close()


@pytest.mark.parametrize("size", [0, 1, 200_000, BATCH_BYTES_MAX])
async def test_a_batch_of_any_allowed_size_arrives_whole(path: Path, size: int) -> None:
    door = await LocalDoor.open(path, echo)
    wire = await LocalWire.connect(str(path))
    batch = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert await wire.exchange(batch) == batch[::-1]
    wire.hang_up()
    door.close()


async def test_a_refused_batch_fails_its_own_exchange_and_no_other(path: Path) -> None:
    async def answer(batch: bytes) -> bytes:
        if batch == b"bad":
            raise ValidationError("it cannot be read")
        return batch

    door = await LocalDoor.open(path, answer)
    wire = await LocalWire.connect(str(path))
    with pytest.raises(ConnectionError, match="VALIDATION"):
        await wire.exchange(b"bad")
    assert await wire.exchange(b"good") == b"good"
    wire.hang_up()
    door.close()


async def test_a_lost_connection_fails_what_is_under_way_and_what_comes_after(path: Path) -> None:
    asked = asyncio.Event()

    async def answer(_batch: bytes) -> bytes:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    door = await LocalDoor.open(path, answer)
    wire = await LocalWire.connect(str(path))
    exchange = asyncio.ensure_future(wire.exchange(b"?"))
    await asked.wait()
    wire.hang_up()
    with pytest.raises(ConnectionError):
        await exchange
    with pytest.raises(ConnectionError):
        await wire.exchange(b"?")
    door.close()


async def test_a_frame_that_claims_to_be_too_large_ends_the_connection(path: Path) -> None:
    door = await LocalDoor.open(path, echo)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"\xff" * 64)
    assert await reader.read() == b""
    writer.close()
    door.close()


async def test_a_newer_door_takes_the_place_of_an_older_one(path: Path) -> None:
    async def newer(_batch: bytes) -> bytes:
        return b"newer"

    old = await LocalDoor.open(path, echo)
    new = await LocalDoor.open(path, newer)
    wire = await LocalWire.connect(str(path))
    assert await wire.exchange(b"?") == b"newer"
    wire.hang_up()
    old.close()
    assert socket_is_at(path)
    new.close()
    assert not socket_is_at(path)


async def test_nobody_is_let_in_after_a_door_was_closed(path: Path) -> None:
    door = await LocalDoor.open(path, echo)
    door.close()
    with pytest.raises(OSError, match="No such file"):
        await LocalWire.connect(str(path))


def echoing(settings: EngineSettings) -> Landing:
    """Return a landing that answers each message with itself."""

    def receive(sender: str, messages: list[list[Any]]) -> None:
        for (n,) in messages:
            landing.push(sender, (n,))

    landing = Landing(receive, settings)
    return landing


async def test_a_lane_loses_nothing_silently_when_its_door_is_replaced(path: Path) -> None:
    """Three landings one after the other, each with its door, under one lane that asks again."""
    settings = EngineSettings(exchange_hold_ms=50)
    count = 3_000
    left = set(range(count))
    wires: list[LocalWire] = []
    goal = count * 2 // 3
    reached = asyncio.Event()

    async def carry(batch: bytes) -> bytes:
        if not wires:
            wires.append(await LocalWire.connect(str(path)))
        try:
            return await wires[0].exchange(batch)
        except ConnectionError:
            wires.clear()
            raise

    def failed(_error: BaseException) -> None:
        lane.drop_queued()
        for n in left:
            lane.put((n,))

    def received(messages: list[list[Any]]) -> None:
        left.difference_update(n for (n,) in messages)
        if len(left) <= goal:
            reached.set()

    defects: list[BaseException] = []
    lane = Lane(
        sender="one",
        exchange=carry,
        receive=received,
        failed=failed,
        expects=lambda: bool(left),
        defect=defects.append,
        clock=SystemClock(),
        settings=settings,
    )
    door = await LocalDoor.open(path, echoing(settings).exchange)
    for n in range(count):
        lane.put((n,))
    for next_goal in (count // 3, 0):
        await reached.wait()
        goal = next_goal
        reached.clear()
        door.close()
        door = await LocalDoor.open(path, echoing(settings).exchange)
        if wires:
            wires[0].hang_up()
    await reached.wait()
    assert not left
    assert not defects
    await lane.close()
    door.close()


def test_each_actor_has_a_path_of_its_own_that_fits_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one, other = socket_path("raysaga-1/shard/0"), socket_path("raysaga-1/shard/1")
    assert one != other
    assert one == socket_path("raysaga-1/shard/0")
    assert one.parent.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_may_enter_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    socket_path("any").parent.chmod(0o755)
    with pytest.raises(PermissionError, match="open to other users"):
        socket_path("any")
