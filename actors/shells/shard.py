"""The Ray actor that houses one shard: many sagas, one journal, one epoch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from raysaga.actors.actor_names import shard_actor
from raysaga.actors.desk import Desk
from raysaga.actors.local_wire import LocalDoor
from raysaga.actors.metric_rows import shard_metrics
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.shard_stats import shard_stats
from raysaga.actors.shells.housing import Wires, begin_process, host_on, open_shard_journal
from raysaga.actors.shells.launcher import RayLauncher
from raysaga.actors.shells.ownership import take_ownership
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import CommitThread
from raysaga.actors.shells.ray_metrics import RayMetrics
from raysaga.actors.shells.wires import open_door, this_node


class ShardShell:
    """A `SagaHost` with the sagas of one shard, behind one method that carries batches."""

    def __init__(self, plan: Mapping[str, Any], shard: int) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._shard = shard
        self._desk: Desk | None = None
        self._door: LocalDoor | None = None
        # A task, so that Ray can restart the actor without anybody calling it first.
        self._ready = asyncio.get_running_loop().create_task(self._start())
        # Whoever pings hears the error; the supervisor then starts the process anew.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _start(self) -> None:
        plan = self._plan
        folder = begin_process(plan, f"shard-{self._shard}", shard=self._shard)
        await take_ownership(folder.journal_path(self._shard))
        journal = open_shard_journal(plan, folder, self._shard)
        self._run_blocking = CommitThread("commit", journal.environment)
        scope = shard_scope(journal.identity.uuid, self._shard)
        self._host = host_on(plan, journal, scope, self._run_blocking, Wires(plan))
        launcher = RayLauncher(plan, self._shard, lambda saga_id: desk.look_again(saga_id))
        desk = Desk(self._host, launcher=launcher, stats=self.stats)
        self._reconciler = Reconciler(
            self._host,
            clock=self._host.clock,
            run_blocking=self._run_blocking,
            launcher=launcher,
            watch=desk.adopted,
        )
        await self._host.start()
        await self._reconciler.start()
        self._desk, self._launcher = desk, launcher
        self._metrics = RayMetrics(
            lambda: shard_metrics([self.stats()]), plan.settings.ray_metrics_ms
        )
        self._metrics.start()
        self._door = await open_door(
            shard_actor(plan.engine, self._shard), plan.settings, desk.landing.exchange
        )

    async def exchange(self, batch: bytes) -> bytes:
        """Take a batch of a caller's requests, and return what there is to say to it."""
        if self._desk is None:
            await asyncio.shield(self._ready)
            assert self._desk is not None
        return await self._desk.landing.exchange(batch)

    async def door(self) -> tuple[str, str | None]:
        """Return this node, and the path of the socket that is listened to on it, if any."""
        await asyncio.shield(self._ready)
        return this_node(), None if self._door is None else str(self._door.path)

    async def ping(self) -> dict[str, Any]:
        """Return who this is, once it is ready to serve."""
        await asyncio.shield(self._ready)
        return {"pid": os.getpid(), "epoch": self._host.epoch}

    def stats(self) -> dict[str, Any]:
        """Return what a bench and an operator want to know, as plain numbers."""
        assert self._desk is not None
        return shard_stats(self._shard, self._host, self._desk, self._reconciler)

    async def stop(self) -> None:
        """Flush what is decided and let go of the journal."""
        await asyncio.shield(self._ready)
        if self._door is not None:
            self._door.close()
        self._metrics.stop()
        await self._reconciler.stop()
        self._launcher.close()
        await self._host.stop()
        self._run_blocking.close()
        self._host.journal.close()
