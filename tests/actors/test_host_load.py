"""A host under load, beside participants that are slow or away, and on a clock that jumps."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raysaga.statemachines.calls import ACTION, Code
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga

from .recipes import chain_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import World


@in_virtual_time
async def test_a_participant_that_is_down_for_a_while_costs_time_and_nothing_else(
    world_folder: Path,
) -> None:
    definition = chain_saga("order", 4, participants=4)
    patient = SagaDefinition(name="order", steps=order_saga.steps)
    world = await World(world_folder).start(patient, definition)
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD]})
    requests = [await world.submit(str(i), patient) for i in range(20)]
    world.services.stations["payment"].kill()
    await asyncio.sleep(0.5)
    await world.services.stations["payment"].start()
    for request in requests:
        assert (await world.outcome(request))["phase"] in ("completed", "compensated")
    await world.finish()


@in_virtual_time
async def test_what_waits_long_for_its_turn_does_not_expire_while_it_waits(
    world_folder: Path,
) -> None:
    """Else an overload feeds itself: what has waited is refused, tried again, and waits again."""
    definition = chain_saga("order", 1, participants=1)
    bounds = {"action_life_ms": 1_000, "participant_in_flight_max": 1}
    world = await World(world_folder, **bounds).start(definition)
    world.services.fate = fates({("s0", ACTION): Fate.HELD})
    requests = [world.send_order(f"{i}", definition) for i in range(40)]
    while any(request.ended is None for request in requests):
        world.services.let_go()
        await asyncio.sleep(0.1)
    assert asyncio.get_running_loop().time() > 3.9
    assert {request.ended["phase"] for request in requests} == {"completed"}  # type: ignore[index]
    assert len(world.services.actions()) == 40
    await world.finish()


@in_virtual_time
async def test_retries_that_wait_for_their_budget_do_not_expire_while_they_wait(
    world_folder: Path,
) -> None:
    definition = chain_saga("order", 1, participants=1)
    bounds = {"action_life_ms": 1_000, "retry_budget_max": 1.0, "retry_budget_per_s": 10.0}
    world = await World(world_folder, **bounds).start(definition)
    # As many first tries, and three seconds of retries, come to nothing.
    world.services.script.later["s0"] = 60 + 31
    requests = [world.send_order(f"{i}", definition) for i in range(60)]
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    assert asyncio.get_running_loop().time() > 3.0
    assert Code.EXPIRED not in {said.reply.code for said in world.services.said}
    await world.finish()


@in_virtual_time
async def test_a_call_that_has_waited_leaves_only_on_a_new_proof_of_ownership(
    world_folder: Path,
) -> None:
    definition = chain_saga("order", 1, participants=1)
    world = await World(world_folder, participant_in_flight_max=1).start(definition)
    world.may_stop = True
    world.services.fate = fates({("s0", ACTION): [Fate.HELD]})
    await world.submit("1", definition, watch=False)
    await world.submit("2", definition, watch=False)
    await until(lambda: world.services.held)
    world.journal.grant_epoch(world.engine.host.scope, "newer", world.clock.now_ms())
    await asyncio.sleep(0.2)
    world.services.let_go()
    await until(lambda: world.engine.fatal)
    assert len(world.services.actions()) == 1
    await world.restart()
    await world.rests("order:1", "order:2")
    await world.finish()


@in_virtual_time
async def test_a_clock_that_jumps_forward_expires_nothing_at_once(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD_BACK]})
    requests = [await world.submit("1")]
    await until(lambda: world.services.held)
    world.clock.wall_offset_ms += 3_600_000
    await asyncio.sleep(3.0)
    assert world.services.undos() == []
    world.services.let_go()
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_calm_bystanders_do_not_wait_for_a_participant_that_hangs(
    world_folder: Path,
) -> None:
    """I15: a step that hangs delays its own saga only."""
    definition = chain_saga("order", 3, participants=3)
    world = await World(world_folder).start(definition)
    world.services.fate = lambda call: (
        Fate.LOST
        if (call.step, call.verb) == ("s1", ACTION) and call.saga_id.endswith("x")
        else Fate.ARRIVES
    )
    stuck = [world.send_order(f"{i}x", definition) for i in range(5)]
    began_at = asyncio.get_running_loop().time()
    for i in range(50):
        assert (await world.outcome(await world.submit(f"{i}", definition)))["phase"] == "completed"
    assert asyncio.get_running_loop().time() - began_at < 2.0
    assert all(request.ended is None for request in stuck)
    for request in stuck:
        assert (await world.outcome(request))["phase"] == "compensated"
    await world.finish()
