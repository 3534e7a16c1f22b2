"""Wires of a simulated world: they lose, double, delay, and can be cut in one direction.

What was lost is either told at once, as by a reset connection, or never.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from raysaga.actors.wire import unpack_messages
from raysaga.simulation.history import Sent
from raysaga.statemachines.calls import ACTION, StepCall

if TYPE_CHECKING:
    from raysaga.simulation.world import World

TRANSIT_S = 0.001
"""How long a wire takes when nothing is wrong."""

SLOW_MS = (20, 150, 700, 3_000)
"""How long it takes now and then."""

Exchange = Callable[[bytes], Awaitable[bytes]]


class Wires:
    """All wires of one world.

    Attributes:
        cut: Pairs of who cannot be heard, and by whom; `host` and `caller` stand for all.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.cut: set[tuple[str, str]] = set()

    def sent(self, host: str, participant: str, batch: bytes) -> bool:
        """Note the calls that leave a host; return whether one of them kills it."""
        world = self._world
        now_ms = world.now_ms()
        is_deadly = False
        for fields in unpack_messages(batch)[1:]:
            call = StepCall._make(fields)
            world.lines.append(
                Sent(
                    now_ms,
                    host,
                    participant,
                    call.verb,
                    call.saga_id,
                    call.step,
                    call.scope,
                    call.epoch,
                    call.attempt,
                )
            )
            is_deadly |= call.verb == ACTION and call.saga_id in world.poison
        return is_deadly

    async def carry(self, source: str, target: str, batch: bytes, deliver: Exchange) -> bytes:
        """Carry one exchange there, and its answer back.

        Raises:
            ConnectionError: If it was lost on the way, or nobody is there.
        """
        draws = self._world.draws
        turn = draws.turn("exchange", source, target)
        key = (source, target, turn)
        await asyncio.sleep(TRANSIT_S)
        if self._is_cut(source, target) or draws.strikes("request_lost", *key):
            await self._lose(key)
        # A caller's exchange is not doubled: nothing below a lane does that, and an
        # operator's order would be given twice.
        if not source.startswith("caller") and draws.strikes("exchange_doubled", *key):
            self._world.hold(key, lambda: self._world.spawn(_deliver_again(deliver, batch)))
        if draws.strikes("exchange_slow", *key):
            answer = await self._carry_slowly(key, batch, deliver)
        else:
            answer = await deliver(batch)
        await asyncio.sleep(TRANSIT_S)
        if self._is_cut(target, source) or draws.strikes("answer_lost", *key):
            await self._lose(key)
        return answer

    async def _carry_slowly(
        self, key: tuple[object, ...], batch: bytes, deliver: Exchange
    ) -> bytes:
        """Deliver after a while, whether or not who sent it is still there."""
        delay_ms = SLOW_MS[int(self._world.draws.draw("slow_ms", *key) * len(SLOW_MS))]

        self._world.expect_arrival(delay_ms)

        async def later() -> bytes:
            await asyncio.sleep(delay_ms / 1_000)
            return await deliver(batch)

        task = self._world.spawn(later())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _lose(self, key: tuple[object, ...]) -> None:
        """Tell that it is lost, or never."""
        if self._world.draws.draw("silent", *key) < 0.5:
            await asyncio.get_running_loop().create_future()
        raise ConnectionError("lost on the way")

    def _is_cut(self, source: str, target: str) -> bool:
        if not self.cut:
            return False
        return bool(self.cut & {(a, b) for a in _names(source) for b in _names(target)})


def _names(end: str) -> tuple[str, str]:
    """Return the names that a cut can have for an end."""
    return end.partition("#")[0], end.partition("-")[0]


async def _deliver_again(deliver: Exchange, batch: bytes) -> None:
    try:
        await deliver(batch)
    except ConnectionError:
        return
