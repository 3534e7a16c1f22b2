"""The desk: who asks is answered once, the truth, and nothing before it is on disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raysaga.statemachines.calls import ACTION
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StorageFailedError, StorageFullError

from .recipes import chain_saga, with_durability
from .toy_services import Fate, fates, is_step
from .virtual_time import in_virtual_time, turns, until
from .world import World

FULL = StorageFullError("journal", "no room")


@in_virtual_time
async def test_nobody_is_told_of_an_acceptance_that_is_not_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.engine.disk.gate.clear()
    request = world.send_order()
    again = world.send_order()
    status = world.caller.send("status", {"saga_id": "order:1"})
    await asyncio.sleep(5.0)
    assert (request.told, again.told) == ([], [])
    assert status.error == "NOT_FOUND"
    assert world.services.calls == []
    world.engine.disk.gate.set()
    await world.outcome(again)
    assert (request.ok, again.ok) == ("accepted", "already")
    await world.finish()


@in_virtual_time
async def test_one_key_is_one_saga_however_often_it_is_submitted(world_folder: Path) -> None:
    """A hundred at once from three callers, before, during and after."""
    world = await World(world_folder).start()
    callers = [world.caller, world.call("second"), world.call("third")]
    requests = [world.send_order(caller=callers[i % 3]) for i in range(100)]
    await asyncio.sleep(0.004)
    requests += [world.send_order(caller=callers[i % 3]) for i in range(20)]
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    late = await world.submit()
    assert late.ok == "already"
    assert (await world.outcome(late))["phase"] == "completed"
    assert [request.ok for request in requests] == ["accepted", *["already"] * 119]
    assert len(world.services.actions()) == 4
    assert world.engine.desk.accepted_count == 1
    await world.finish()


@in_virtual_time
async def test_the_same_key_with_another_body_is_a_conflict_at_any_time(world_folder: Path) -> None:
    world = await World(world_folder).start()
    first = await world.submit()
    during = await world.submit(fingerprint="other")
    await world.outcome(first)
    after = await world.submit(fingerprint="other")
    await world.restart()
    recovered = await world.submit(fingerprint="other")
    for request in (during, after, recovered):
        assert request.error == "IDEMPOTENCY_CONFLICT"
    await world.finish()


@in_virtual_time
async def test_a_conflict_with_a_saga_that_is_not_on_disk_yet_waits_for_the_disk(
    world_folder: Path,
) -> None:
    """If the birth is dropped, the key is free, and nothing conflicts with anything."""
    world = await World(world_folder).start()
    world.engine.disk.gate.clear()
    first = world.send_order()
    other = world.send_order(fingerprint="other")
    await asyncio.sleep(1.0)
    assert other.told == []
    world.engine.disk.faults = [FULL]
    world.engine.disk.gate.set()
    await until(lambda: first.told and other.told)
    assert (first.error, other.error) == ("STORAGE_FULL", "STORAGE_FULL")
    world.engine.disk.gate.clear()
    first = world.send_order()
    other = world.send_order(fingerprint="other")
    await asyncio.sleep(0.1)
    world.engine.disk.gate.set()
    await until(lambda: first.ended and other.told)
    assert (first.ok, other.error) == ("accepted", "IDEMPOTENCY_CONFLICT")
    await world.finish()


@in_virtual_time
async def test_an_order_to_a_saga_that_is_not_on_disk_yet_finds_none(world_folder: Path) -> None:
    """Nobody was told that it exists; were its birth dropped, nobody could be answered."""
    world = await World(world_folder).start()
    world.engine.disk.gate.clear()
    request = world.send_order()
    await asyncio.sleep(0.1)
    cancel = await world.order("cancel", "order:1")
    watch = await world.ask("watch", "order:1")
    assert (cancel.error, watch.error) == ("NOT_FOUND", "NOT_FOUND")
    world.engine.disk.faults = [FULL]
    world.engine.disk.gate.set()
    await until(lambda: request.told)
    assert request.error == "STORAGE_FULL"
    assert world.engine.host.sagas == {}
    await world.finish()


@in_virtual_time
async def test_a_full_journal_is_answered_and_once_there_is_room_all_is_well(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.HELD})
    under_way = await world.submit("old")
    await until(lambda: world.services.held)
    world.engine.disk.is_full = lambda _entries, reserve: None if reserve else FULL
    refused = [await world.submit(str(i)) for i in range(5)]
    assert {request.error for request in refused} == {"STORAGE_FULL"}
    world.services.let_go()
    # What was begun is finished from the head-room.
    assert (await world.outcome(under_way))["phase"] == "completed"
    world.services.fate = fates({})
    world.engine.disk.is_full = lambda _entries, _reserve: None
    again = await world.submit("0")
    assert (await world.outcome(again))["phase"] == "completed"
    assert (await world.ask("status", "order:1")).error == "NOT_FOUND"
    assert world.engine.desk.full_count == 5
    await world.finish()


@in_virtual_time
async def test_a_saga_is_undone_on_a_full_journal_too(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("schedule_shipping", ACTION): Fate.HELD})
    request = await world.submit()
    await until(lambda: world.services.held)
    world.engine.disk.is_full = lambda _entries, reserve: None if reserve else FULL
    cancel = world.caller.send("cancel", {"saga_id": "order:1", "by": "me"})
    await asyncio.sleep(0.1)
    world.services.let_go()
    assert (await world.outcome(request))["phase"] == "compensated"
    assert cancel.ok == "accepted"
    await world.finish()


@in_virtual_time
async def test_beyond_the_bound_a_submission_is_turned_away_at_once(world_folder: Path) -> None:
    world = await World(world_folder, sagas_in_flight_max=3).start()
    world.services.fate = fates({("reserve_inventory", ACTION): Fate.HELD})
    taken = [await world.submit(str(i)) for i in range(3)]
    beyond = await world.submit("3")
    assert beyond.error == "OVERLOADED"
    # A repeat of what was taken is no new load.
    assert (await world.submit("0")).ok == "already"
    world.services.fate = fates({})
    world.services.let_go()
    for request in taken:
        await world.outcome(request)
    assert (await world.submit("3")).ok == "accepted"
    await world.finish()


@in_virtual_time
async def test_admission_is_bounded_by_what_waits_for_the_disk_as_well(world_folder: Path) -> None:
    world = await World(world_folder, inputs_queued_max=5).start()
    world.engine.disk.gate.clear()
    requests = []
    for i in range(20):
        requests.append(world.send_order(str(i)))
        await asyncio.sleep(0.01)
    refused = [request for request in requests if request.told]
    assert {request.error for request in refused} == {"OVERLOADED"}
    assert 10 <= len(refused) <= 15
    world.engine.disk.gate.set()
    for request in requests:
        if request not in refused:
            await world.outcome(request)
    await world.finish()


@in_virtual_time
async def test_who_watches_is_told_only_when_the_end_is_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("send_notification", ACTION): Fate.HELD})
    request = await world.submit()
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(2.0)
    assert request.ended is None
    world.engine.disk.gate.set()
    assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_who_begins_to_watch_while_the_end_is_being_written_is_told_too(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("send_notification", ACTION): Fate.HELD})
    await world.submit(watch=False)
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(1.0)
    watch = world.caller.send("watch", {"saga_id": "order:1"})
    again = world.send_order()
    await asyncio.sleep(1.0)
    assert (watch.ended, again.ended) == (None, None)
    world.engine.disk.gate.set()
    assert (await world.outcome(watch, within_s=10))["phase"] == "completed"
    assert (await world.outcome(again, within_s=10))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_an_end_that_is_not_on_disk_is_no_answer_to_a_question(world_folder: Path) -> None:
    """P7: after a crash it could still become another one."""
    world = await World(world_folder).start()
    world.services.fate = fates({("send_notification", ACTION): Fate.HELD})
    await world.submit(watch=False)
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(1.0)
    status = await world.ask("status", "order:1")
    assert status.ok["phase"] == "running"
    history = await world.ask("history", "order:1")
    assert "saga_completed" not in [row["event"] for row in history.ok]
    # It dies, the deadline passes, and the saga ends the other way.
    world.crash()
    world.clock.wall_offset_ms = 3_600_000
    await world.restart()
    await world.rests("order:1")
    assert world.phase("order:1") is Phase.COMPENSATED
    await world.finish()


@in_virtual_time
async def test_a_relaxed_saga_tells_no_end_before_it_is_on_disk_either(world_folder: Path) -> None:
    """It may be lost whole, which is P1; but an end that was told stands, which is P7."""
    relaxed = with_durability(chain_saga("order", 3, deadline_ms=600_000), Durability.RELAXED)
    world = await World(world_folder).start(relaxed)
    world.services.fate = fates({("s2", ACTION): Fate.HELD})
    request = await world.submit(definition=relaxed)
    await until(lambda: world.services.held)
    await asyncio.sleep(1.0)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(1.0)
    assert request.ended is None
    status = await world.ask("status", "order:1")
    assert status.ok["phase"] == "running"
    world.crash()
    world.clock.wall_offset_ms = 3_600_000
    await world.restart()
    assert (await world.outcome(request))["phase"] == "compensated"
    await world.finish()


@in_virtual_time
async def test_a_relaxed_saga_that_has_just_ended_is_found(world_folder: Path) -> None:
    """Though the disk does not know it yet."""
    relaxed = with_durability(chain_saga("order", 2), Durability.RELAXED)
    world = await World(world_folder).start(relaxed)
    world.engine.disk.gate.clear()
    request = await world.submit(definition=relaxed, watch=False)
    assert request.ok == "accepted"
    await until(lambda: len(world.services.said) == 2)
    watch = world.caller.send("watch", {"saga_id": "order:1"})
    status = await world.ask("status", "order:1")
    assert status.error in (None, "NOT_FOUND")
    await asyncio.sleep(0.5)
    world.engine.disk.gate.set()
    assert (await world.outcome(watch, within_s=10))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_saga_that_was_pruned_still_answers_a_repeat_of_its_submission(
    world_folder: Path,
) -> None:
    """6a.8: the key outlives the records."""
    world = await World(world_folder, retention_ms=0, reconcile_ms=100).start()
    world.services.script.refuses["process_payment"] = "DECLINED"
    await world.outcome(await world.submit())
    await until(lambda: world.journal.head("order:1") is None, within_s=300)
    again = await world.submit()
    assert again.ok == "already"
    outcome = await world.outcome(again, within_s=5)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "DECLINED")
    assert again.error is None
    watch = await world.ask("watch", "order:1")
    assert (await world.outcome(watch, within_s=5))["phase"] == "compensated"
    assert (await world.submit(fingerprint="other")).error == "IDEMPOTENCY_CONFLICT"
    late = await world.order("cancel", "order:1")
    assert late.ok == "already"
    assert len(world.services.actions()) == 2
    await world.finish()


@in_virtual_time
async def test_an_outcome_too_large_for_a_message_stops_nobody(world_folder: Path) -> None:
    """Forty results of 50 KiB are more than a message may be; the end is told without them."""
    wide = chain_saga("wide", 40)
    world = await World(world_folder).start(wide)
    for step in wide.steps:
        world.services.script.results[step.name] = {"text": "x" * 50_000}
    request = await world.submit(definition=wide)
    bystander = await world.submit("2", definition=wide)
    assert (await world.outcome(request))["phase"] == "completed"
    assert (await world.outcome(bystander))["phase"] == "completed"
    status = await world.ask("status", "wide:1")
    assert status.told
    assert world.engine.fatal is None
    await world.finish()


@in_virtual_time
async def test_a_definition_that_may_or_may_not_be_on_disk_stops_the_host(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.may_stop = True

    def fail(*_args: object) -> None:
        raise StorageFailedError("journal", "EIO")

    world.engine.disk.put_definition = fail  # type: ignore[attr-defined]
    request = world.caller.send("define", chain_saga("new", 1).to_data())
    await until(lambda: world.engine.fatal)
    assert request.told == []
    assert isinstance(world.engine.fatal, StorageFailedError)
    world.close()


@in_virtual_time
async def test_requests_that_make_no_sense_are_refused_and_harm_nobody(world_folder: Path) -> None:
    world = await World(world_folder).start()
    senseless: list[tuple[str, object]] = [
        ("dance", {}),
        ("submit", []),
        ("submit", {"a": 1}),
        ("watch", {}),
        ("cancel", {"saga_id": "order:1"}),
        ("status", None),
        ("list", {"phases": ["flying"]}),
        ("define", {"name": "x"}),
        ("define", 7),
        ("skip", {"saga_id": "order:1", "by": "op"}),
    ]
    requests = [world.caller.send(operation, body) for operation, body in senseless]
    await until(lambda: all(request.is_answered for request in requests))
    for request in requests:
        assert request.error in ("VALIDATION", "DEFINITION_INVALID"), request.told
    assert (await world.ask("status", "order:none")).error == "NOT_FOUND"
    assert (await world.order("cancel", "order:none")).error == "NOT_FOUND"
    assert (await world.submit(definition=chain_saga("unknown", 1))).error == "DEFINITION_INVALID"
    assert (await world.outcome(await world.submit()))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_an_input_too_deep_to_be_kept_is_refused_before_the_saga_exists(
    world_folder: Path,
) -> None:
    deep: object = 1
    for _ in range(40):
        deep = {"down": deep}
    world = await World(world_folder).start()
    request = await world.submit(body={"deep": deep})
    assert request.error == "VALIDATION"
    assert (await world.submit()).ok == "accepted"
    await world.finish()


@in_virtual_time
async def test_a_lost_answer_is_asked_for_again_and_changes_nothing(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.lose_answers["desk"] = 3
    requests = [world.send_order(str(i)) for i in range(10)]
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    assert world.caller.failures == 3
    assert len(world.services.actions()) == 40
    await world.finish()


@in_virtual_time
async def test_a_watcher_of_a_parked_saga_is_told_why(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["process_payment"] = "DECLINED"
    world.services.script.refuses_undo.add("reserve_inventory")
    request = await world.submit()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("parked_backward", "COMPENSATION_REFUSED")
    assert outcome["remaining"] == ["reserve_inventory"]
    watch = await world.ask("watch", "order:1")
    assert dict(watch.ended or {}) == dict(outcome)
    await turns()
    assert world.engine.host.sagas == {}
    assert world.services.actions("process_payment")
    assert is_step("reserve_inventory")(world.services.undos()[-1])
    await world.finish()
