"""The Ray actor that houses one shard: many sagas, one journal, one epoch."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
from typing import Any

from raysaga.actors.clock import SystemClock
from raysaga.actors.desk import Desk
from raysaga.actors.host import SagaHost
from raysaga.actors.log import configure_log
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.shells.launcher import RayLauncher
from raysaga.actors.shells.ownership import take_ownership
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import (
    CommitThread,
    exit_fatally,
    owner_name,
    prepare_process,
)
from raysaga.actors.shells.wires import ActorWire, participant_actor
from raysaga.storage.data_folder import DataFolder


class ShardShell:
    """A `SagaHost` with the sagas of one shard, behind one method that carries batches."""

    def __init__(self, plan: Mapping[str, Any], shard: int) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._shard = shard
        self._desk: Desk | None = None
        # A task, so that Ray can restart the actor without anybody calling it first.
        self._ready = asyncio.get_running_loop().create_task(self._start())
        # Whoever pings hears the error; the supervisor then starts the process anew.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _start(self) -> None:
        plan = self._plan
        prepare_process()
        folder = DataFolder.open(plan.folder, shard_count=plan.shard_count, create=False)
        configure_log(
            folder.log_path / f"shard-{self._shard}.jsonl",
            plan.settings.log_level,
            shard=self._shard,
            pid=os.getpid(),
        )
        await take_ownership(folder.journal_path(self._shard))
        journal = folder.open_journal(
            self._shard,
            map_bytes_first=plan.settings.map_bytes_first,
            map_bytes_max=plan.settings.map_bytes_max,
            reserve_ratio=plan.settings.reserve_ratio,
        )
        self._run_blocking = CommitThread("commit")
        clock = SystemClock()
        self._host = SagaHost(
            journal=journal,
            scope=shard_scope(journal.identity.uuid, self._shard),
            owner=owner_name(),
            connect=lambda name: ActorWire(participant_actor(plan.engine, name), plan.namespace),
            clock=clock,
            settings=plan.settings,
            chance=random.Random(),
            run_blocking=self._run_blocking,
            fatal=exit_fatally,
        )
        launcher = RayLauncher(plan, self._shard)
        desk = Desk(self._host, launcher=launcher, stats=self.stats)
        self._reconciler = Reconciler(
            self._host,
            clock=clock,
            run_blocking=self._run_blocking,
            launcher=launcher,
            watch=desk.adopted,
        )
        await self._host.start()
        await self._reconciler.start()
        self._desk = desk

    async def exchange(self, batch: bytes) -> bytes:
        """Take a batch of a caller's requests, and return what there is to say to it."""
        if self._desk is None:
            await asyncio.shield(self._ready)
            assert self._desk is not None
        return await self._desk.landing.exchange(batch)

    async def ping(self) -> dict[str, Any]:
        """Return who this is, once it is ready to serve."""
        await asyncio.shield(self._ready)
        return {"pid": os.getpid(), "epoch": self._host.epoch}

    def stats(self) -> dict[str, Any]:
        """Return what a bench and an operator want to know, as plain numbers."""
        host = self._host
        assert host.committer is not None
        assert self._desk is not None
        usage = host.journal.usage()
        return {
            "shard": self._shard,
            "pid": os.getpid(),
            "epoch": host.epoch,
            "in_memory": len(host.sagas),
            "accepted": self._desk.accepted_count,
            "rejected": self._desk.rejected_count,
            "finished": host.finished_count,
            "recovered": self._reconciler.recovered_count,
            "commits": host.committer.commit_count,
            "entries": host.committer.entry_count,
            "map_used": usage.used,
            "map_cap": usage.cap,
            "phases": {phase.value: n for phase, n in host.journal.counts().items()},
            "participants": {
                name: {
                    "exchanges": d.exchange_count,
                    "sent": d.sent_count,
                    "timeouts": d.timeout_count,
                    "in_flight": d.in_flight_count,
                    "queued": d.queued_count,
                    "circuit": d.breaker.state.value,
                }
                for name, d in host.dispatchers.items()
            },
        }

    async def stop(self) -> None:
        """Flush what is decided and let go of the journal."""
        await asyncio.shield(self._ready)
        await self._reconciler.stop()
        await self._host.stop()
        self._run_blocking.close()
        self._host.journal.close()
