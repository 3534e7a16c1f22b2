"""Rule 12 and what operators can do: a parked saga always has a way on, and only theirs."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import Code, LedgerStatus, Outcome
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import CompensationPolicy
from raysaga.statemachines.events import (
    SagaCompensated,
    SagaParked,
    SagaResumed,
    StepSkipped,
)
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    HostRestarted,
    RetryOrdered,
    SkipOrdered,
    TimeReached,
)
from raysaga.statemachines.tables import Phase, StepStatus

from .model_ledger import Reply, unknown
from .shapes import ONCE, final, mail_of, order_of, pivot_of, saga_of, undoable
from .world import World

CANCEL = CancelRequested("somebody", "")
FORCE = CompensationForced("operator", "")
RETRY = RetryOrdered("operator", "")
SKIP = SkipOrdered("operator", "done by hand")


def fail_for_good(world: World, name: str, *, undo: bool = False) -> None:
    """Let every attempt of a call come to nothing, until its policy gives up."""
    i = world.definition.index[name]
    step = world.definition.steps[i]
    attempts = (step.compensation_retry if undo else step.action_retry).attempts_max
    for attempt in range(attempts):
        if attempt:
            world.now_ms = max(world.now_ms, world.saga.steps[i].retry_at_ms)
            world.give(TimeReached())
        world.time_out(world.call(name, undo=undo))


def stuck_on_the_way_back(**more: object) -> World:
    """Return an order whose payment could not be refunded, with inventory still reserved."""
    world = World(order_of(**more))
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.reply(world.call("ship"), refuse=True)
    world.reply(world.call("ship", undo=True))
    fail_for_good(world, "pay", undo=True)
    return world


def poisoned(world: World) -> World:
    """Let the host stop again and again, until the saga is taken for the cause."""
    world.recoveries_max = 0
    world.crash()
    world.restart()
    world.recoveries_max = 100
    return world


# -- parked ---------------------------------------------------------------------


def test_an_undo_that_gives_up_parks_the_saga_with_its_exact_net_effect() -> None:
    world = stuck_on_the_way_back()
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert (parked.code, parked.step, parked.net_effect) == ("COMPENSATION_STUCK", 1, (0, 1))
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.standing() == {"reserve", "pay"}


def test_an_undo_that_is_refused_parks_at_once() -> None:
    """Only successful undos are stored, so another try by an operator is a try."""
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"))
    world.reply(world.call("pay", undo=True), refuse=True)
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert parked.code == "COMPENSATION_REFUSED"
    assert world.ledgers.rows[1].status is LedgerStatus.APPLIED
    world.give(RETRY)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


@pytest.mark.parametrize("park", ["back", "forward", "poison"])
def test_a_parked_saga_ignores_timers(park: str) -> None:
    if park == "back":
        world = stuck_on_the_way_back(deadline_ms=50)
    elif park == "forward":
        world = World(pivot_of(deadline_ms=50))
        world.submit()
        world.reply(world.call("reserve"))
        fail_for_good(world, "pay")
    else:
        world = World(order_of(deadline_ms=50))
        world.submit()
        poisoned(world)
    assert world.saga.is_parked
    assert world.saga.due_at_ms() is None
    world.now_ms += 10_000
    assert not world.give(TimeReached()).events


def test_a_new_host_leaves_a_parked_saga_parked() -> None:
    world = stuck_on_the_way_back()
    world.crash()
    world.restart()
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.waited_for() == []


def test_nobody_sends_a_saga_on_that_is_not_parked() -> None:
    world = World(order_of())
    world.submit()
    for order in (RETRY, SKIP):
        decision = world.give(order)
        assert (decision.events, decision.answer) == ((), Answer.NOT_PARKED)


def test_an_operators_order_is_on_disk_with_the_name_before_its_effect() -> None:
    world = stuck_on_the_way_back()
    world.crash_at_barrier = 0
    world.give(RETRY)
    assert not [call for call in world.network if call.undo and call.step == 1][2:]
    world.restart()
    world.give(RETRY)
    resumed = next(event for event in world.journal if isinstance(event, SagaResumed))
    assert resumed.by == "operator"


# -- never against the direction ---------------------------------------------------


def test_what_faces_backward_goes_backward() -> None:
    world = stuck_on_the_way_back()
    for order in (CANCEL, FORCE):
        assert world.give(order).answer is Answer.ALREADY
    world.give(RETRY)
    assert world.saga.phase is Phase.COMPENSATING
    assert world.waited_for() == ["-pay"]
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_what_faces_forward_only_is_not_forced_back() -> None:
    world = World(mail_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    fail_for_good(world, "mail")
    assert world.saga.parked is not None
    assert world.saga.parked.code == "STEP_STUCK"
    for order in (CANCEL, FORCE):
        assert world.give(order).answer is Answer.CANCEL_TOO_LATE
    world.give(RETRY)
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


@pytest.mark.parametrize("order", [CANCEL, FORCE])
def test_what_may_still_turn_back_can_be_turned_back_while_parked(
    order: CancelRequested | CompensationForced,
) -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.flush()
    poisoned(world)
    assert world.saga.phase is Phase.PARKED_RUNNING
    assert world.give(order).answer is Answer.ACCEPTED
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


# -- skipping ------------------------------------------------------------------------


def test_a_saga_that_ends_by_a_skip_lists_the_effect_that_remains() -> None:
    world = stuck_on_the_way_back()
    assert world.give(SKIP).answer is Answer.ACCEPTED
    assert world.waited_for() == ["-reserve"]
    world.heal()
    ended = world.journal[-1]
    assert isinstance(ended, SagaCompensated)
    assert ended.remaining == (1,)
    assert world.standing() == {"pay"}
    skip = next(event for event in world.journal if isinstance(event, StepSkipped))
    assert (skip.by, skip.note, skip.undo) == ("operator", "done by hand", True)


def test_what_was_refused_does_not_remain_when_its_undo_is_skipped() -> None:
    """The undo of the failed step gives up; there never was anything to undo."""
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"), refuse=True)
    world.hand_over(world.call("reserve", undo=True), Reply(Outcome.REFUSED, code="DOWN"))
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.saga.net_effect() == ()
    world.give(SKIP)
    ended = world.journal[-1]
    assert isinstance(ended, SagaCompensated)
    assert ended.remaining == ()


def test_a_step_that_is_stuck_beyond_go_can_be_left_out() -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.reply(world.call("ship"), refuse=True)
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    # What was refused for certain does not stand; what is under way may.
    assert (parked.code, parked.net_effect) == ("STEP_REFUSED", (0, 1, 3))
    world.give(SKIP)
    world.heal()
    assert world.saga.phase is Phase.COMPLETED
    assert world.standing() == {"reserve", "pay", "mail"}


def test_a_skip_beyond_go_leaves_out_what_needs_the_missing_result_too() -> None:
    """Or there would be no way on: a retry is refused again, and back it cannot go."""
    world = World(
        saga_of(
            final("pay", after=()),
            final("label", request={"x": "results.pay.value"}),
            final("print", request={"x": "results.label.value"}),
            final("mail", after=("pay",)),
        )
    )
    world.submit()
    world.reply(world.call("pay"), refuse=True)
    world.give(RETRY)
    world.reply(world.call("pay"))
    assert world.saga.parked is not None
    assert world.give(SKIP).answer is Answer.ACCEPTED
    assert [step.status for step in world.saga.steps[:3]] == [StepStatus.SKIPPED] * 3
    assert world.waited_for() == ["mail"]
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_a_skip_that_breaks_a_use_is_refused_where_the_saga_can_still_turn_back() -> None:
    world = World(saga_of(undoable("a"), undoable("b", request={"x": "results.a.value"})))
    world.submit()
    poisoned(world)
    decision = world.give(SKIP)
    assert (decision.events, decision.answer) == ((), Answer.SKIP_BREAKS_USES)
    assert world.give(FORCE).answer is Answer.ACCEPTED


def test_a_skip_while_another_step_is_under_way_concerns_only_what_gave_up() -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    fail_for_good(world, "ship")
    assert world.waited_for() == ["mail"]
    world.give(SKIP)
    assert world.saga.steps[2].status is StepStatus.SKIPPED
    assert world.saga.steps[3].status is StepStatus.CALLING
    world.heal()
    assert world.standing() == {"reserve", "pay", "mail"}


def test_a_skip_finds_nothing_if_the_step_has_succeeded_meanwhile() -> None:
    """The late answer told that the pivot happened; what is under way must not be skipped."""
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    fail_for_good(world, "ship")
    world.reply_late(world.saga_host.given_up[-1])
    assert world.saga.steps[2].status is StepStatus.SUCCEEDED
    decision = world.give(SKIP)
    assert (decision.events, decision.answer) == ((), Answer.NOTHING_TO_SKIP)
    world.give(RETRY)
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


# -- poison ----------------------------------------------------------------------------


def test_a_saga_that_stops_its_host_too_often_is_parked_and_told_why() -> None:
    world = World(order_of(), recoveries_max=2)
    world.submit()
    for _ in range(3):
        world.crash()
        world.restart()
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert (parked.code, parked.step) == ("POISON", None)
    # Beyond the log's end anything that needs no barrier may have been sent.
    assert parked.net_effect == (0, 1, 2, 3)


def test_progress_clears_the_count_of_takeovers() -> None:
    world = World(order_of(), recoveries_max=2)
    world.submit()
    for name in ("reserve", "pay", "ship"):
        world.crash()
        world.restart()
        world.crash()
        world.restart()
        world.reply(world.call(name))
        world.flush()
    assert world.saga.phase is Phase.RUNNING


def test_the_takeover_is_on_disk_before_the_call_that_may_kill_the_host_leaves() -> None:
    world = World(order_of())
    world.submit()
    world.crash()
    world.crash_at_barrier = 0
    sent = len(world.network)
    world.restart()
    assert len(world.network) == sent


def test_an_operator_can_give_up_on_the_step_that_kills_its_host() -> None:
    world = World(order_of())
    world.submit()
    poisoned(world)
    assert world.give(SKIP).answer is Answer.ACCEPTED
    assert world.waited_for() == ["pay"]
    assert (StepStatus.CALLING, StepStatus.SKIPPED) in world.rows_used


def test_an_operator_can_give_up_on_a_step_whose_retry_kills_its_host() -> None:
    world = World(order_of())
    world.submit()
    world.time_out(world.call("reserve"))
    world.flush()
    poisoned(world)
    assert world.give(SKIP).answer is Answer.ACCEPTED
    assert (StepStatus.WAITING, StepStatus.SKIPPED) in world.rows_used
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


@pytest.mark.parametrize("waits", [False, True])
def test_an_operator_can_give_up_on_an_undo_that_kills_its_host(waits: bool) -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"), refuse=True)
    if waits:
        world.time_out(world.call("pay", undo=True))
    world.flush()
    poisoned(world)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.give(SKIP).answer is Answer.ACCEPTED
    source = StepStatus.UNDO_WAITING if waits else StepStatus.UNDOING
    assert (source, StepStatus.UNDO_SKIPPED) in world.rows_used
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_poison_with_nothing_under_way_has_nothing_to_skip() -> None:
    """Everything waits for steps that have not been sent; a retry sends them."""
    world = World(order_of())
    world.submit()
    world.torn = 1
    world.host = None
    del world.journal[1:]
    world.recoveries_max = 0
    world.restart()
    assert world.saga.phase is Phase.PARKED_RUNNING
    assert world.give(SKIP).answer is Answer.NOTHING_TO_SKIP
    assert world.give(RETRY).answer is Answer.ACCEPTED
    assert world.waited_for() == ["reserve"]


# -- branches, and the two policies ------------------------------------------------------


def branches(policy: CompensationPolicy) -> World:
    """Return a saga on its way back, with two branches being undone side by side."""
    world = World(
        saga_of(
            undoable("base"),
            undoable("left", after=("base",)),
            undoable("right", after=("base",)),
            undoable("end", after=("left", "right")),
            compensation_policy=policy,
        )
    )
    world.submit()
    for name in ("base", "left", "right"):
        world.reply(world.call(name))
    world.reply(world.call("end"), refuse=True)
    world.reply(world.call("end", undo=True))
    assert world.waited_for() == ["-right", "-left"]
    return world


def test_halt_parks_while_another_branch_is_still_being_undone() -> None:
    world = branches(CompensationPolicy.HALT)
    fail_for_good(world, "left", undo=True)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    # Its answer is kept, and decides nothing while parked.
    decision = world.give(TimeReached())
    assert not decision.events
    world.reply(world.call("right", undo=True))
    assert world.saga.steps[2].status is StepStatus.UNDONE
    assert world.saga.net_effect() == (0, 1)
    world.give(RETRY)
    assert world.waited_for() == ["-left"]
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_an_undo_that_fails_while_parked_waits_for_the_operator_too() -> None:
    world = branches(CompensationPolicy.HALT)
    fail_for_good(world, "left", undo=True)
    world.time_out(world.call("right", undo=True))
    assert world.saga.steps[2].status is StepStatus.UNDO_FAILED
    world.give(RETRY)
    assert world.waited_for() == ["-right", "-left"]
    world.heal()
    assert world.standing() == set()


def test_halt_leaves_what_comes_before_a_stuck_undo_alone() -> None:
    world = branches(CompensationPolicy.HALT)
    world.reply(world.call("right", undo=True))
    fail_for_good(world, "left", undo=True)
    assert world.waited_for() == []
    assert "base" in world.standing()


def test_continue_undoes_the_rest_and_then_parks() -> None:
    world = branches(CompensationPolicy.CONTINUE)
    fail_for_good(world, "left", undo=True)
    assert world.saga.phase is Phase.COMPENSATING
    world.reply(world.call("right", undo=True))
    assert world.waited_for() == ["-base"]
    world.reply(world.call("base", undo=True))
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert (parked.code, parked.step, parked.net_effect) == ("COMPENSATION_STUCK", 1, (1,))
    world.give(SKIP)
    ended = world.journal[-1]
    assert isinstance(ended, SagaCompensated)
    assert ended.remaining == (1,)
    assert world.standing() == {"left"}


def test_continue_parks_at_once_if_the_last_undo_is_the_one_that_gives_up() -> None:
    world = branches(CompensationPolicy.CONTINUE)
    world.reply(world.call("left", undo=True))
    world.reply(world.call("right", undo=True))
    fail_for_good(world, "base", undo=True)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    world.give(RETRY)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_continue_survives_a_takeover_while_one_undo_has_given_up() -> None:
    world = branches(CompensationPolicy.CONTINUE)
    fail_for_good(world, "left", undo=True)
    world.flush()
    world.crash()
    world.restart()
    assert world.waited_for() == ["-right"]
    world.heal()
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.standing() == {"left"}


def test_a_takeover_between_giving_up_and_parking_parks() -> None:
    """The record was cut short after the attempt; nothing else is left to move."""
    world = stuck_on_the_way_back()
    world.crash()
    assert isinstance(world.journal.pop(), SagaParked)
    world.restart()
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.saga.parked is not None
    assert world.saga.parked.code == "COMPENSATION_STUCK"


# -- branches beyond go ------------------------------------------------------------------


def test_answers_to_other_branches_are_kept_while_parked() -> None:
    """One branch parks; the other succeeds, is refused or fails meanwhile."""
    definition = saga_of(
        final("stuck", after=(), retry=ONCE),
        final("done", after=()),
        final("optional", after=(), best_effort=True),
        final("slow", after=()),
        final("last", after=("done", "optional", "slow")),
    )
    world = World(definition)
    world.submit()
    world.time_out(world.call("stuck"))
    assert world.saga.phase is Phase.PARKED_FORWARD
    world.reply(world.call("done"))
    world.reply(world.call("optional"), refuse=True)
    world.hand_over(world.call("slow"), unknown(Code.TIMEOUT))
    statuses = [step.status for step in world.saga.steps]
    assert statuses == [
        StepStatus.UNKNOWN,
        StepStatus.SUCCEEDED,
        StepStatus.REFUSED,
        StepStatus.UNKNOWN,
        StepStatus.PENDING,
    ]
    world.give(RETRY)
    assert world.waited_for() == ["stuck", "optional", "slow"]
    world.heal()
    assert world.saga.phase is Phase.COMPLETED
    assert world.standing() == {"stuck", "done", "slow", "last"}


def test_what_waits_for_its_retry_while_parked_is_sent_by_the_operators_retry() -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.time_out(world.call("mail"))
    world.reply(world.call("ship"), refuse=True)
    assert world.saga.steps[3].status is StepStatus.WAITING
    world.give(RETRY)
    assert world.waited_for() == ["ship", "mail"]
    assert not world.saga.waiting


def test_a_skip_of_the_last_step_that_is_open_completes_the_saga() -> None:
    world = World(pivot_of())
    world.submit()
    for name in ("reserve", "pay", "mail"):
        world.reply(world.call(name))
    fail_for_good(world, "ship")
    world.give(SKIP)
    assert world.saga.phase is Phase.COMPLETED


def test_the_restart_of_a_parked_saga_is_no_order() -> None:
    world = stuck_on_the_way_back()
    decision = world.give(HostRestarted(7, False, 100))
    assert (decision.events, decision.commands) == ((), ())


def test_a_park_lists_what_an_earlier_host_may_have_sent_beyond_go() -> None:
    """The zombie went on to `ship` without a trace; then the saga was taken for poison."""
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.crash(zombie=True)
    (zombie,) = world.zombies
    world.reply(zombie.waited[0], host=zombie)
    world.reply(zombie.waited[0], host=zombie)
    assert world.standing() == {"reserve", "pay", "ship"}
    world.recoveries_max = 0
    world.restart()
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert parked.net_effect == (0, 1, 2, 3)


def test_a_park_on_the_way_back_lists_what_may_have_been_sent_without_a_trace() -> None:
    world = World(order_of())
    world.submit()
    world.crash(zombie=True)
    (zombie,) = world.zombies
    for _ in range(3):
        world.reply(zombie.waited[0], host=zombie)
    world.restart()
    world.give(CANCEL)
    world.reply(world.call("reserve"))
    fail_for_good(world, "notify", undo=True)
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert world.standing() == {"reserve", "pay", "ship"}
    assert parked.net_effect == world.saga.net_effect() == (0, 1, 2, 3)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("torn", [1, 2, 3, 4])
def test_a_skip_that_a_crash_cuts_short_sends_no_step_without_its_result(
    torn: int, refused: bool
) -> None:
    world = World(
        saga_of(
            final("pay", after=(), retry=ONCE),
            final("label", request={"x": "results.pay.value"}),
            final("print", request={"x": "results.label.value"}),
            final("mail"),
        )
    )
    world.submit()
    if refused:
        world.reply(world.call("pay"), refuse=True)
    else:
        world.time_out(world.call("pay"))
    world.torn, world.crash_at_barrier = torn, 0
    world.give(SKIP)
    assert world.host is None
    world.torn = 0
    # That no request lacks a result is judged by the world.
    world.heal()
    if world.saga.is_parked:
        world.give(SKIP)
        world.heal()
    assert world.saga.phase is Phase.COMPLETED
