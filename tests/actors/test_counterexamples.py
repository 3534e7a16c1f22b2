"""The histories of design section 6a that a host could break, each told once to its end.

The number in a test's name is the rule's. What participants alone must keep (5, 6)
is proved with them; restored journals (11) have a file of their own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.statemachines.calls import ACTION, COMPENSATION, RELEASE, Code, Outcome, StepReply
from raysaga.statemachines.definition import Durability, SagaDefinition, StepKind
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.retry import ACTION_RETRY
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StorageFullError
from raysaga.storage.journal import JournalIdentity
from raysaga.storage.lmdb_journal import LmdbJournal

from .recipes import chain_saga, pivot_saga, step, with_durability
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import JOURNAL, World

FULL = StorageFullError("journal", "no room")

EVERY_TRY = list(range(1, ACTION_RETRY.attempts_max + 1))


@in_virtual_time
async def test_1_a_definition_that_could_leave_no_end_is_refused_at_the_desk(
    world_folder: Path,
) -> None:
    """Two pivots on two branches, one done and one refused, leave no end to go to."""
    data = pivot_saga().to_data()
    data["steps"][3]["kind"] = StepKind.PIVOT.value
    world = await World(world_folder).start()
    request = world.caller.send("define", data)
    await until(lambda: request.is_answered)
    assert request.error == "DEFINITION_INVALID"
    assert len(world.journal.definitions()) == 1
    await world.finish()


@pytest.mark.parametrize("durability", Durability)
def test_2_nothing_without_an_undo_leaves_before_go_is_on_disk(
    world_folder: Path, durability: Durability
) -> None:
    """Else: mail is sent, the results are lost with the crash, the deadline undoes, the mail stays.

    6a.12: a relaxed saga waits for this, too.
    """

    @in_virtual_time
    async def story() -> None:
        definition = with_durability(pivot_saga(), durability)
        world = await World(world_folder).start(definition)
        world.services.fate = fates({("check", ACTION): [Fate.HELD, Fate.LOST]})
        await world.submit(definition=definition, watch=False)
        await until(lambda: world.services.held)
        await asyncio.sleep(0.3)
        world.engine.disk.gate.clear()
        world.services.let_go()
        await asyncio.sleep(0.9)
        assert world.services.actions("charge") == []
        world.crash()
        world.clock.wall_offset_ms += 3_600_000
        await world.restart()
        await world.rests("pivot:1")
        assert world.phase("pivot:1") is Phase.COMPENSATED
        assert world.services.actions("charge") == []
        await world.finish()

    story()


@pytest.mark.parametrize("is_held", [False, True])
def test_3_what_an_earlier_host_could_have_sent_is_undone_though_no_record_tells_of_it(
    world_folder: Path, is_held: bool
) -> None:
    """Only the acceptance is on disk; three steps were done, the fourth is still on its way."""

    @in_virtual_time
    async def story() -> None:
        definition = chain_saga("order", 5, deadline_ms=60_000)
        world = await World(world_folder, lazy_flush_ms=3_600_000).start(definition)
        fate = Fate.HELD if is_held else Fate.UNANSWERED
        world.services.fate = fates({("s3", ACTION): [fate]})
        await world.submit(definition=definition, watch=False)
        await until(lambda: world.services.actions("s3"))
        assert world.head("order:1").seq == 0
        world.crash()
        world.services.fate = fates({})
        world.clock.wall_offset_ms += 3_600_000
        # Whatever it sends first, its deadline has passed, and it turns back.
        world.services.script.refuses["s0"] = "the ledger knows better"
        await world.restart()
        await world.rests("order:1")
        assert world.phase("order:1") is Phase.COMPENSATED
        assert {call.step for call in world.services.undos()} == {"s0", "s1", "s2", "s3", "s4"}
        world.services.let_go()
        await asyncio.sleep(1.0)
        assert world.services.standing("order:1") == set()
        await world.finish()

    story()


@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.EXPIRED, Code.INTERNAL_ERROR, "NO"])
def test_4_only_an_answer_that_the_ledger_has_stored_is_a_refusal(
    world_folder: Path, code: str
) -> None:
    """Else a step that has happened would be left out of what is undone."""

    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder).start()

        def twist(reply: StepReply) -> StepReply:
            if reply.step != "process_payment" or reply.verb != ACTION:
                return reply
            return reply._replace(
                outcome=int(Outcome.REFUSED), code=str(code), stored=False, result=None
            )

        world.services.twist = twist
        outcome = await world.outcome(await world.submit())
        assert (outcome["phase"], outcome["code"]) == ("compensated", str(code))
        assert [c.attempt for c in world.services.actions("process_payment")] == EVERY_TRY
        assert world.services.undos("process_payment")
        assert world.services.standing("order:1") == set()
        await world.finish()

    story()


@in_virtual_time
async def test_4_a_tombstone_that_an_action_meets_turns_the_saga_back(world_folder: Path) -> None:
    """Somebody undid the step before it came: it never will be, so the saga cannot be done."""
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    call, _ = world.services.held[0]
    station = world.services.stations["payment"]
    undo = call._replace(verb=COMPENSATION, operation="refund", expires_at_ms=None)
    station.life.run(lambda: station._server.deliver([undo], lambda _reply: None))
    await asyncio.sleep(0.01)
    world.services.let_go()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", Code.CANCELLED_BEFORE_START)
    await world.finish()


@in_virtual_time
async def test_6_an_undo_that_a_provider_has_not_settled_is_asked_for_until_it_has(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["schedule_shipping"] = "NO"
    pending = 4

    def twist(reply: StepReply) -> StepReply:
        nonlocal pending
        if reply.step == "process_payment" and reply.verb == COMPENSATION and pending:
            pending -= 1
            return reply._replace(outcome=int(Outcome.UNKNOWN), code="PENDING", stored=False)
        return reply

    world.services.twist = twist
    assert (await world.outcome(await world.submit()))["phase"] == "compensated"
    assert len(world.services.undos("process_payment")) == 5
    # Nothing that comes before it was undone meanwhile.
    order = [c.step for c in world.services.undos()]
    assert order.index("reserve_inventory") == len(order) - 1
    await world.finish()


@in_virtual_time
async def test_7_from_go_on_a_cancel_is_too_late_and_the_deadline_is_nothing(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("charge", ACTION): [Fate.LOST] * 2})
    request = await world.submit(definition=definition, deadline_ms=1_500)
    await until(lambda: world.services.actions("charge"))
    for operation in ("cancel", "force"):
        assert (await world.order(operation, "pivot:1")).error == "CANCEL_TOO_LATE"
    outcome = await world.outcome(request)
    assert outcome["phase"] == "completed"
    assert world.clock.monotonic_ms() > 1_500
    assert world.services.undos() == []
    await world.finish()


@in_virtual_time
async def test_7_an_unknown_pivot_is_parked_facing_forward(world_folder: Path) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("charge", ACTION): Fate.UNANSWERED})
    outcome = await world.outcome(await world.submit(definition=definition))
    assert (outcome["phase"], outcome["code"]) == ("parked_forward", "PIVOT_UNKNOWN")
    assert "charge" in outcome["remaining"]
    await world.restart()
    assert world.phase("pivot:1") is Phase.PARKED_FORWARD
    world.services.fate = fates({})
    assert (await world.order("retry", "pivot:1")).ok == "accepted"
    await until(lambda: world.phase("pivot:1") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_7_a_stored_refusal_opens_the_way_back_even_after_a_takeover(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["charge"] = "DECLINED"
    world.services.fate = fates({("charge", ACTION): [Fate.UNANSWERED]})
    request = await world.submit(definition=definition)
    await until(lambda: world.services.actions("charge"))
    await world.restart()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "DECLINED")
    await world.finish()


@in_virtual_time
async def test_8_nobody_is_told_to_forget_before_the_end_is_on_disk(world_folder: Path) -> None:
    world = await World(world_folder, reconcile_ms=50).start()
    world.services.fate = fates({("send_notification", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(3.0)
    assert RELEASE not in {c.verb for _, c in world.services.calls}
    world.engine.disk.gate.set()
    await world.outcome(request)
    await until(lambda: RELEASE in {c.verb for _, c in world.services.calls})
    await world.finish()


@in_virtual_time
async def test_8_actions_carry_an_expiry_and_compensations_none(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["send_notification"] = "NO"
    await world.outcome(await world.submit())
    for call in world.services.actions():
        assert call.expires_at_ms is not None
        life_ms = call.expires_at_ms - world.clock.now_ms()
        assert 0 < life_ms <= world.settings.action_life_ms
    assert world.services.undos()
    assert {call.expires_at_ms for call in world.services.undos()} == {None}
    await world.finish()


@in_virtual_time
async def test_9_a_fresh_data_folder_is_neither_fenced_nor_answered_from_old_rows(
    world_folder: Path,
) -> None:
    """It begins again at epoch 1, with the same participants and the same keys of its callers."""
    world = await World(world_folder).start()
    for _ in range(3):
        await world.restart()
    await world.outcome(await world.submit())
    assert world.engine.host.epoch == 4
    world.crash()
    other = JournalIdentity(uuid="another-folder", shard=0, shard_count=1)
    world.scope = "another-folder/shard-0"  # type: ignore[assignment]
    world._journal = LmdbJournal.open(world.folder / "other", other, JOURNAL)
    world.services.script.refuses["process_payment"] = "DECLINED"
    await world.restart(beside=True)
    world.zombies.clear()
    assert world.engine.host.epoch == 1
    caller = world.call("another caller")
    request = caller.send("define", order_saga.to_data())
    await until(lambda: request.is_answered)
    again = world.send_order(caller=caller)
    # The old folder's payment was granted; this one is a call of its own, and is refused.
    assert (await world.outcome(again))["phase"] == "compensated"
    rows = {(row.key.journal_uuid, row.status.value) for row in _rows(world, "payment")}
    assert {status for uuid, status in rows if uuid != "another-folder"} == {"applied"}
    assert {status for uuid, status in rows if uuid == "another-folder"} == {"refused"}
    world.crash()
    world.services.close()


@in_virtual_time
async def test_10_a_void_batch_drops_births_and_keeps_the_rest_in_order(
    world_folder: Path,
) -> None:
    """A result, an acceptance and an end in one batch; the journal has no room for any."""
    world = await World(world_folder).start()
    world.services.fate = fates({("send_notification", ACTION): Fate.HELD})
    ending = [await world.submit(f"e{i}") for i in range(3)]
    await until(lambda: len(world.services.held) == 3)
    world.engine.disk.gate.clear()
    world.send_order("first")
    await asyncio.sleep(0.1)
    world.services.fate = fates({})
    world.services.let_go()
    births = [world.send_order(f"b{i}") for i in range(3)]
    await asyncio.sleep(0.1)
    tries = len(world.engine.disk.attempts)
    world.engine.disk.is_full = lambda _entries, reserve: None if reserve else FULL
    world.engine.disk.gate.set()
    for request in ending:
        assert (await world.outcome(request))["phase"] == "completed"
    await until(lambda: all(request.told for request in births))
    assert {request.error for request in births} == {"STORAGE_FULL"}
    from_reserve = [entries for entries, r in world.engine.disk.attempts[tries:] if r]
    assert all(entry.birth is None for entries in from_reserve for entry in entries)
    world.engine.disk.is_full = lambda _entries, _reserve: None
    for i in range(3):
        assert (await world.outcome(await world.submit(f"b{i}")))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_12_a_parked_saga_ignores_timers_and_never_turns_against_its_direction(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["ship"] = "NO"
    outcome = await world.outcome(await world.submit(definition=definition))
    assert outcome["phase"] == "parked_forward"
    world.clock.wall_offset_ms += 86_400_000
    await asyncio.sleep(60.0)
    await world.restart()
    await asyncio.sleep(60.0)
    assert world.phase("pivot:1") is Phase.PARKED_FORWARD
    assert (await world.order("force", "pivot:1")).error == "CANCEL_TOO_LATE"
    assert world.services.undos() == []
    assert (await world.order("skip", "pivot:1", "handed over in the shop")).ok == "accepted"
    await until(lambda: world.phase("pivot:1") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_12_a_refused_undo_is_not_stored_so_that_a_retry_is_a_retry(
    world_folder: Path,
) -> None:
    definition = chain_saga("order", 2)
    world = await World(world_folder).start(definition)
    world.services.script.refuses["s1"] = "NO"
    world.services.script.refuses_undo.add("s0")
    await world.outcome(await world.submit(definition=definition))
    for _ in range(3):
        assert (await world.order("retry", "order:1")).ok == "accepted"
        await until(lambda: world.phase("order:1") is Phase.PARKED_BACKWARD)
        await asyncio.sleep(0.2)
    world.services.script.refuses_undo.clear()
    assert (await world.order("retry", "order:1")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    assert world.services.standing("order:1") == set()
    await world.finish()


@in_virtual_time
async def test_12_a_relaxed_saga_waits_for_the_turn_before_it_undoes(world_folder: Path) -> None:
    definition = with_durability(chain_saga("order", 3), Durability.RELAXED)
    world = await World(world_folder).start(definition)
    world.engine.disk.gate.clear()
    world.services.script.refuses["s2"] = "NO"
    request = await world.submit(definition=definition)
    assert request.ok == "accepted"
    await asyncio.sleep(3.0)
    assert len(world.services.actions()) == 3
    assert world.services.undos() == []
    world.engine.disk.gate.set()
    assert (await world.outcome(request))["phase"] == "compensated"
    await world.finish()


@in_virtual_time
async def test_12_nothing_leaves_before_the_epoch_is_granted_on_disk(world_folder: Path) -> None:
    definition = with_durability(SagaDefinition(name="r", steps=(step("a"),)), Durability.RELAXED)
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("a", ACTION): [Fate.LOST]})
    request = await world.submit(definition=definition)
    await asyncio.sleep(0.5)
    before = len(world.services.calls)
    grant = type(world.journal).grant_epoch
    granted: list[int] = []

    def seen(journal, scope, owner, now_ms):  # type: ignore[no-untyped-def]
        assert len(world.services.calls) == before
        granted.append(grant(journal, scope, owner, now_ms))
        return granted[-1]

    type(world.journal).grant_epoch = seen  # type: ignore[method-assign]
    try:
        await world.restart()
    finally:
        type(world.journal).grant_epoch = grant  # type: ignore[method-assign]
    assert (await world.outcome(request))["phase"] == "completed"
    assert {c.epoch for _, c in world.services.calls[before:]} == set(granted)
    await world.finish()


def _rows(world: World, name: str) -> list:  # type: ignore[type-arg]
    return list(world.services.stations[name].ledger.rows())
