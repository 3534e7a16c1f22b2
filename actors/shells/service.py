"""The Ray actor that is one participant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from raysaga.actors.actor_names import participant_actor
from raysaga.actors.clock import SystemClock
from raysaga.actors.lane import Landing
from raysaga.actors.local_wire import LocalDoor
from raysaga.actors.metric_rows import participant_metrics
from raysaga.actors.participant_maker import make_participant
from raysaga.actors.participant_server import (
    ParticipantLimits,
    ParticipantServer,
    open_ledger,
)
from raysaga.actors.shells.housing import begin_process
from raysaga.actors.shells.ownership import take_ownership
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import exit_fatally
from raysaga.actors.shells.ray_metrics import RayMetrics
from raysaga.actors.shells.wires import open_door, this_node
from raysaga.statemachines.calls import StepCall
from raysaga.storage.errors import StorageFullError

PRUNE_EVERY_S = 60.0
"""Pause between two prunings of a ledger."""


class ServiceShell:
    """A `ParticipantServer` behind one method that carries batches."""

    def __init__(self, plan: Mapping[str, Any], name: str) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._name = name
        self._landing: Landing | None = None
        self._door: LocalDoor | None = None
        self._ready = asyncio.get_running_loop().create_task(self._start())
        # Whoever pings hears the error; the supervisor then starts the process anew.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _start(self) -> None:
        plan = self._plan
        folder = begin_process(plan, self._name, participant=self._name)
        path = folder.service_path(self._name)
        await take_ownership(path)
        target = plan.participants[self._name]
        participant = make_participant(target, self._name, Path(plan.folder), plan.services)
        clock = SystemClock()
        ledger = open_ledger(participant, path, clock=clock)
        participant.prepare(ledger)
        self._server = ParticipantServer(
            participant=participant,
            ledger=ledger,
            behaviour=participant.behaviour,
            clock=clock,
            limits=ParticipantLimits(),
            log=structlog.get_logger(),
            on_fatal=exit_fatally,
        )
        await self._server.start()
        self._landing = Landing(self._received, plan.settings)
        self._door = await open_door(
            participant_actor(plan.engine, self._name), plan.settings, self._landing.exchange
        )
        self._metrics = RayMetrics(
            lambda: participant_metrics({self._name: self._server.stats()}),
            plan.settings.ray_metrics_ms,
        )
        self._metrics.start()
        self._forgetting = asyncio.get_running_loop().create_task(self._forget_for_ever())

    async def _forget_for_ever(self) -> None:
        """Prune what has been released for longer than it is kept."""
        kept_ms = self._plan.settings.rows_kept_ms
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            try:
                await self._server.prune(kept_ms)
                await self._server.prune_effects(kept_ms)
            except StorageFullError as full:
                structlog.get_logger().warning("not_pruned", code=full.code)

    def _received(self, sender: str, messages: list[list[Any]]) -> None:
        landing = self._landing
        assert landing is not None
        calls = [StepCall._make(fields) for fields in messages]
        self._server.deliver(calls, lambda reply: landing.push(sender, reply))

    async def exchange(self, batch: bytes) -> bytes:
        """Take a batch of calls, and return the replies there are for its sender."""
        if self._landing is None:
            await asyncio.shield(self._ready)
            assert self._landing is not None
        return await self._landing.exchange(batch)

    async def door(self) -> tuple[str, str | None]:
        """Return this node, and the path of the socket that is listened to on it, if any."""
        await asyncio.shield(self._ready)
        return this_node(), None if self._door is None else str(self._door.path)

    async def ping(self) -> dict[str, Any]:
        """Return who this is, once it is ready to serve."""
        await asyncio.shield(self._ready)
        return {"pid": os.getpid(), "name": self._name}

    async def stats(self) -> dict[str, Any]:
        """Return the server's counts."""
        await asyncio.shield(self._ready)
        return dict(self._server.stats()) | {"pid": os.getpid()}

    async def stop(self) -> None:
        """Finish the batch under way and let go of the ledger."""
        await asyncio.shield(self._ready)
        if self._door is not None:
            self._door.close()
        self._forgetting.cancel()
        self._metrics.stop()
        await self._server.stop()
