"""Sagas with a host of their own: born at the shard, driven under a scope that nobody else has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.actors.placement import saga_scope
from raysaga.statemachines.calls import ACTION, COMPENSATION
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StorageFullError

from .dedicated import DedicatedHosts
from .recipes import chain_saga, with_durability
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import UUID, World


async def world_with_own_hosts(folder: Path, *definitions, **settings) -> World:  # type: ignore[no-untyped-def]
    world = World(folder, **settings)
    world.launcher = DedicatedHosts(world)
    return await world.start(*definitions)


@pytest.mark.parametrize("durability", Durability)
def test_its_own_host_drives_it_and_whoever_waits_is_told(
    world_folder: Path, durability: Durability
) -> None:
    """A relaxed one, too, is on disk before its host is asked for: where else would it be found?"""

    @in_virtual_time
    async def story() -> None:
        definition = with_durability(chain_saga("own", 3), durability)
        world = await world_with_own_hosts(world_folder, definition)
        request = await world.submit(definition=definition, dedicated=True)
        beside = await world.submit("2", definition=definition)
        assert (await world.outcome(request))["phase"] == "completed"
        assert (await world.outcome(beside))["phase"] == "completed"
        assert world.head("own:1").scope == saga_scope(UUID, "own:1")  # type: ignore[arg-type]
        scopes = {c.scope for _, c in world.services.calls if c.saga_id == "own:1" and c.verb < 2}
        assert scopes == {f"{UUID}/own:1"}
        assert world.engine.fatal is None
        await world.finish()

    story()


@in_virtual_time
async def test_one_that_was_born_in_a_later_life_of_its_shard_is_found_sound(
    world_folder: Path,
) -> None:
    """Its first record carries the epoch of the shard, and the others that of its own scope."""
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    for _ in range(3):
        await world.restart()
    request = await world.submit(definition=definition, dedicated=True)
    assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_deadline_during_its_birth_is_left_to_its_own_host(world_folder: Path) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.services.fate = fates({("s1", ACTION): [Fate.LOST]})
    world.engine.disk.gate.clear()
    request = world.send_order(definition=definition, dedicated=True, deadline_ms=20)
    await asyncio.sleep(1.0)
    world.engine.disk.gate.set()
    assert (await world.outcome(request))["phase"] == "compensated"
    assert world.engine.fatal is None
    await world.finish()


@in_virtual_time
async def test_an_order_during_its_birth_finds_none(world_folder: Path) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.engine.disk.gate.clear()
    request = world.send_order(definition=definition, dedicated=True)
    await asyncio.sleep(0.1)
    assert (await world.order("cancel", "own:1")).error == "NOT_FOUND"
    world.engine.disk.gate.set()
    assert (await world.outcome(request))["phase"] == "completed"
    assert world.engine.fatal is None
    await world.finish()


@in_virtual_time
async def test_a_birth_that_finds_no_room_starts_no_host(world_folder: Path) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.engine.disk.faults = [StorageFullError("journal", "no room")]
    request = await world.submit(definition=definition, dedicated=True)
    assert request.error == "STORAGE_FULL"
    assert world.launcher.starts == {}
    assert (await world.outcome(await world.submit(definition=definition, dedicated=True)))[
        "phase"
    ] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_shard_that_dies_right_after_the_birth_starts_its_host_when_it_is_back(
    world_folder: Path,
) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.crash_at = len(world.moments) + 1
    request = world.send_order(definition=definition, dedicated=True)
    await until(lambda: world.engine.life.is_over)
    assert world.launcher.starts == {}
    await world.restart()
    assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@pytest.mark.parametrize("at", range(7))
def test_its_host_may_die_at_any_call(world_folder: Path, at: int) -> None:
    @in_virtual_time
    async def story() -> None:
        definition = chain_saga("own", 4)
        world = await world_with_own_hosts(world_folder, definition, reconcile_ms=100)
        world.services.script.refuses["s3"] = "NO"

        def kill(_what: str, _call: object) -> None:
            if len(world.services.said) == at + 1 and world.launcher.starts["own:1"] == 1:
                world.launcher.kill("own:1")

        world.services.moment = kill
        request = await world.submit(definition=definition, dedicated=True)
        assert (await world.outcome(request))["phase"] == "compensated"
        assert world.launcher.starts["own:1"] == 2
        await world.finish()

    story()


@in_virtual_time
async def test_orders_are_passed_on_to_its_host(world_folder: Path) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD]})
    world.services.script.refuses_undo.add("s0")
    request = await world.submit(definition=definition, dedicated=True)
    await until(lambda: world.services.held)
    assert (await world.order("cancel", "own:1")).ok == "accepted"
    world.services.let_go()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("parked_backward", "COMPENSATION_REFUSED")
    assert (await world.order("retry", "own:none")).error == "NOT_FOUND"
    world.services.script.refuses_undo.clear()
    assert (await world.order("retry", "own:1")).ok == "accepted"
    await until(lambda: world.phase("own:1") is Phase.COMPENSATED)
    late = await world.order("cancel", "own:1")
    assert late.ok == "already"
    assert len(world.services.undos("s0")) >= 2
    await world.finish()


@in_virtual_time
async def test_a_saga_that_its_host_has_let_go_and_is_sent_on_has_its_timers_again(
    world_folder: Path,
) -> None:
    """Who holds on to a parked saga and gives it an order must not be left with half of one."""
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.services.script.refuses["s1"] = "NO"
    world.services.script.refuses_undo.add("s0")
    request = await world.submit(definition=definition, dedicated=True)
    assert (await world.outcome(request))["phase"] == "parked_backward"
    world.services.script.refuses_undo.clear()
    world.services.fate = fates({("s0", COMPENSATION): [Fate.LOST]})
    assert (await world.order("retry", "own:1")).ok == "accepted"
    await until(lambda: world.phase("own:1") is Phase.COMPENSATED, within_s=30)
    assert world.launcher.starts["own:1"] == 1
    await world.finish()


@in_virtual_time
async def test_an_older_host_of_the_same_saga_is_fenced_out(world_folder: Path) -> None:
    """Ray really runs two instances of one actor."""
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.may_stop = True
    world.services.fate = fates({("s0", ACTION): [Fate.HELD_BACK]})
    request = await world.submit(definition=definition, dedicated=True)
    await until(lambda: world.services.held)
    older = world.launcher.lives["own:1"]
    world.launcher._start("own:1")
    assert (await world.outcome(request))["phase"] == "completed"
    world.services.let_go()
    await until(lambda: older.is_over)
    assert len(world.services.undos()) == 0
    assert all(c.epoch == 2 for c in world.services.actions("s2"))
    await world.finish()


@in_virtual_time
async def test_who_waits_for_one_that_cannot_be_read_is_told_so(world_folder: Path) -> None:
    definition = chain_saga("own", 3)
    world = await world_with_own_hosts(world_folder, definition)
    world.launcher.wait_s = 1.0
    request = world.send_order(definition=definition, dedicated=True)
    other = await world.submit("2", definition=definition, dedicated=True)
    await until(lambda: request.ok)
    records = type(world.journal).records

    def broken(journal, saga_id):  # type: ignore[no-untyped-def]
        found = records(journal, saga_id)
        return [b"RS broken" + record for record in found] if saga_id == "own:1" else found

    type(world.journal).records = broken  # type: ignore[method-assign]
    try:
        outcome = await world.outcome(request, within_s=10)
        assert (outcome["phase"], outcome["code"]) == ("parked_running", "JOURNAL_CORRUPT")
        assert outcome["message"]
        assert (await world.outcome(other))["phase"] == "completed"
    finally:
        type(world.journal).records = records  # type: ignore[method-assign]
    await world.quiet()
    assert COMPENSATION not in {c.verb for _, c in world.services.calls}
    world.crash()
    world.services.close()
