"""The Ray actor of one dedicated saga: made for it, and gone after it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from raysaga.actors.desk import ORDERS
from raysaga.actors.errors import SagaNotFoundError
from raysaga.actors.placement import saga_scope, shard_of
from raysaga.actors.running import Running
from raysaga.actors.shells.housing import begin_process, host_on, open_shard_journal
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import CommitThread
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import PARKED


class SagaShell:
    """A `SagaHost` with one saga, in a process of its own, under a scope of its own.

    It writes to its shard's journal, as a second process. A saga that is parked
    needs no actor; an operator's order brings one back.
    """

    def __init__(self, plan: Mapping[str, Any], saga_id: str) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._saga_id = SagaId(saga_id)
        self._over = asyncio.Event()
        self._ready = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> Running | None:
        plan = self._plan
        shard = shard_of(self._saga_id, plan.shard_count)
        folder = begin_process(plan, f"dedicated-{shard}", shard=shard)
        journal = open_shard_journal(plan, folder, shard)
        scope = saga_scope(journal.identity.uuid, self._saga_id)
        self._host = host = host_on(plan, journal, scope, CommitThread("commit"))
        head = journal.head(self._saga_id)
        if head is None:
            raise SagaNotFoundError(self._saga_id)
        await host.start()
        # A first owner knows that nobody has sent anything before it.
        running = host.activate(head, taken_over=host.epoch > 1)
        if running is None:
            return None
        host.ended = self._ended
        if head.phase not in PARKED or journal.restored_at_ms() is not None:
            if host.epoch > 1:
                host.restart(running)
            else:
                host.begin(running)
        return running

    def _ended(self, _saga: Saga) -> None:
        self._over.set()

    async def run(self) -> None:
        """Return when the saga is over or parked, and that is on disk."""
        running = await asyncio.shield(self._ready)
        if running is not None and not running.saga.is_parked:
            await self._over.wait()
        await self._host.stop()

    async def order(self, operation: str, by: str, note: str) -> str:
        """Give the saga an order; return the `Answer` to it."""
        running = await asyncio.shield(self._ready)
        if running is None:
            return Answer.NOT_PARKED
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._over.clear()
        self._host.give(running, ORDERS[operation](by, note), answer.set_result)
        return await answer

    async def ping(self) -> dict[str, Any]:
        """Return who this is, once it has taken the saga up."""
        await asyncio.shield(self._ready)
        return {"pid": os.getpid(), "epoch": self._host.epoch}
