"""Starts the actors of dedicated sagas, a bounded number at a time, and clears them away."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
import structlog
from ray.exceptions import RayError

from raysaga.actors.actor_names import saga_actor
from raysaga.actors.errors import (
    CancelTooLateError,
    EngineUnavailableError,
    OperatorRefusedError,
)
from raysaga.actors.shells.ownership import kill_and_wait
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.saga import SagaShell
from raysaga.actors.shells.wires import named_actor
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

    def __init__(self, plan: EnginePlan, shard: int) -> None:
        self._plan = plan
        self._room = asyncio.Semaphore(plan.settings.dedicated_actors_max)
        self._tasks: dict[SagaId, asyncio.Task[None]] = {}
        self._log = structlog.get_logger().bind(shard=shard)

    def ensure(self, saga_id: SagaId) -> None:
        """See to it that the saga's own actor runs, now or when there is room."""
        if saga_id not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._drive(saga_id))
            self._tasks[saga_id] = task
            task.add_done_callback(lambda _done: self._tasks.pop(saga_id, None))

    async def tell(self, saga_id: SagaId, operation: str, body: Any) -> str:
        """Pass an order on to the saga's own actor; return its answer.

        Raises:
            EngineUnavailableError: If the actor died; the order may have been taken.
            CancelTooLateError: If the saga can no longer turn back.
            OperatorRefusedError: If the order does not fit.
        """
        try:
            actor = await self._actor(saga_id)
            answer = await actor.order.remote(operation, body["by"], body.get("note", ""))
        except RayError as error:
            raise EngineUnavailableError(type(error).__name__) from error
        if answer in (Answer.ACCEPTED.value, Answer.ALREADY.value):
            self.ensure(saga_id)
            return str(answer)
        if saga_id not in self._tasks:
            ray.kill(actor)
        if answer == Answer.CANCEL_TOO_LATE.value:
            raise CancelTooLateError(saga_id, "beyond the point of no return")
        raise OperatorRefusedError(saga_id, str(answer))

    async def _actor(self, saga_id: SagaId) -> Any:
        # Ray's head has a say in it, and may be out of reach; the shard must go on meanwhile.
        return await asyncio.to_thread(
            named_actor,
            SagaShell,
            saga_actor(self._plan.engine, saga_id),
            self._plan.namespace,
            restarts=0,
            arguments=(self._plan.model_dump(mode="json"), saga_id),
        )

    async def _drive(self, saga_id: SagaId) -> None:
        """Keep one actor until its saga is over or parked."""
        async with self._room:
            actor = await self._actor(saga_id)
            try:
                await self._wait_for(saga_id, actor)
            except RayError as error:
                # The journal still has it as running, so the next sweep asks for it again.
                self._log.warning("saga_actor_lost", saga_id=saga_id, kind=type(error).__name__)
                await asyncio.sleep(RELAUNCH_PAUSE_S)
            finally:
                ray.kill(actor)

    async def _wait_for(self, saga_id: SagaId, actor: Any) -> None:
        run = asyncio.ensure_future(_result(actor.run.remote()))
        pid: int | None = None
        while True:
            done, _ = await asyncio.wait({run}, timeout=PING_EVERY_S)
            if done:
                run.result()
                return
            try:
                pong = await asyncio.wait_for(_result(actor.ping.remote()), PING_TIMEOUT_S)
                pid = pong["pid"]
            except TimeoutError:
                self._log.warning("saga_actor_hangs", saga_id=saga_id, pid=pid)
                if pid is not None:
                    await kill_and_wait(pid)


async def _result(ref: Any) -> Any:
    return await ref
