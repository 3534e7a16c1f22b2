"""The Ray actor in which dedicated sagas run: one at a time, in a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from raysaga.actors.desk import ORDERS
from raysaga.actors.errors import SagaNotFoundError
from raysaga.actors.host import SagaHost
from raysaga.actors.placement import saga_scope
from raysaga.actors.running import Running
from raysaga.actors.shells.housing import Wires, begin_process, host_on, open_shard_journal
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import CommitThread
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import PARKED


class SagaShell:
    """A `SagaHost` with one saga, under a scope of its own; after it, another with the next.

    It writes to its shard's journal, as a second process. A saga that is parked
    needs no actor; an operator's order brings it back to one.
    """

    def __init__(self, plan: Mapping[str, Any], shard: int) -> None:
        self._plan = EnginePlan.model_validate(plan)
        folder = begin_process(self._plan, f"dedicated-{shard}", shard=shard)
        self._journal = open_shard_journal(self._plan, folder, shard)
        self._commit = CommitThread("commit", self._journal.environment)
        self._wires = Wires(self._plan)
        self._stay: _Stay | None = None

    async def run(self, saga_id: str) -> int:
        """Take a saga up; once it is over or parked, and that is on disk, return the process id."""
        stay = self._seat(SagaId(saga_id))
        running = await asyncio.shield(stay.ready)
        if running is not None and not running.saga.is_parked:
            await stay.over.wait()
        if self._stay is stay:
            # Two incarnations of a shard may have waited for it.
            self._stay = None
            await stay.host.stop()
        return os.getpid()

    async def order(self, saga_id: str, operation: str, by: str, note: str) -> str:
        """Give a saga an order; return the `Answer` to it."""
        stay = self._seat(SagaId(saga_id))
        running = await asyncio.shield(stay.ready)
        if running is None:
            return Answer.NOT_PARKED
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if running.saga.is_parked:
            # It may go on; one that is over stays so, whoever comes to wait for its end.
            stay.over.clear()
        stay.host.give(running, ORDERS[operation](by, note), answer.set_result)
        return await answer

    async def ping(self) -> dict[str, Any]:
        """Return who this is, and which saga it has, once it has taken that up."""
        stay = self._stay
        if stay is not None:
            await asyncio.shield(stay.ready)
        return {"pid": os.getpid(), "saga_id": "" if stay is None else stay.saga_id}

    def _seat(self, saga_id: SagaId) -> _Stay:
        """Return the stay of a saga, begun now unless it is here."""
        if self._stay is None:
            scope = saga_scope(self._journal.identity.uuid, saga_id)
            host = host_on(self._plan, self._journal, scope, self._commit, self._wires)
            self._stay = _Stay(saga_id, host)
        assert self._stay.saga_id == saga_id, f"{self._stay.saga_id} sits here"
        return self._stay


class _Stay:
    """One saga's time in the seat.

    Attributes:
        saga_id: The saga.
        host: Its host.
        over: Set when it is over or parked.
        ready: Gives it once it was taken up; None if it cannot be read, and is parked for that.
    """

    def __init__(self, saga_id: SagaId, host: SagaHost) -> None:
        self.saga_id = saga_id
        self.host = host
        self.over = asyncio.Event()
        self.ready = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> Running | None:
        host = self.host
        head = host.journal.head(self.saga_id)
        if head is None:
            raise SagaNotFoundError(self.saga_id)
        await host.start()
        # A first owner knows that nobody has sent anything before it.
        running = host.activate(head, taken_over=host.epoch > 1)
        if running is None:
            return None
        host.ended = self._ended
        if head.phase not in PARKED or host.journal.restored_at_ms() is not None:
            if host.epoch > 1:
                host.restart(running)
            else:
                host.begin(running)
        return running

    def _ended(self, _saga: Saga) -> None:
        self.over.set()
