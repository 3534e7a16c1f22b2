"""The order saga and its relatives through the real host: every way a story can go."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.statemachines.calls import ACTION, COMPENSATION, Code, Outcome
from raysaga.statemachines.definition import SagaDefinition, StepKind
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.retry import ACTION_RETRY
from raysaga.statemachines.tables import TERMINAL, Phase

from .recipes import chain_saga, diamond_saga, pivot_saga, step
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until, virtual_loop
from .world import World

STEPS = [step.name for step in order_saga.steps]

EVERY_TRY = list(range(1, ACTION_RETRY.attempts_max + 1))


def effects(world: World) -> list[str]:
    """Return what was granted first, in order: `+step` and `-step`."""
    signs = {ACTION: "+", COMPENSATION: "-"}
    granted = [
        signs[said.call.verb] + said.call.step
        for said in world.services.said
        if said.call.verb in signs and said.reply.outcome == Outcome.SUCCEEDED
    ]
    return list(dict.fromkeys(granted))


@in_virtual_time
async def test_an_order_is_reserved_paid_shipped_and_notified_with_two_flushes(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    request = await world.submit()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"], outcome["remaining"]) == ("completed", "", [])
    assert outcome["results"] == {name: {"made": name} for name in STEPS}
    assert effects(world) == [f"+{name}" for name in STEPS]
    assert len(world.engine.disk.commits) == 2
    await world.finish()


@pytest.mark.parametrize("k", range(4))
def test_an_order_refused_at_a_step_is_undone_from_that_step_on_in_reverse(
    world_folder: Path, k: int
) -> None:
    """P4: the undo begins with the step that failed, though it is a cheap no-op there."""

    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder).start()
        world.services.script.refuses[STEPS[k]] = "OUT_OF_IT"
        outcome = await world.outcome(await world.submit())
        assert (outcome["phase"], outcome["code"]) == ("compensated", "OUT_OF_IT")
        assert outcome["step"] == STEPS[k]
        assert outcome["message"] == "the test says no"
        before = STEPS[:k]
        undone = [f"-{name}" for name in [*reversed(before)]]
        assert effects(world) == [f"+{n}" for n in before] + [f"-{STEPS[k]}", *undone]
        assert len(world.engine.disk.commits) == 3
        await world.finish()

    story()


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNANSWERED, Fate.HELD])
@pytest.mark.parametrize("k", range(4))
def test_a_step_that_never_answers_is_retried_then_undone_as_if_it_had_happened(
    world_folder: Path, k: int, fate: Fate
) -> None:
    """Unknown is the third outcome. Whether it had happened, the ledger knows, not the host."""

    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder).start()
        world.services.fate = fates({(STEPS[k], ACTION): fate})
        outcome = await world.outcome(await world.submit())
        assert (outcome["phase"], outcome["code"]) == ("compensated", Code.TIMEOUT)
        calls = world.services.actions(STEPS[k])
        assert [call.attempt for call in calls] == EVERY_TRY
        assert len({(c.journal_uuid, c.saga_id, c.step) for c in calls}) == 1
        # Late, when everything is undone, what was held arrives; it must not take effect.
        world.services.let_go()
        await asyncio.sleep(1.0)
        assert world.services.standing("order:1") == set()
        await world.finish()

    story()


@pytest.mark.parametrize("k", range(4))
def test_a_lost_reply_is_asked_for_again_and_given_from_the_ledger(
    world_folder: Path, k: int
) -> None:
    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder).start()
        world.services.fate = fates({(STEPS[k], ACTION): [Fate.UNANSWERED, Fate.UNANSWERED]})
        assert (await world.outcome(await world.submit()))["phase"] == "completed"
        assert len(world.services.actions(STEPS[k])) == 3
        assert effects(world) == [f"+{name}" for name in STEPS]
        await world.finish()

    story()


@pytest.mark.parametrize("is_refused", [False, True])
def test_each_call_twice_is_one_effect(world_folder: Path, is_refused: bool) -> None:
    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder).start()
        world.services.fate = lambda _call: Fate.TWICE
        if is_refused:
            world.services.script.refuses["send_notification"] = "NO"
        outcome = await world.outcome(await world.submit())
        assert outcome["phase"] == ("compensated" if is_refused else "completed")
        await asyncio.sleep(2.0)
        forward = [f"+{name}" for name in (STEPS[:3] if is_refused else STEPS)]
        back = [f"-{name}" for name in reversed(STEPS)] if is_refused else []
        assert effects(world) == forward + back
        await world.finish()

    story()


@in_virtual_time
async def test_a_compensation_that_overtakes_its_action_leaves_a_tombstone(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.HELD})
    request = await world.submit()
    await until(lambda: world.services.held)
    assert (await world.order("cancel", "order:1")).ok == "accepted"
    # Its action is still waited for, and undone only when nobody answers any more.
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "CANCELLED")
    world.services.let_go()
    await asyncio.sleep(1.0)
    late = [s.reply for s in world.services.said if s.call.step == "process_payment"][-1]
    assert late.code == Code.CANCELLED_BEFORE_START
    assert world.services.standing("order:1") == set()
    await world.finish()


async def cancelled_at(folder: Path, at: int, operation: str) -> tuple[int, str, str | None]:
    """Cancel at moment number `at`; return the number of moments, the end, the answer."""
    world = await World(folder).start()
    world.moments.clear()
    request = world.send_order()
    order = None

    def now() -> bool:
        nonlocal order
        if order is None and len(world.moments) > at and world.journal.head("order:1"):  # type: ignore[arg-type]
            order = world.caller.send(operation, {"saga_id": "order:1", "by": "me"})
        return request.ended is not None and (order is None or order.is_answered)

    loop = asyncio.get_running_loop()
    while not now():
        assert loop.time() < 100
        await asyncio.sleep(0.0003)
    moments = len(world.moments)
    if order is None:
        order = await world.order(operation, "order:1")
    told = order.ok or order.error
    end = world.phase("order:1").value
    await world.finish()
    return moments, end, told


@pytest.mark.parametrize("operation", ["cancel", "force"])
def test_a_cancel_at_any_moment_is_granted_and_kept_or_too_late(
    world_folder: Path, operation: str
) -> None:
    """I9: exactly one of the two wins, and the caller is told which."""
    seen = set()
    for at in range(25):
        with virtual_loop() as loop:
            moments, end, told = loop.run(cancelled_at(world_folder / str(at), at, operation))
        seen.add((end, told))
        assert (end, told) in {
            ("compensated", "accepted"),
            ("compensated", "already"),
            ("completed", "CANCEL_TOO_LATE"),
        }
        if at > moments:
            break
    assert seen >= {("compensated", "accepted"), ("completed", "CANCEL_TOO_LATE")}


@in_virtual_time
async def test_cancel_is_answered_only_when_the_turn_is_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.HELD})
    await world.submit()
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    cancel = world.caller.send("cancel", {"saga_id": "order:1", "by": "me"})
    again = world.caller.send("cancel", {"saga_id": "order:1", "by": "me"})
    await asyncio.sleep(3.0)
    assert (cancel.told, again.told, world.services.undos()) == ([], [], [])
    world.engine.disk.gate.set()
    await world.rests("order:1")
    assert (cancel.ok, again.ok) == ("accepted", "already")
    assert world.phase("order:1") is Phase.COMPENSATED
    await world.finish()


@in_virtual_time
async def test_no_compensation_leaves_before_the_turn_is_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["schedule_shipping"] = "NO"
    world.services.fate = fates({("schedule_shipping", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    world.engine.disk.gate.clear()
    world.services.let_go()
    await asyncio.sleep(3.0)
    assert world.services.undos() == []
    world.engine.disk.gate.set()
    assert (await world.outcome(request))["phase"] == "compensated"
    await world.finish()


@in_virtual_time
async def test_a_deadline_turns_a_saga_back_wherever_it_is(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    request = await world.submit(deadline_ms=2_000)
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "DEADLINE_EXCEEDED")
    in_time = await world.submit("2", deadline_ms=None)
    assert in_time.ok == "accepted"
    assert (await world.ask("status", "order:2")).ok["deadline_at_ms"] > world.clock.now_ms()
    assert (await world.outcome(in_time))["code"] == "TIMEOUT"
    await world.finish()


@in_virtual_time
async def test_compensations_take_no_notice_of_the_deadline(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["process_payment"] = "NO"
    world.services.script.later = {"reserve_inventory": 1}
    world.services.fate = fates({("reserve_inventory", COMPENSATION): [Fate.LOST] * 6})
    request = await world.submit(deadline_ms=5_000)
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "NO")
    assert world.clock.monotonic_ms() > 25_000
    await world.finish()


@in_virtual_time
async def test_a_compensation_that_gives_up_parks_and_retry_finishes_it(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start(chain_saga("order", 3))
    definition = chain_saga("order", 3)
    world.services.script.refuses["s2"] = "NO"
    world.services.fate = fates({("s1", COMPENSATION): Fate.LOST})
    request = await world.submit(definition=definition)
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("parked_backward", "COMPENSATION_STUCK")
    assert (outcome["step"], outcome["remaining"]) == ("s1", ["s0", "s1"])
    assert world.services.standing("order:1") == {"s0", "s1"}
    # Timers are nothing to a parked saga, and it stays out of memory.
    await asyncio.sleep(600.0)
    assert world.engine.host.sagas == {}
    for operation in ("cancel", "force"):
        assert (await world.order(operation, "order:1")).ok == "already"
    assert world.phase("order:1") is Phase.PARKED_BACKWARD
    world.services.fate = fates({})
    assert (await world.order("retry", "order:1")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    assert (await world.order("retry", "order:1")).error == "ORDER_REFUSED"
    await world.finish()


@in_virtual_time
async def test_a_skip_names_what_remains_and_goes_on(world_folder: Path) -> None:
    definition = chain_saga("order", 3)
    world = await World(world_folder).start(definition)
    world.services.script.refuses["s2"] = "NO"
    world.services.script.refuses_undo.add("s1")
    await world.outcome(await world.submit(definition=definition))
    assert (await world.order("skip", "order:1")).error == "VALIDATION"
    watch_before = world.caller.send("watch", {"saga_id": "order:1"})
    assert (await world.order("skip", "order:1", "refunded by hand")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    watch = await world.ask("watch", "order:1")
    outcome = await world.outcome(watch)
    assert outcome["remaining"] == ["s1"]
    assert world.services.standing("order:1") == {"s1"}
    history = (await world.ask("history", "order:1")).ok
    skipped = next(row for row in history if row["event"] == "step_skipped")
    assert (skipped["by"], skipped["note"]) == ("op", "refunded by hand")
    assert watch_before.ended["phase"] == "parked_backward"  # type: ignore[index]
    await world.finish()


@in_virtual_time
async def test_an_order_is_on_disk_before_it_is_answered_or_acts(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.script.refuses["process_payment"] = "NO"
    world.services.script.refuses_undo.add("reserve_inventory")
    await world.outcome(await world.submit())
    world.services.script.refuses_undo.clear()
    undos = len(world.services.undos())
    world.engine.disk.gate.clear()
    body = {"saga_id": "order:1", "by": "op", "note": "again"}
    order = world.caller.send("retry", body)
    await asyncio.sleep(3.0)
    assert (order.told, len(world.services.undos())) == ([], undos)
    world.engine.disk.gate.set()
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    await world.finish()


@in_virtual_time
async def test_branches_go_side_by_side_and_back_in_reverse(world_folder: Path) -> None:
    definition = diamond_saga()
    world = await World(world_folder).start(definition)
    outcome = await world.outcome(await world.submit(definition=definition))
    assert outcome["phase"] == "completed"
    # A result that a later step uses is on disk before that leaves: one more flush.
    assert len(world.engine.disk.commits) == 3
    world.services.script.refuses["last"] = "NO"
    assert (await world.outcome(await world.submit("2", definition)))["phase"] == "compensated"
    undone = [e for e in effects(world) if e.startswith("-")]
    assert undone[0] == "-last"
    assert set(undone[1:3]) == {"-left", "-right"}
    assert undone[3:] == ["-first"]
    await world.finish()


@in_virtual_time
async def test_a_branch_that_is_under_way_is_heard_out_before_anything_is_undone(
    world_folder: Path,
) -> None:
    definition = diamond_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["left"] = "NO"
    world.services.fate = fates({("right", ACTION): [Fate.HELD]})
    request = await world.submit(definition=definition)
    await asyncio.sleep(0.5)
    assert world.services.undos() == []
    world.services.let_go()
    assert (await world.outcome(request))["phase"] == "compensated"
    assert "-right" in effects(world)
    await world.finish()


@in_virtual_time
async def test_a_refused_pivot_undoes_what_was_done_and_starts_nothing_after_it(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.script.refuses["charge"] = "DECLINED"
    outcome = await world.outcome(await world.submit(definition=definition))
    assert (outcome["phase"], outcome["code"]) == ("compensated", "DECLINED")
    assert effects(world) == ["+reserve", "+check", "-check", "-reserve"]
    await world.finish()


@in_virtual_time
async def test_a_definition_with_a_pivot_needs_three_flushes(world_folder: Path) -> None:
    steps = (
        step("reserve"),
        step("charge", kind=StepKind.PIVOT),
        step("ship", kind=StepKind.RETRIABLE),
    )
    definition = SagaDefinition(name="three", steps=steps)
    world = await World(world_folder).start(definition)
    assert (await world.outcome(await world.submit(definition=definition)))["phase"] == "completed"
    assert len(world.engine.disk.commits) == 3
    await world.finish()


@in_virtual_time
async def test_a_best_effort_step_that_fails_is_left_out_and_named(world_folder: Path) -> None:
    definition = pivot_saga(best_effort=True)
    world = await World(world_folder).start(definition)
    world.services.script.refuses["tell"] = "NO_ADDRESS"
    outcome = await world.outcome(await world.submit(definition=definition))
    assert (outcome["phase"], outcome["remaining"]) == ("completed", ["tell"])
    world.services.script.refuses.clear()
    world.services.fate = fates({("tell", ACTION): Fate.UNANSWERED})
    outcome = await world.outcome(await world.submit("2", definition))
    assert (outcome["phase"], outcome["remaining"]) == ("completed", ["tell"])
    await world.finish()


@in_virtual_time
async def test_beyond_the_pivot_a_step_is_tried_for_as_long_as_its_policy_says_then_parked(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("ship", ACTION): Fate.LOST})
    outcome = await world.outcome(await world.submit(definition=definition))
    assert (outcome["phase"], outcome["code"]) == ("parked_forward", "STEP_STUCK")
    for operation in ("cancel", "force"):
        assert (await world.order(operation, "pivot:1")).error == "CANCEL_TOO_LATE"
    world.services.fate = fates({})
    assert (await world.order("retry", "pivot:1")).ok == "accepted"
    await until(lambda: world.phase("pivot:1") is Phase.COMPLETED)
    await world.finish()


@in_virtual_time
async def test_a_host_that_stops_in_good_order_loses_nothing_and_the_next_goes_on(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("schedule_shipping", ACTION): [Fate.LOST]})
    request = await world.submit()
    await asyncio.sleep(0.02)
    await world.engine.stop()
    heads = world.journal.head("order:1")  # type: ignore[arg-type]
    assert heads is not None and heads.seq == 1
    assert world.phase("order:1") not in TERMINAL
    await world.restart()
    assert (await world.outcome(request))["phase"] == "completed"
    assert effects(world) == [f"+{name}" for name in STEPS]
    await world.finish()
