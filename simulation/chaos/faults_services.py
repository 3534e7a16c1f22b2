"""Faults of services: silent, slow, coming and going, refusing to undo; and orders that kill."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError, now_ms
from raysaga.simulation.chaos.orders import DECLINED, SERVICES
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.trouble import troubled
from raysaga.statemachines.calls import ACTION, COMPENSATION


class HangService(Fault):
    """A service takes calls and never answers."""

    name: ClassVar[str] = "hang-service"
    numbers: ClassVar[tuple[int, ...]] = (18,)
    what: ClassVar[str] = "has a service fall silent"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 10.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Be silent for some seconds; it has bitten when calls come again."""
        service = blow.chance.choice(SERVICES)
        async with troubled(stage.workplace, service, {"mode": "hang"}) as trouble:
            blow.inflicted(service)
            await stage.until(trouble.bites, "a call meets it")
            await asyncio.sleep(blow.chance.uniform(3.0, 8.0))
            found = await stage.until(trouble.calls.repeated, "calls come again")
        blow.bit(f"{len(trouble.bites())} calls were not answered, {found} came again")
        blow.healed()


class SlowService(Fault):
    """A service takes up to a second and a half, sometimes longer than its callers wait."""

    name: ClassVar[str] = "slow-service"
    numbers: ClassVar[tuple[int, ...]] = (19,)
    what: ClassVar[str] = "slows a service down"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 8.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Be slow for some seconds; it has bitten when calls were given up."""
        service = blow.chance.choice(SERVICES)
        slow = {"mode": "slow", "ms": 4_000, "share": 0.7}
        async with troubled(stage.workplace, service, slow) as trouble:
            blow.inflicted(service)
            await asyncio.sleep(blow.chance.uniform(3.0, 6.0))
            found = await stage.until(trouble.calls.repeated, "calls come again")
        blow.bit(f"{len(trouble.bites())} calls were slow, {found} came again")
        blow.healed()


class FlapService(Fault):
    """A service is down for a second or two, and up for as long, several times."""

    name: ClassVar[str] = "flap-service"
    numbers: ClassVar[tuple[int, ...]] = (19,)
    what: ClassVar[str] = "has a service come and go"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 12.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Come and go; it has bitten when calls were turned away each time."""
        service = blow.chance.choice(SERVICES)
        blow.inflicted(service)
        turned_away = []
        for _ in range(3):
            async with troubled(stage.workplace, service, {"mode": "down"}) as trouble:
                await asyncio.sleep(blow.chance.uniform(1.0, 2.0))
                await stage.until(trouble.bites, "a call meets it")
                turned_away.append(len(trouble.bites()))
            await asyncio.sleep(blow.chance.uniform(1.0, 2.0))
        blow.bit(f"{turned_away} calls were turned away")
        blow.healed()


class LoseReplies(Fault):
    """A service does what it is asked, and every second answer is lost."""

    name: ClassVar[str] = "lose-replies"
    numbers: ClassVar[tuple[int, ...]] = (16,)
    what: ClassVar[str] = "loses a service's answers"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 8.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Lose answers; it has bitten when the same was asked again and not done again."""
        service = blow.chance.choice(SERVICES)
        lose = {"mode": "lose", "share": 0.5}
        async with troubled(stage.workplace, service, lose) as trouble:
            blow.inflicted(service)
            await asyncio.sleep(blow.chance.uniform(2.0, 4.0))
            await stage.until(trouble.bites, "an answer is lost")
            found = await stage.until(trouble.calls.from_the_ledger, "calls come again")
        blow.bit(f"{len(trouble.bites())} answers were lost, {found} were given again")
        blow.healed()


class UndoFails(Fault):
    """A service will not undo, for longer than the saga's policy tries; an operator sends it on."""

    name: ClassVar[str] = "undo-fails"
    numbers: ClassVar[tuple[int, ...]] = (42,)
    what: ClassVar[str] = "has an undo fail until its saga is parked"
    seconds: ClassVar[float] = 25.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Fail every undo of one saga; bitten when it is parked, and ends when it is sent on."""
        key = f"stuck-{blow.number}-{now_ms()}"
        saga_id = f"order:{key}"
        down = {"mode": "down", "verb": COMPENSATION, "saga_id": saga_id}
        await stage.order(stage.callers, "hold", saga_id=saga_id, holds=True)
        async with troubled(stage.workplace, "inventory", down) as trouble:
            await stage.order(stage.callers, "submit", key=key, token=DECLINED)
            await stage.until(trouble.bites, "an undo fails")
            blow.inflicted(f"the undo of {saga_id}")
            parked = await phase_of(stage, saga_id, "parked")
            blow.bit(f"parked: {parked['code']} after {len(trouble.bites())} attempts")
            if parked["code"] != "COMPENSATION_STUCK":
                blow.broke(f"{saga_id} is parked for {parked['code']}, not COMPENSATION_STUCK")
        await stage.order(stage.callers, "hold", saga_id=saga_id, holds=False)
        await stage.order(stage.callers, "retry", saga_id=saga_id)
        await phase_of(stage, saga_id, "compensated")
        blow.healed("an operator has sent it on")


class PoisonOrder(Fault):
    """An order that kills the shard each time its payment is asked for."""

    name: ClassVar[str] = "poison-order"
    numbers: ClassVar[tuple[int, ...]] = (34,)
    what: ClassVar[str] = "submits an order that kills whoever drives it"
    seconds: ClassVar[float] = 45.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Let it kill; bitten when it is parked as poison, and the shard serves the others."""
        key = f"poison-{blow.number}-{now_ms()}"
        saga_id = f"order:{key}"
        kills = {"mode": "assassin", "verb": ACTION, "saga_id": saga_id}
        await stage.order(stage.callers, "hold", saga_id=saga_id, holds=True)
        async with troubled(stage.workplace, "payment", kills) as trouble:
            await stage.order(stage.callers, "submit", key=key)
            blow.inflicted(saga_id)
            parked = await phase_of(stage, saga_id, "parked")
            blow.bit(f"it has killed {len(trouble.bites())} times, and is parked: {parked['code']}")
            if parked["code"] != "POISON":
                blow.broke(f"{saga_id} is parked for {parked['code']}, not POISON")
        await stage.order(stage.callers, "hold", saga_id=saga_id, holds=False)
        await stage.order(stage.callers, "retry", saga_id=saga_id)
        # If that has taken longer than its deadline allows, it is undone.
        ended = await phase_of(stage, saga_id, "completed", "compensated")
        blow.healed(f"an operator has sent it on, and it is {ended['phase']}")


PHASE_S = 120.0
"""How long a saga may take to come to a phase that it must come to."""


async def phase_of(stage: Stage, saga_id: str, *wanted: str) -> dict[str, Any]:
    """Return a saga's status once its phase begins with one of `wanted`.

    Raises:
        NeverHappenedError: If it does not come to that.
    """
    end = now_ms() + PHASE_S * 1_000
    status: dict[str, Any] | None = None
    while now_ms() < end:
        status = await stage.order(stage.callers, "status", saga_id=saga_id)
        if status is not None and status["phase"].startswith(wanted):
            return status
        await asyncio.sleep(0.2)
    phase = "unknown" if status is None else status["phase"]
    raise NeverHappenedError(f"{saga_id} is {' or '.join(wanted)}, not {phase}", PHASE_S)


FAULTS: tuple[Fault, ...] = (
    HangService(),
    SlowService(),
    FlapService(),
    LoseReplies(),
    UndoFails(),
    PoisonOrder(),
)
