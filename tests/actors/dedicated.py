"""Hosts of one saga each, started on demand: what the launcher does with Ray actors."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from raysaga.actors.desk import ORDERS
from raysaga.actors.errors import CancelTooLateError, OperatorRefusedError
from raysaga.actors.host import SagaHost
from raysaga.actors.placement import saga_scope
from raysaga.actors.running import Running
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED

from .engine import Disk
from .virtual_time import Life, until
from .world import calls_of

if TYPE_CHECKING:
    from .world import World


class DedicatedHosts:
    """A launcher in the world's event loop.

    Attributes:
        lives: The newest life of each saga's own host.
        starts: How many there were.
        wait_s: How long a host takes to start.
        moments: What has happened to these hosts that a crash could come between, in order.
        crash_at: Index in `moments` at which the host it happens to dies; None for never.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._running: dict[SagaId, Running | None] = {}
        self._hosts: dict[SagaId, SagaHost] = {}
        self.lives: dict[SagaId, Life] = {}
        self.starts: dict[SagaId, int] = {}
        self.wait_s = 0.05
        self.moments: list[str] = []
        self.crash_at: int | None = None

    def ensure(self, saga_id: SagaId) -> None:
        life = self.lives.get(saga_id)
        if life is None or life.is_over:
            self._start(saga_id)

    async def tell(self, saga_id: SagaId, operation: str, body: Any) -> str:
        self.ensure(saga_id)
        await until(lambda: saga_id in self._running)
        running = self._running[saga_id]
        if running is None:
            raise OperatorRefusedError(saga_id, "not_parked")
        given = ORDERS[operation](body["by"], body.get("note", ""))
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        host, life = self._hosts[saga_id], self.lives[saga_id]
        life.run(lambda: host.give(running, given, told.set_result))
        answer = await told
        if answer in (Answer.ACCEPTED, Answer.ALREADY):
            return answer.value
        if answer is Answer.CANCEL_TOO_LATE:
            raise CancelTooLateError(saga_id, "beyond")
        raise OperatorRefusedError(saga_id, answer.value)

    def kill(self, saga_id: str) -> None:
        """Stop a saga's own host in the middle of everything."""
        self.lives[SagaId(saga_id)].end()

    def _start(self, saga_id: SagaId) -> None:
        self.starts[saga_id] = self.starts.get(saga_id, 0) + 1
        self._running.pop(saga_id, None)
        life = self.lives[saga_id] = Life(f"host of {saga_id}")
        life.task(self._drive(saga_id, life))

    async def _drive(self, saga_id: SagaId, life: Life) -> None:
        world = self._world
        await asyncio.sleep(self.wait_s)
        journal = world.journal

        async def run_blocking(call: Any) -> Any:
            await asyncio.sleep(0.0005)
            await self._pass_moment(life, "before disk")
            result = call()
            await self._pass_moment(life, "after disk")
            return result

        def stopped(error: BaseException) -> None:
            life.end()
            if not world.may_stop:
                raise AssertionError(f"the host of {saga_id} stopped: {error!r}")

        host = self._hosts[saga_id] = SagaHost(
            journal=Disk(journal),
            scope=saga_scope(journal.identity.uuid, saga_id),
            owner="dedicated",
            connect=lambda name: lambda batch: self._carry(life, name, batch),
            clock=world.clock,
            settings=world.settings,
            chance=random.Random(1),
            run_blocking=run_blocking,
            fatal=stopped,
        )
        head = journal.head(saga_id)
        assert head is not None
        await host.start()
        running = host.activate(head, taken_over=host.epoch > 1)
        self._running[saga_id] = running
        if running is None:
            return
        if head.phase not in PARKED or journal.restored_at_ms() is not None:
            if host.epoch > 1:
                host.restart(running)
            else:
                host.begin(running)

    async def _pass_moment(self, life: Life, what: str) -> None:
        """Note a moment of a host's; never return if it dies at it."""
        self.moments.append(what)
        if self.crash_at == len(self.moments) - 1:
            self.crash_at = None
            life.end()
            await asyncio.get_running_loop().create_future()

    async def _carry(self, life: Life, name: str, batch: bytes) -> bytes:
        await asyncio.sleep(0.001)
        calls = calls_of(batch)
        if calls:
            await self._pass_moment(life, f"leaves {calls}")
        answer = await self._world.services.stations[name].exchange(batch)
        if answer:
            await self._pass_moment(life, f"answer of {name}")
        return answer
