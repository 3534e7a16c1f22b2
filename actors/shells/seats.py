"""The processes in which one shard's dedicated sagas run: one saga at a time, and warm between.

To start a process takes Ray some hundred milliseconds of a core; a saga in a process that is
there costs a call. So a seat that is left is kept for a while.

Guarantees: a saga that sits in a seat of an earlier incarnation of the shard is found there.
Refuses: nothing; how many sagas run at a time is up to the launcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any

import ray
import structlog
from ray.exceptions import RayError

from raysaga.actors.actor_names import seat_actor, seats_of
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.saga import SagaShell
from raysaga.actors.shells.wires import named_actor
from raysaga.statemachines.ids import SagaId

LOOK_TIMEOUT_S = 10.0
"""A seat of an earlier incarnation that does not say for so long who sits in it is killed."""

TIMER_GRAIN_S = 0.01
"""By which a timer may ring early; uvloop counts whole milliseconds."""


class Seat:
    """An actor for one saga at a time.

    Attributes:
        actor: Its handle.
        pid: Its process, once it has answered; None while it may still be starting.
    """

    __slots__ = ("actor", "pid")

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.pid: int | None = None


class Seats:
    """The seats of one shard."""

    def __init__(self, plan: EnginePlan, shard: int) -> None:
        self._plan = plan
        self._shard = shard
        self._free: list[tuple[Seat, float]] = []
        self._all: list[Seat] = []
        self._found: dict[SagaId, Seat] | None = None
        self._looking = asyncio.Lock()
        self._seen_off: set[asyncio.Task[None]] = set()
        self._idle_s = plan.settings.dedicated_idle_ms / 1_000
        self._log = structlog.get_logger().bind(shard=shard)

    async def take(self, saga_id: SagaId) -> Seat:
        """Return the seat in which the saga sits, or a free one for it; a new one at need.

        Raises:
            RayError: If Ray can tell or make none.
        """
        async with self._looking:
            if self._found is None:
                self._found = await self._look()
        seat = self._found.pop(saga_id, None)
        if seat is None and self._free:
            seat, _ = self._free.pop()
        if seat is None:
            # Ray's head has a say in it, and may be out of reach; the shard must go on meanwhile.
            actor = await asyncio.to_thread(
                named_actor,
                SagaShell,
                seat_actor(self._plan.engine, self._shard, secrets.token_hex(4)),
                self._plan.namespace,
                restarts=0,
                arguments=(self._plan.model_dump(mode="json"), self._shard),
            )
            seat = Seat(actor)
            self._all.append(seat)
        return seat

    def give_back(self, seat: Seat) -> None:
        """Keep a seat that its saga has left, for the next one, or for a while."""
        if not self._idle_s or len(self._free) >= self._plan.settings.dedicated_actors_max:
            self.drop(seat)
            return
        loop = asyncio.get_running_loop()
        self._free.append((seat, loop.time()))
        loop.call_later(self._idle_s, self._end_the_idle)

    def drop(self, seat: Seat) -> None:
        """End the process of a seat, whoever sits in it."""
        self._all = [other for other in self._all if other is not seat]
        ray.kill(seat.actor)

    def close(self) -> None:
        """End them all."""
        for task in self._seen_off:
            task.cancel()
        self._free.clear()
        for seat in self._all:
            self.drop(seat)

    def _end_the_idle(self) -> None:
        # The first was given back first; a timer may ring a little early.
        now = asyncio.get_running_loop().time() + TIMER_GRAIN_S
        while self._free and self._free[0][1] + self._idle_s <= now:
            seat, _ = self._free.pop(0)
            self.drop(seat)

    async def _look(self) -> dict[SagaId, Seat]:
        """Find the seats that an earlier incarnation has left, and who sits in them."""
        namespace, mine = self._plan.namespace, seats_of(self._plan.engine, self._shard)
        listed = await asyncio.to_thread(ray.util.list_named_actors, True)
        names = [one["name"] for one in listed if one["namespace"] == namespace]
        found: dict[SagaId, Seat] = {}
        for name in names:
            if not name.startswith(mine):
                continue
            try:
                seat = Seat(await asyncio.to_thread(ray.get_actor, name, namespace))
            except ValueError:
                continue  # It has ended just now.
            self._all.append(seat)
            try:
                pong = await asyncio.wait_for(_result(seat.actor.ping.remote()), LOOK_TIMEOUT_S)
            except (RayError, TimeoutError) as error:
                self._log.warning("seat_lost", seat=name, kind=type(error).__name__)
                self.drop(seat)
                continue
            seat.pid = pong["pid"]
            if pong["saga_id"]:
                found[SagaId(pong["saga_id"])] = seat
            else:
                self.give_back(seat)
        for saga_id, seat in found.items():
            task = asyncio.get_running_loop().create_task(self._see_off(saga_id, seat))
            self._seen_off.add(task)
            task.add_done_callback(self._seen_off.discard)
        return found

    async def _see_off(self, saga_id: SagaId, seat: Seat) -> None:
        """Get a seat back whose saga has ended while there was nobody to hear of it."""
        with contextlib.suppress(RayError):
            await _result(seat.actor.run.remote(saga_id))
        if self._found is not None and self._found.pop(saga_id, None) is seat:
            self.drop(seat)


async def _result(ref: Any) -> Any:
    return await ref
