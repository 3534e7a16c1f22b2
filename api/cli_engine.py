"""Connects a command to the engine of its data folder, which is started if none runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from raysaga.actors.collector import spare_collections
from raysaga.actors.errors import EngineUnavailableError
from raysaga.api.cli_terminal import Terminal
from raysaga.api.served import served_otherwise

if TYPE_CHECKING:
    from raysaga.api.client import Sagas

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop of its own, and return what it returns.

    Raises:
        KeyboardInterrupt: If it was cancelled; only a person does that.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(work)
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error


@asynccontextmanager
async def open_sagas(
    terminal: Terminal,
    data: Path,
    *,
    shards: int | None = None,
    services: Mapping[str, Any] | None = None,
    participants: Mapping[str, str] | None = None,
    traces: bool = False,
) -> AsyncIterator[Sagas]:
    """Give the client of the engine of `data`; print no data inside.

    What Ray prints in this process goes to standard error: programs read the other.

    Raises:
        DataFolderError: If the folder cannot be used.
        EngineUnavailableError: If Ray or the engine does not start.
        ParticipantNotFoundError: If a participant cannot be made where the engine runs.
        ParticipantNotServedError: If an engine runs already, without one of `participants`.
    """
    # Imported here: it brings Ray, and half a second, with it.
    from raysaga.api.client import connect

    connection = connect(
        data, shards=shards, services=services, participants=participants, traces=traces
    )
    waiting = terminal.err.status("starting the engine") if terminal.is_watched else nullcontext()
    with redirect_stdout(sys.stderr):
        with waiting:
            try:
                sagas = await connection.__aenter__()
            except (ConnectionError, TimeoutError, RuntimeError) as error:
                # Ray's own; a second try can succeed.
                raise EngineUnavailableError(f"Ray does not start: {error}") from error
        spare_collections()
        try:
            for sentence in await served_otherwise(sagas.gateway.engine, participants or {}):
                terminal.note(f"warning: {sentence}")
            yield sagas
        finally:
            await connection.__aexit__(None, None, None)
