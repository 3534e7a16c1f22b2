"""What operators can do with a parked saga: there always is a way on."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import CompensationPolicy
from raysaga.statemachines.events import (
    SagaCompensated,
    SagaParked,
    StepSkipped,
)
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    RetryOrdered,
    SkipOrdered,
    TimeReached,
)
from raysaga.statemachines.tables import Phase, StepStatus

from .model_ledger import Reply
from .shapes import ONCE, final, order_of, pivot_of, saga_of, undoable
from .troubles import fail_for_good, poisoned, stuck_on_the_way_back
from .world import World

CANCEL = CancelRequested("somebody", "")
FORCE = CompensationForced("operator", "")
RETRY = RetryOrdered("operator", "")
SKIP = SkipOrdered("operator", "done by hand")


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


def test_a_skipped_undo_is_neither_due_nor_waited_for_any_more() -> None:
    """Else its timer would call it again, or a saga that is stuck would not be parked."""
    world = World(order_of(compensation_policy=CompensationPolicy.CONTINUE))
    world.submit()
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"))
    world.time_out(world.call("pay", undo=True))
    world.flush()
    poisoned(world)
    world.give(SKIP)
    assert world.waited_for() == ["-reserve"]
    assert world.saga.due_at_ms() is None
    world.now_ms += 1_000
    assert not world.give(TimeReached()).events
    fail_for_good(world, "reserve", undo=True)
    assert world.saga.phase is Phase.PARKED_BACKWARD


def test_an_operators_order_gives_a_poisonous_saga_all_its_tries_again() -> None:
    world = World(order_of(), recoveries_max=1)
    world.submit()
    for _ in range(2):
        world.crash()
        world.restart()
    assert world.saga.phase is Phase.PARKED_RUNNING
    world.give(RETRY)
    assert world.saga.parked is None
    assert world.saga.reason is None
    world.crash()
    world.restart()
    assert world.saga.phase is Phase.RUNNING


def test_refusals_and_undos_are_progress_too() -> None:
    """A saga that gets on is no poison, whichever way it gets on."""
    world = World(order_of(), recoveries_max=1)
    world.submit()
    world.reply(world.call("reserve"))
    world.crash()
    world.restart()
    world.reply(world.call("reserve"), refuse=False)
    world.reply(world.call("pay"), refuse=True)
    for name in ("notify", "ship", "pay", "reserve"):
        world.crash()
        world.restart()
        assert world.saga.phase is Phase.COMPENSATING
        world.reply(world.call(name, undo=True))
        if world.saga.phase is Phase.COMPENSATING:
            world.flush()
    assert world.saga.phase is Phase.COMPENSATED


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
