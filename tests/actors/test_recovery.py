"""From records back to sagas: what cannot be read is parked alone, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.actors import host as host_module
from raysaga.statemachines.calls import ACTION, StepCall
from raysaga.statemachines.inputs import HostRestarted
from raysaga.statemachines.tables import Phase

from .recipes import chain_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import World


async def three_under_way(folder: Path, **settings: Any) -> World:
    """Return a world with sagas `1` to `3` before their payment, and the host dead."""
    world = await World(folder, **settings).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    for key in ("1", "2", "3"):
        await world.submit(key)
    await asyncio.sleep(0.3)
    world.services.fate = fates({})
    return world


def damage(world: World, saga_id: str, how: Callable[[bytes], bytes]) -> None:
    """Change each record of a saga where it lies."""
    journal = world.journal
    from raysaga.storage import journal_rows as rows  # the door to the bytes

    def body(txn: Any) -> None:
        for key, value in list(txn.scan(rows.RECORDS)):
            prefix = rows.RECORD_PREFIX.size
            if saga_id.encode() in value or journal.records(saga_id)[0] == value[prefix:]:  # type: ignore[arg-type]
                txn.put(rows.RECORDS, key, value[:prefix] + how(value[prefix:]))

    journal.environment.write(body)


def flip(record: bytes) -> bytes:
    return record[:-9] + bytes([record[-9] ^ 1]) + record[-8:]


@in_virtual_time
async def test_a_record_with_a_flipped_bit_parks_its_saga_and_no_other(world_folder: Path) -> None:
    world = await three_under_way(world_folder)
    damage(world, "order:2", flip)
    await world.restart()
    await world.rests("order:1", "order:2", "order:3")
    assert world.phase("order:1") is world.phase("order:3") is Phase.COMPLETED
    head = world.head("order:2")
    assert (head.phase, head.reason) == (Phase.PARKED_RUNNING, "JOURNAL_CORRUPT")
    again = await world.submit("2")
    outcome = await world.outcome(again, within_s=5)
    assert (outcome["phase"], outcome["code"]) == ("parked_running", "JOURNAL_CORRUPT")
    assert "CRC" in outcome["message"]
    for operation in ("retry", "skip", "cancel", "force"):
        assert (await world.order(operation, "order:2", "note")).error == "ORDER_REFUSED"
    assert (await world.ask("status", "order:2")).error
    # What it may have done is nobody's to guess: it is left as it is.
    assert world.services.undos() == []
    await world.quiet()
    world.close(is_sound=False)


def flip_number(record: bytes) -> bytes:
    """Flip a bit of the number that a record bears, which comes fifth in it."""
    return record[:4] + bytes([record[4] ^ 1]) + record[5:]


@in_virtual_time
async def test_a_saga_is_parked_by_the_place_of_what_is_damaged(world_folder: Path) -> None:
    world = await three_under_way(world_folder)
    damage(world, "order:2", flip_number)
    await world.restart()
    await world.rests("order:2")
    outcome = await world.outcome(await world.submit("2"), within_s=5)
    assert outcome["message"] == "order:2: record 0 is corrupt (its CRC is wrong)"
    await world.quiet()
    world.close(is_sound=False)


@in_virtual_time
async def test_an_unreadable_saga_is_parked_once_however_slow_the_disk_is(
    world_folder: Path,
) -> None:
    """The next sweep comes before the first park record is on disk; a second would not follow."""
    world = await three_under_way(world_folder, reconcile_ms=10)
    damage(world, "order:2", flip)
    starting = asyncio.ensure_future(world.restart())
    await until(lambda: world.engine.host.committer is not None)
    world.engine.disk.gate.clear()
    await asyncio.sleep(2.0)
    world.engine.disk.gate.set()
    await starting
    await world.rests("order:1", "order:2", "order:3")
    assert world.engine.fatal is None
    assert world.head("order:2").reason == "JOURNAL_CORRUPT"
    world.close(is_sound=False)


@in_virtual_time
async def test_who_waits_for_a_saga_when_it_turns_out_to_be_unreadable_is_told(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    request = await world.submit()
    await asyncio.sleep(0.3)
    damage(world, "order:1", flip)
    await world.restart()
    outcome = await world.outcome(request, within_s=10)
    assert (outcome["phase"], outcome["code"]) == ("parked_running", "JOURNAL_CORRUPT")
    world.close(is_sound=False)


@in_virtual_time
async def test_a_saga_whose_definition_is_unknown_is_parked_and_goes_on_when_it_is_given(
    world_folder: Path,
) -> None:
    """Upgraded and back: pinned to the very definition, it is not guessed at."""
    world = await three_under_way(world_folder)
    definitions = type(world.journal).definitions
    type(world.journal).definitions = lambda _journal: {}  # type: ignore[method-assign]
    try:
        await world.restart()
    finally:
        type(world.journal).definitions = definitions  # type: ignore[method-assign]
    await world.rests("order:1", "order:2", "order:3")
    for key in ("1", "2", "3"):
        head = world.head(f"order:{key}")
        assert (head.phase, head.reason) == (Phase.PARKED_RUNNING, "UNKNOWN_DEFINITION")
    assert (await world.order("retry", "order:1")).error == "ORDER_REFUSED"
    assert (await world.ask("history", "order:1")).error == "ORDER_REFUSED"
    await world.restart()
    for key in ("1", "2", "3"):
        assert (await world.order("retry", f"order:{key}")).ok == "accepted"
    await until(lambda: world.phase("order:3") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_a_definition_that_has_another_hash_than_it_is_kept_under_is_not_used(
    world_folder: Path,
) -> None:
    world = await three_under_way(world_folder)
    other = chain_saga("order", 4).to_data()
    definitions = type(world.journal).definitions

    def swapped(journal: Any) -> dict[str, Any]:
        return dict.fromkeys(definitions(journal), other)

    type(world.journal).definitions = swapped  # type: ignore[method-assign]
    try:
        await world.restart()
        await world.rests("order:1")
        assert world.head("order:1").reason == "UNKNOWN_DEFINITION"
    finally:
        type(world.journal).definitions = definitions  # type: ignore[method-assign]
    world.close()


def poisoned(world: World, key: str, times: int | None = None) -> None:
    """Kill the host each time that a call of the saga's payment arrives."""
    left = times

    def fate(call: StepCall) -> Fate:
        nonlocal left
        if call.saga_id == f"order:{key}" and call.step == "process_payment" and left != 0:
            left = None if left is None else left - 1
            world.engine.kill()
            return Fate.LOST
        return Fate.ARRIVES

    world.services.fate = fate


