"""Opens an engine to be measured, knows its processes, and judges its folder at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysaga.actors.collector import spare_collections
from raysaga.actors.settings import EngineSettings
from raysaga.api.client import Sagas, connect
from raysaga.bench.meter import Meter
from raysaga.bench.toy_services import COUNTING, GATED
from raysaga.statemachines.definition import SagaDefinition

SERVICES = ("inventory", "payment", "shipping", "notification")

PLENTY = {"items": {}, "default": 10**9}
"""Stock that is enough for every order."""

COUNTING_PARTICIPANTS = dict.fromkeys(
    (COUNTING, GATED), "raysaga.bench.toy_services:serve_counting"
)
"""Participants of workloads that are not about orders."""

REST_POLL_S = 0.05
"""Pause between two looks whether all sagas have ended."""


def calm_services(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of the four services without faults or delays, but for `changes`.

    Letters are kept in the notification service's ledger and not in a maildir, so that
    each service makes the same durable: its ledger.
    """
    services: dict[str, dict[str, Any]] = {name: {} for name in SERVICES}
    services["inventory"]["stock"] = PLENTY
    for name, fields in changes.items():
        services[name].update(fields)
    return services


def engine_settings(given: Mapping[str, Any] | None = None) -> EngineSettings:
    """Return the settings of an engine to be measured: the defaults, but that it logs less."""
    return EngineSettings.model_validate({"log_level": "warning", **(given or {})})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """An engine that runs.

    Attributes:
        sagas: Its client.
        folder: Its data folder.
        meter: Its processes.
    """

    sagas: Sagas
    folder: Path
    meter: Meter

    async def service_stats(self) -> dict[str, dict[str, Any]]:
        """Return the counts of each participant's server."""
        return await self.sagas.gateway.engine.participant_stats()

    async def drive(self, definition: SagaDefinition, key: str, request: Mapping[str, Any]) -> str:
        """Submit one saga and return how it ended."""
        handle = await self.sagas.submit(definition, request, key=key)
        return (await handle.result()).status

    async def rest(self) -> None:
        """Return when no saga is under way, and everything is on disk."""
        while True:
            shards = await self.sagas.stats()
            if not any(shard["in_memory"] or shard["queued"] for shard in shards):
                return
            await asyncio.sleep(REST_POLL_S)


@asynccontextmanager
async def open_bed(
    folder: Path,
    *,
    services: Mapping[str, Any],
    participants: Mapping[str, str] | None = None,
    shards: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Bed]:
    """Start an engine on a new folder; stop it at the end; print no data inside.

    What Ray prints in this process goes to standard error: programs read the other.
    """
    connection = connect(
        folder,
        shards=shards,
        settings=engine_settings(settings),
        services=services,
        participants=participants,
    )
    with redirect_stdout(sys.stderr):
        async with connection as sagas:
            pids = await sagas.gateway.engine.pids()
            names = {pid: actor.split("/", 1)[1] for actor, pid in pids.items()}
            names = {pid: name.removeprefix("participant/") for pid, name in names.items()}
            spare_collections()
            yield Bed(sagas=sagas, folder=folder, meter=Meter(names))
