"""Rule 12: a parked saga waits for a person, and goes on only the way that it faces."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import Code, LedgerStatus
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import CompensationPolicy
from raysaga.statemachines.events import (
    SagaCompensated,
    SagaParked,
    SagaResumed,
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

from .model_ledger import unknown
from .shapes import ONCE, final, mail_of, order_of, pivot_of, saga_of, undoable
from .troubles import fail_for_good, poisoned, stuck_on_the_way_back
from .world import World

CANCEL = CancelRequested("somebody", "")
FORCE = CompensationForced("operator", "")
RETRY = RetryOrdered("operator", "")
SKIP = SkipOrdered("operator", "done by hand")


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


def test_what_may_still_turn_back_is_turned_back_by_an_operator_and_no_caller() -> None:
    """It may be parked for what it does to its host."""
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.flush()
    poisoned(world)
    assert world.saga.phase is Phase.PARKED_RUNNING
    refused = world.give(CANCEL)
    assert (refused.events, refused.commands, refused.answer) == ((), (), Answer.IS_PARKED)
    assert world.give(FORCE).answer is Answer.ACCEPTED
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


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