@in_virtual_time
async def test_a_saga_that_kills_its_host_each_time_is_parked_and_bystanders_complete(
    world_folder: Path,
) -> None:
    """A poison order must not take its shard along for ever."""
    world = await World(world_folder, recoveries_max=3, suspect_wait_ms=300).start()
    poisoned(world, "5")
    requests = [world.send_order(str(i)) for i in range(10)]
    await world.restarted_until(lambda: all(request.ended for request in requests))
    phases = {r.body[2]: r.ended["phase"] for r in requests}  # type: ignore[index]
    assert phases.pop("5") == "parked_running"
    assert set(phases.values()) == {"completed"}
    assert world.head("order:5").reason == "POISON"
    # Three tries after the first death, each counted on disk before it was made.
    deaths = [c for c in world.services.actions("process_payment") if c.saga_id == "order:5"]
    assert len(deaths) == 1 + 3
    world.services.fate = fates({})
    assert (await world.order("retry", "order:5")).ok == "accepted"
    await until(lambda: world.phase("order:5") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_an_operator_can_turn_a_poisoned_saga_back(world_folder: Path) -> None:
    world = await World(world_folder, recoveries_max=2, suspect_wait_ms=300).start()
    poisoned(world, "1")
    request = world.send_order()
    await world.restarted_until(lambda: request.ended)
    world.services.fate = fates({})
    assert (await world.order("force", "order:1", "broken order")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    await world.finish()


@in_virtual_time
async def test_progress_clears_the_count_of_recoveries(world_folder: Path) -> None:
    """A host that dies now and then, for reasons of its own, parks nobody."""
    definition = chain_saga("long", 8)
    world = await World(world_folder, recoveries_max=2, lazy_flush_ms=5).start(definition)
    seen: set[str] = set()

    def fate(call: StepCall) -> Fate:
        if call.verb == ACTION and call.step not in seen:
            seen.add(call.step)
            world.engine.life.run(lambda: asyncio.get_running_loop().call_later(0.05, die))
        return Fate.ARRIVES

    def die() -> None:
        world.engine.kill()

    world.services.fate = fate
    request = world.send_order(definition=definition)
    await world.restarted_until(lambda: request.ended)
    assert request.ended is not None and request.ended["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_suspects_go_one_after_the_other_so_that_only_the_culprit_is_counted(
    world_folder: Path,
) -> None:
    world = await three_under_way(world_folder, suspect_wait_ms=500, recoveries_max=2)
    # Nobody makes progress in the second life either, so all three are suspects in the third.
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    await world.restart()
    await asyncio.sleep(0.2)
    poisoned(world, "2")
    await world.restarted_until(lambda: world.phase("order:2") is Phase.PARKED_RUNNING)
    await world.rests("order:1", "order:3")
    assert world.head("order:2").reason == "POISON"
    assert world.phase("order:1") is world.phase("order:3") is Phase.COMPLETED
    await world.finish()


@in_virtual_time
async def test_a_saga_that_breaks_the_engine_when_it_is_taken_up_is_parked_at_once(
    world_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would else break each host before that could count anything, and nobody would run."""
    world = await three_under_way(world_folder)
    decide = host_module.decide

    def broken(saga: Any, given: Any, now_ms: int) -> Any:
        if saga.saga_id == "order:2" and isinstance(given, HostRestarted):
            raise ZeroDivisionError("a bug of ours")
        return decide(saga, given, now_ms)

    monkeypatch.setattr(host_module, "decide", broken)
    await world.restart()
    await world.rests("order:1", "order:2", "order:3")
    assert world.phase("order:1") is world.phase("order:3") is Phase.COMPLETED
    head = world.head("order:2")
    assert (head.phase, head.reason) == (Phase.PARKED_RUNNING, "POISON")
    assert world.engine.fatal is None
    monkeypatch.undo()
    assert (await world.order("retry", "order:2")).ok == "accepted"
    await until(lambda: world.phase("order:2") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_a_saga_that_breaks_the_engine_on_its_way_stops_the_host_and_is_parked_in_the_end(
    world_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World(world_folder, recoveries_max=2, suspect_wait_ms=300).start()
    world.may_stop = True
    evolve = host_module.evolve

    def broken(saga: Any, event: Any) -> None:
        evolve(saga, event)
        if saga.saga_id == "order:2" and type(event).__name__ == "StepSucceeded":
            raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(host_module, "evolve", broken)
    requests = [world.send_order(str(i)) for i in range(4)]
    await world.restarted_until(lambda: all(request.ended for request in requests))
    assert [r.ended["phase"] for r in requests] == [  # type: ignore[index]
        "completed",
        "completed",
        "parked_running",
        "completed",
    ]
    assert world.head("order:2").reason == "POISON"
    await world.finish()
