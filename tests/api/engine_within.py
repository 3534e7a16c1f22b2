"""A whole engine in this process: the real host, desk, services and gateway, without Ray."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.clock import SystemClock
from raysaga.actors.desk import Desk
from raysaga.actors.gateway import Gateway
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Landing
from raysaga.actors.participant_server import ParticipantServer, open_ledger
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.services.catalogue import SERVICE_NAMES, build_participant
from raysaga.actors.services.settings import ServicesSettings
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shard_stats import shard_stats
from raysaga.actors.shells.process import CommitThread
from raysaga.api.client import Sagas
from raysaga.statemachines.calls import StepCall
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.ledger import LedgerSettings

STOCK: Mapping[str, Any] = {"items": {"milk": 1_000, "rare": 3}, "default": None}
"""Items that are not named are unknown."""


class Within:
    """An engine with one shard, as far as a test is concerned.

    Attributes:
        sagas: Its client.
        archive: Its data folder, sharing the open journal.
    """

    def __init__(self, path: Path, settings: EngineSettings, services: ServicesSettings) -> None:
        self.folder = DataFolder.open(path, shard_count=1, create=True)
        self.plan = SimpleNamespace(shard_count=1, settings=settings)
        self._services = services
        self._landings: dict[str, Landing] = {}
        self._servers: list[ParticipantServer] = []
        self.journal = self.folder.open_journal(0, reserve_ratio=0.0)
        self._commit = CommitThread("commit", self.journal.environment)
        self.archive = Archive(self.folder, {0: self.journal})
        clock = SystemClock()
        self.host = SagaHost(
            journal=self.journal,
            scope=shard_scope(self.folder.uuid, 0),
            owner="test",
            connect=lambda name: self._landings[name].exchange,
            clock=clock,
            settings=settings,
            chance=random.Random(1),
            run_blocking=self._commit.commit,
            fatal=self._stopped,
        )
        self.desk = Desk(
            self.host,
            launcher=None,
            stats=lambda: shard_stats(0, self.host, self.desk, self.reconciler),
        )
        self.reconciler = Reconciler(
            self.host,
            clock=clock,
            run_blocking=self._commit,
            launcher=None,
            watch=self.desk.adopted,
        )
        self.gateway = Gateway(self)  # type: ignore[arg-type]
        self.sagas = Sagas(self.gateway)

    def wire(self, _shard: int) -> Callable[[bytes], Awaitable[bytes]]:
        """Return the way to the one shard."""
        return self.desk.landing.exchange

    def server(self, name: str) -> ParticipantServer:
        """Return the server of a participant."""
        return next(one for one in self._servers if one.participant.name == name)

    async def participant_stats(self) -> dict[str, dict[str, Any]]:
        """Return the counts of each participant, by its name."""
        return {server.participant.name: dict(server.stats()) for server in self._servers}

    async def start(self) -> None:
        """Start the services, then the host."""
        for name in SERVICE_NAMES:
            await self._serve(name)
        await self.host.start()
        await self.reconciler.start()

    async def _serve(self, name: str) -> None:
        service = build_participant(name, self._services, data_folder=self.folder.path)
        clock = SystemClock()
        ledger = open_ledger(
            service,
            self.folder.service_path(name),
            clock=clock,
            settings=LedgerSettings(reserve_bytes=0),
        )
        service.prepare(ledger)
        server = ParticipantServer(
            participant=service,
            ledger=ledger,
            clock=clock,
            on_fatal=self._stopped,
            behaviour=service.behaviour,
        )
        await server.start()
        self._servers.append(server)

        def received(sender: str, messages: list[list[Any]]) -> None:
            calls = [StepCall._make(fields) for fields in messages]
            server.deliver(calls, lambda reply: self._landings[name].push(sender, reply))

        self._landings[name] = Landing(received, self.plan.settings)

    async def close(self) -> None:
        """Nothing: the engine is stopped by the test."""

    async def stop(self) -> None:
        """Flush what is decided, and let go of every file."""
        await self.gateway.close()
        await self.reconciler.stop()
        await self.host.stop()
        for server in self._servers:
            await server.stop()
            server.ledger.close()
        self._commit.close()
        self.journal.close()

    def _stopped(self, error: BaseException) -> None:
        raise AssertionError(f"the engine stopped by itself: {error}")


@asynccontextmanager
async def engine_within(
    path: Path,
    *,
    services: ServicesSettings | None = None,
    **bounds: Any,
) -> AsyncIterator[Within]:
    """Give an engine on the data folder `path`; it is stopped in good order at the end."""
    settings = EngineSettings(**{"exchange_hold_ms": 100, "lazy_flush_ms": 10, **bounds})
    chosen = services or ServicesSettings.calm(inventory={"stock": STOCK})
    engine = Within(path, settings, chosen)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
