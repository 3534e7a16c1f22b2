"""Gives dedicated sagas actors to themselves, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from ray.exceptions import RayError

from raysaga.actors.errors import (
    CancelTooLateError,
    EngineUnavailableError,
    OperatorRefusedError,
)
from raysaga.actors.shells.ownership import kill_and_wait
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.seats import Seat, Seats
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.ids import SagaId

PING_EVERY_S = 2.0
"""Pause between two looks at an actor that has not finished."""

PING_TIMEOUT_S = 10.0
"""An actor that does not answer for so long is taken for stopped, and killed."""

RELAUNCH_PAUSE_S = 0.5
"""Pause before an actor that died is started again."""


class RayLauncher:
    """One shard's launcher."""

    def __init__(self, plan: EnginePlan, shard: int, rested: Callable[[SagaId], None]) -> None:
        """Make one that has no actor yet; `rested` is told of each saga that has left its own."""
        self._rested = rested
        self._room = asyncio.Semaphore(plan.settings.dedicated_actors_max)
        self._seats = Seats(plan, shard)
        self._seated: dict[SagaId, asyncio.Task[Seat]] = {}
        self._tasks: dict[SagaId, asyncio.Task[None]] = {}
        self._log = structlog.get_logger().bind(shard=shard)

    def ensure(self, saga_id: SagaId) -> None:
        """See to it that the saga has an actor to itself, now or when there is room."""
        if saga_id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._drive(saga_id))
            self._tasks[saga_id] = task
            task.add_done_callback(lambda _done: self._tasks.pop(saga_id, None))

    async def tell(self, saga_id: SagaId, operation: str, body: Any) -> str:
        """Pass an order on to the saga's own actor, beyond the bound if need be; return its answer.

        Raises:
            EngineUnavailableError: If the actor died; the order may have been taken.
            CancelTooLateError: If the saga can no longer turn back.
            OperatorRefusedError: If the order does not fit.
        """
        try:
            seat = await self._seat(saga_id)
            answer = await seat.actor.order.remote(
                saga_id, operation, body["by"], body.get("note", "")
            )
        except RayError as error:
            if saga_id not in self._tasks:
                self._leave(saga_id)
            raise EngineUnavailableError(type(error).__name__) from error
        if answer in (Answer.ACCEPTED.value, Answer.ALREADY.value):
            self.ensure(saga_id)
            return str(answer)
        if saga_id not in self._tasks:
            self._leave(saga_id)
        if answer == Answer.CANCEL_TOO_LATE.value:
            raise CancelTooLateError(saga_id, "beyond the point of no return")
        raise OperatorRefusedError(saga_id, str(answer))

    def close(self) -> None:
        """End every actor; what is under way goes on in the next incarnation's."""
        for task in [*self._tasks.values(), *self._seated.values()]:
            task.cancel()
        self._seats.close()

    async def _seat(self, saga_id: SagaId) -> Seat:
        """Return the saga's seat, the same to all that ask at one time."""
        task = self._seated.get(saga_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._seats.take(saga_id))
            self._seated[saga_id] = task
        return await asyncio.shield(task)

    def _leave(self, saga_id: SagaId, *, is_well: bool = False) -> None:
        """Let go of the saga's seat; it is kept for another only if all went well."""
        task = self._seated.pop(saga_id, None)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return
        if is_well:
            self._seats.give_back(task.result())
        else:
            self._seats.drop(task.result())

    async def _drive(self, saga_id: SagaId) -> None:
        """Keep a saga in its actor until it is over or parked."""
        async with self._room:
            is_well = False
            try:
                await self._wait_for(saga_id, await self._seat(saga_id))
                is_well = True
                self._rested(saga_id)
            except RayError as error:
                # The journal still has it as running, so the next sweep asks for it again.
                self._log.warning("saga_actor_lost", saga_id=saga_id, kind=type(error).__name__)
                await asyncio.sleep(RELAUNCH_PAUSE_S)
            finally:
                self._leave(saga_id, is_well=is_well)

    async def _wait_for(self, saga_id: SagaId, seat: Seat) -> None:
        run = asyncio.ensure_future(_result(seat.actor.run.remote(saga_id)))
        while True:
            done, _ = await asyncio.wait({run}, timeout=PING_EVERY_S)
            if done:
                seat.pid = run.result()
                return
            try:
                pong = await asyncio.wait_for(_result(seat.actor.ping.remote()), PING_TIMEOUT_S)
                seat.pid = pong["pid"]
            except TimeoutError:
                self._log.warning("saga_actor_hangs", saga_id=saga_id, pid=seat.pid)
                # Until it has answered once, it may still be starting.
                if seat.pid is not None:
                    await kill_and_wait(seat.pid)


async def _result(ref: Any) -> Any:
    return await ref
