"""What a host keeps of its sagas: everything while they need it, nothing afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.actors.timers import STALE_MAX
from raysaga.statemachines.calls import ACTION, COMPENSATION
from raysaga.statemachines.definition import CompensationPolicy, Durability, SagaDefinition
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, Phase
from raysaga.storage.errors import StorageFullError

from .recipes import chain_saga, diamond_saga, pivot_saga, step, with_durability
from .toy_services import Fate, fates, is_step
from .virtual_time import in_virtual_time, until
from .world import World

FULL = StorageFullError("journal", "no room")


@pytest.mark.parametrize("durability", Durability)
def test_two_thousand_sagas_leave_nothing_behind(
    world_folder: Path, durability: Durability
) -> None:
    """Half of them are undone; their deadline is an hour away."""

    @in_virtual_time
    async def story() -> None:
        definition = with_durability(chain_saga("many", 3, deadline_ms=3_600_000), durability)
        world = await World(world_folder).start(definition)
        for batch in range(20):
            world.services.script.refuses = {"s2": "NO"} if batch % 2 else {}
            keys = range(batch * 100, batch * 100 + 100)
            requests = [world.send_order(str(key), definition) for key in keys]
            for request in requests:
                await world.outcome(request)
        host = world.engine.host
        await asyncio.sleep(1.0)
        assert host.sagas == {}
        assert len(host._timers) <= STALE_MAX + 1
        assert (host._timers._due, len(host._behind)) == ({}, 0)
        assert host.finished_count == 2_000
        desk = world.engine.desk
        assert (desk._births, desk._waiting) == ({}, {})
        for dispatcher in host.dispatchers.values():
            assert dispatcher.in_flight_count == dispatcher.queued_count == 0
        await world.finish()

    story()


@in_virtual_time
async def test_instants_that_were_overtaken_do_not_pile_up(world_folder: Path) -> None:
    """One saga with thousands of retries, and its deadline an hour away."""
    definition = chain_saga("long", 400, deadline_ms=3_600_000)
    world = await World(world_folder).start(definition)
    await world.outcome(await world.submit(definition=definition))
    assert len(world.engine.host._timers) <= 5
    await world.finish()


@in_virtual_time
async def test_a_saga_that_waits_is_kept_as_bytes_and_goes_on_as_if_it_were_not(
    world_folder: Path,
) -> None:
    steps = (step("first"), step("second", timeout_ms=600_000), step("third"))
    definition = SagaDefinition(name="patient", steps=steps)
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("second", ACTION): [Fate.HELD_BACK]})
    request = await world.submit(definition=definition)
    await until(lambda: world.services.actions("second") != [])
    saga = world.engine.host.sagas[SagaId("patient:1")].saga
    assert not isinstance(saga._input, bytes)
    given, result = dict(saga.input), saga.steps[0].result
    await until(lambda: isinstance(saga._input, bytes))
    assert isinstance(saga.steps[0]._result, bytes)
    status = (await world.ask("status", "patient:1")).ok
    assert status["results"] == {"first": result}
    assert saga.input == given
    world.services.let_go()
    assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_parked_saga_stays_while_an_undo_of_it_is_under_way(world_folder: Path) -> None:
    """Else an operator's order would take it up beside itself, and two of it would write.

    Left and right are undone side by side; left refuses and the saga is parked, while
    the answer of right is still on its way; then an operator sends the saga on.
    """
    definition = diamond_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["last"] = "NO"
    world.services.script.refuses_undo.add("left")
    world.services.fate = fates({("right", COMPENSATION): [Fate.HELD_BACK]})
    request = await world.submit(definition=definition)
    assert (await world.outcome(request))["phase"] == "parked_backward"
    world.services.script.refuses_undo.clear()
    order = await world.order("retry", "diamond:1")
    assert order.ok == "accepted"
    world.services.let_go()
    await until(lambda: world.phase("diamond:1") is Phase.COMPENSATED)
    await asyncio.sleep(1.0)
    assert world.engine.host.sagas == {}
    await world.finish()


@in_virtual_time
async def test_a_parked_saga_leaves_when_the_last_answer_has_come(world_folder: Path) -> None:
    definition = diamond_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["last"] = "NO"
    world.services.script.refuses_undo.add("left")
    world.services.fate = fates({("right", COMPENSATION): [Fate.HELD_BACK]})
    request = await world.submit(definition=definition)
    await world.outcome(request)
    assert list(world.engine.host.sagas) == ["diamond:1"]
    world.services.let_go()
    await until(lambda: world.engine.host.sagas == {})
    history = (await world.ask("history", "diamond:1")).ok
    assert history[-1]["event"] == "step_undone"
    assert world.phase("diamond:1") is Phase.PARKED_BACKWARD
    await world.finish()


@in_virtual_time
async def test_a_parked_saga_that_lost_its_last_answer_leaves_at_the_time_out(
    world_folder: Path,
) -> None:
    definition = diamond_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["last"] = "NO"
    world.services.script.refuses_undo.add("left")
    world.services.fate = fates({("right", COMPENSATION): Fate.LOST})
    await world.outcome(await world.submit(definition=definition))
    await until(lambda: world.engine.host.sagas == {}, within_s=5)
    assert world.phase("diamond:1") is Phase.PARKED_BACKWARD
    await world.finish()


@in_virtual_time
async def test_a_forward_parked_saga_hears_its_other_branch_out(world_folder: Path) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["tell"] = "NO"
    world.services.fate = fates({("ship", ACTION): [Fate.HELD_BACK]})
    request = await world.submit(definition=definition)
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("parked_forward", "STEP_REFUSED")
    assert "ship" in outcome["remaining"]
    world.services.let_go()
    await until(lambda: world.engine.host.sagas == {}, within_s=5)
    skip = await world.order("skip", "pivot:1", "told by telephone")
    assert skip.ok == "accepted"
    await until(lambda: world.phase("pivot:1") is Phase.COMPLETED)
    assert len(world.services.actions("ship")) == 1
    await world.finish()


@in_virtual_time
async def test_policy_continue_parks_only_when_all_else_is_undone(world_folder: Path) -> None:
    definition = diamond_saga(policy=CompensationPolicy.CONTINUE)
    world = await World(world_folder).start(definition)
    world.services.script.refuses["last"] = "NO"
    world.services.script.refuses_undo.add("left")
    request = await world.submit(definition=definition)
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["remaining"]) == ("parked_backward", ["left"])
    assert world.services.standing("diamond:1") == {"left"}
    skip = await world.order("skip", "diamond:1", "left as it is")
    assert skip.ok == "accepted"
    await until(lambda: world.phase("diamond:1") is Phase.COMPENSATED)
    watch = await world.ask("watch", "diamond:1")
    assert (await world.outcome(watch))["remaining"] == ["left"]
    await world.finish()


@in_virtual_time
async def test_a_relaxed_saga_that_was_told_is_not_dropped_when_the_journal_is_full(
    world_folder: Path,
) -> None:
    """Its calls have left: dropped, its effects would stand, and nobody would know them."""
    definition = with_durability(chain_saga("order", 4), Durability.RELAXED)
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("s2", ACTION): [Fate.HELD]})
    world.engine.disk.is_full = lambda _entries, reserve: None if reserve else FULL
    first = await world.submit(definition=definition)
    assert first.ok == "accepted"
    await until(lambda: world.engine.host.committer.is_full)
    # From now on it is known to be full, and is said to new ones.
    second = await world.submit("2", definition=definition)
    assert second.error == "STORAGE_FULL"
    assert world.services.standing("order:2") == set()
    world.services.let_go()
    assert (await world.outcome(first))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_relaxed_saga_is_not_dropped_by_what_it_must_wait_for_before_its_birth_is_on_disk(
    world_folder: Path,
) -> None:
    """Its first record has its birth and a barrier: a cancel, or a result that is used."""
    definition = with_durability(chain_saga("order", 3), Durability.RELAXED)
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD]})
    world.engine.disk.is_full = lambda _entries, reserve: None if reserve else FULL
    request = await world.submit(definition=definition)
    assert request.ok == "accepted"
    assert world.journal.head(SagaId("order:1")) is None
    cancel = await world.order("cancel", "order:1")
    assert cancel.ok == "accepted"
    world.services.let_go()
    assert (await world.outcome(request))["phase"] == "compensated"
    await world.finish()


@in_virtual_time
async def test_a_saga_under_way_is_not_taken_up_a_second_time_by_the_sweeps(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=20).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    await asyncio.sleep(2.0)
    world.services.let_go(is_step("process_payment"))
    assert (await world.outcome(request))["phase"] == "completed"
    assert world.engine.reconciler.recovered_count == 0
    assert len(world.services.actions()) == 4
    await world.finish()


@in_virtual_time
async def test_the_end_of_each_saga_is_counted_and_told_once(world_folder: Path) -> None:
    world = await World(world_folder).start()
    ended: list[str] = []
    world.engine.host.ended = lambda saga: ended.append(f"{saga.saga_id} {saga.phase.value}")
    world.services.fate = fates({("send_notification", ACTION): Fate.TWICE})
    watchers = [await world.submit(), await world.submit(), await world.submit()]
    for request in watchers:
        await world.outcome(request)
    await asyncio.sleep(2.0)
    assert ended == ["order:1 completed"]
    assert world.engine.host.finished_count == 1
    assert [len([k for k, _ in r.told if k == "ended"]) for r in watchers] == [1, 1, 1]
    assert world.phase("order:1") not in PARKED
    await world.finish()
