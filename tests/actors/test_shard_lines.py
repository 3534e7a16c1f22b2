"""Shards are asked over their sockets; who does not answer is told as such, and not waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors import shard_lines
from raysaga.actors.actor_names import engine_name, shard_actor
from raysaga.actors.errors import EngineUnavailableError
from raysaga.actors.lane import Landing
from raysaga.actors.local_wire import LocalDoor, socket_path
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shard_lines import ShardLines
from raysaga.storage.data_folder import DataFolder

Answer = Callable[[Landing, str, int], None]


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder.open(tmp_path / "data", shard_count=2, create=True)


@asynccontextmanager
async def shard(folder: DataFolder, number: int, answer: Answer) -> AsyncIterator[None]:
    """Listen where a shard does; `answer` is given the number of each question."""

    def receive(sender: str, messages: list[list[Any]]) -> None:
        for which, operation, _ in messages:
            assert operation == "stats"
            answer(landing, sender, which)

    landing = Landing(receive, EngineSettings())
    path = socket_path(shard_actor(engine_name(folder.uuid), number))
    door = await LocalDoor.open(path, landing.exchange)
    try:
        yield
    finally:
        door.close()


def well(landing: Landing, sender: str, which: int) -> None:
    landing.push(sender, [which, "ok", {"question": which}])


def after_another(landing: Landing, sender: str, which: int) -> None:
    """Answer what was asked before and given up, too."""
    landing.push(sender, [which - 1, "ok", {"question": which - 1}])
    well(landing, sender, which)


def with_an_error(landing: Landing, sender: str, which: int) -> None:
    landing.push(sender, [which, "error", ["ENGINE_UNAVAILABLE", ["starting"]]])


def never(_landing: Landing, _sender: str, _which: int) -> None:
    """Stand still."""


async def test_each_shard_is_asked_and_asked_again(folder: DataFolder) -> None:
    lines = ShardLines(folder)
    async with shard(folder, 0, well), shard(folder, 1, after_another):
        first, second = await lines.stats(), await lines.stats()
    assert sorted(row["question"] for row in first + second) == [1, 2, 3, 4]
    lines.close()


@pytest.mark.parametrize("answer", [with_an_error, never])
async def test_one_that_does_not_answer_is_no_engine_and_is_asked_again_later(
    folder: DataFolder, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_lines, "ANSWER_S_MAX", 0.1)
    lines = ShardLines(folder)
    async with shard(folder, 0, well):
        with pytest.raises(EngineUnavailableError):
            await lines.stats()
        async with shard(folder, 1, answer):
            with pytest.raises(EngineUnavailableError):
                await lines.stats()
        async with shard(folder, 1, well):
            assert len(await lines.stats()) == 2
    lines.close()
