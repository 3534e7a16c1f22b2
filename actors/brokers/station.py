"""Everything that one participant outside Ray needs, put together: folder, ledger, server, runner.

Guarantees: one process at a time serves from one ledger; another that is started beside it
stands by, and goes on when the first is gone, however it went.
Refuses: to go on once the ledger has failed or somebody else has taken it over; nobody
is answered any more, and the process must end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.runner import PREFETCH, Mark, ParticipantRunner
from raysaga.actors.brokers.wire import queue_of
from raysaga.actors.clock import SystemClock
from raysaga.actors.participant import Participant
from raysaga.actors.participant_server import ParticipantLimits, ParticipantServer, open_ledger
from raysaga.actors.shells.process import exit_fatally
from raysaga.storage.data_folder import DataFolder, EngineLock, record_owner
from raysaga.storage.errors import DataFolderError, StorageFullError

STAND_BY_POLL_S = 0.2
"""How often a runner that stands by looks whether the one before it is gone."""

PRUNE_EVERY_S = 60.0
"""Pause between two prunings of the ledger."""

RETENTION_MS = 7 * 24 * 3_600_000
"""How long released rows are kept; as long as an engine keeps its sagas by default."""


async def lock_or_stand_by(lock: Callable[[], EngineLock], **who: str) -> EngineLock:
    """Return what `lock` gives, once nobody else has it; `who` wants it, for the log.

    Raises:
        DataFolderError: If the folder cannot be used.
    """
    told = False
    while True:
        try:
            return lock()
        except DataFolderError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            if not told:
                structlog.get_logger().info("standing_by", reason=str(error), **who)
                told = True
        await asyncio.sleep(STAND_BY_POLL_S)


@asynccontextmanager
async def open_station(
    participant: Participant,
    *,
    data: Path,
    address: BrokerAddress,
    on_fatal: Callable[[BaseException], None] = exit_fatally,
    limits: ParticipantLimits | None = None,
    prefetch: int = PREFETCH,
    mark: Mark | None = None,
) -> AsyncIterator[ParticipantRunner]:
    """Give a runner that takes calls, and let go of everything in good order afterwards.

    Args:
        participant: What to run.
        data: The data folder that its ledger is in; made if missing.
        address: The broker, and the queue if it is not the usual one.
        on_fatal: Told why this process must stop without answering anybody.
        limits: Bounds.
        prefetch: Calls taken and not answered at one time.
        mark: Marks each call in a trace; None for none.

    Raises:
        DataFolderError: If the folder cannot be used.
        BrokerAddressError: If the client library for the broker is not installed.
    """
    broker = open_broker(address)
    folder = DataFolder.open(data, shard_count=None, create=True)
    name = participant.name
    lock = await lock_or_stand_by(lambda: folder.lock_for_service(name), participant=name)
    try:
        path = folder.service_path(participant.name)
        record_owner(path)
        clock = SystemClock()
        ledger = open_ledger(participant, path, clock=clock)
        try:
            participant.prepare(ledger)
            server = ParticipantServer(
                participant=participant,
                ledger=ledger,
                behaviour=participant.behaviour,
                clock=clock,
                limits=limits,
                log=structlog.get_logger(),
                on_fatal=on_fatal,
            )
            await server.start()
            queue = queue_of(address, participant.name)
            runner = ParticipantRunner(server, broker, queue, prefetch=prefetch, mark=mark)
            runner.start()
            pruning = asyncio.get_running_loop().create_task(_prune_for_ever(server))
            try:
                yield runner
            finally:
                pruning.cancel()
                await runner.stop()
                await server.stop()
        finally:
            ledger.close()
    finally:
        lock.close()


async def _prune_for_ever(server: ParticipantServer) -> None:
    while True:
        await asyncio.sleep(PRUNE_EVERY_S)
        try:
            await server.prune(RETENTION_MS)
            await server.prune_effects(RETENTION_MS)
        except StorageFullError as full:
            structlog.get_logger().warning("not_pruned", code=full.code)
