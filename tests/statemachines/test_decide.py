"""Deciding, by example: the way forward, the way back, and who is told what."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import NOTHING, Answer, CallStep
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import Durability, StepKind
from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    CompensationStarted,
    SagaCompensated,
    StepCalled,
    StepRefused,
)
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    HostRestarted,
    Input,
    LedgersAnswered,
    RetryOrdered,
    SkipOrdered,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import Phase, StepStatus

from .shapes import ONCE, TWICE, final, order_of, pivot_of, saga_of, undoable
from .world import World

CANCEL = CancelRequested("somebody", "changed my mind")

EVERY_INPUT: list[Input] = [
    Submitted("1", "f", "scope", {}, None),
    StepAnswered(0, False, 1, 1, True, None, "", "", 0, 0.0),
    StepAnswered(0, True, 1, 3, False, None, "TIMEOUT", "", 0, 0.9),
    TimeReached(),
    CANCEL,
    RetryOrdered("o", ""),
    SkipOrdered("o", ""),
    CompensationForced("o", ""),
    HostRestarted(2, False, 3),
    LedgersAnswered(["nothing"] * 4, [None] * 4),
]


@pytest.mark.parametrize("given", EVERY_INPUT[1:], ids=lambda given: type(given).__name__)
def test_a_saga_that_nobody_submitted_decides_nothing(given: Input) -> None:
    saga = Saga(SagaId("example:1"), order_of())
    assert decide(saga, given, 0) == NOTHING


@pytest.mark.parametrize("given", EVERY_INPUT, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("phase", [Phase.COMPLETED, Phase.COMPENSATED])
def test_a_terminal_answer_never_changes(phase: Phase, given: Input) -> None:
    world = World(order_of(deadline_ms=50))
    world.submit()
    if phase is Phase.COMPENSATED:
        world.give(CANCEL)
    world.heal()
    assert world.saga.phase is phase
    world.now_ms += 1_000
    decision = world.give(given)
    assert (decision.events, decision.commands) == ((), ())


def test_a_second_submission_starts_nothing() -> None:
    world = World(order_of())
    world.submit()
    decision = world.give(Submitted("1", "f", "scope", {}, None))
    assert decision == NOTHING._replace(answer=Answer.ALREADY)


def test_acceptance_and_the_first_calls_leave_together() -> None:
    saga = Saga(SagaId("example:1"), pivot_of())
    decision = decide(saga, Submitted("k", "f", "s", {"id": 1}, 99), 5)
    hashed = saga.definition.content_hash
    assert decision.events == (
        Accepted("example", hashed, "k", "f", "s", {"id": 1}, 5, 99),
        StepCalled(0, False, 1, 5),
    )
    assert decision.commands == (CallStep(0, False, 1),)
    assert (decision.durable_first, decision.answer) == (True, Answer.ACCEPTED)


# -- forward ---------------------------------------------------------------------


def test_steps_leave_when_all_that_they_wait_for_is_done() -> None:
    world = World(
        saga_of(
            undoable("a", after=()),
            undoable("b", after=()),
            undoable("join", after=("a", "b")),
            undoable("aside", after=("a",)),
        )
    )
    world.submit()
    assert world.waited_for() == ["a", "b"]
    world.reply(world.call("a"))
    assert world.waited_for() == ["b", "aside"]
    world.reply(world.call("b"))
    assert world.waited_for() == ["aside", "join"]
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_the_order_of_the_list_does_not_matter_where_after_says_it() -> None:
    world = World(saga_of(undoable("last", after=("first",)), undoable("first", after=())))
    world.submit()
    assert world.waited_for() == ["first"]
    world.reply(world.call("first"))
    world.reply(world.call("last"), refuse=True)
    assert world.waited_for() == ["-last"]
    world.reply(world.call("last", undo=True))
    assert world.waited_for() == ["-first"]


def test_an_attempt_without_an_answer_is_tried_again_later() -> None:
    world = World(order_of())
    world.submit()
    world.time_out(world.call("reserve"))
    failed = world.saga_host.pending[-1][-1]
    assert isinstance(failed, AttemptFailed)
    assert failed.retry_at_ms == world.saga.due_at_ms() == world.now_ms + 5
    world.now_ms += 4
    assert not world.give(TimeReached()).events
    world.now_ms += 1
    assert world.give(TimeReached()).commands == (CallStep(0, False, 2),)


def test_a_step_that_gives_up_turns_back_and_is_undone_first() -> None:
    """Its outcome is unknown: the call that was lost may have taken effect."""
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.arrive_late(world.call("pay"))
    world.time_out(world.call("pay"))
    world.now_ms += 5
    world.give(TimeReached())
    world.time_out(world.call("pay"))
    assert world.waited_for() == ["-pay"]
    world.heal()
    assert world.standing() == set()


@pytest.mark.parametrize("how", ["refused", "unknown"])
def test_a_saga_goes_on_without_a_best_effort_step(how: str) -> None:
    world = World(
        saga_of(undoable("a"), undoable("gift", best_effort=True, retry=ONCE), undoable("c"))
    )
    world.submit()
    world.reply(world.call("a"))
    if how == "refused":
        world.reply(world.call("gift"), refuse=True)
    else:
        world.arrive_late(world.call("gift"))
        world.time_out(world.call("gift"))
    assert world.saga.steps[1].status is StepStatus.SKIPPED
    assert world.waited_for() == ["c"]
    # What was given up may have happened, so it is undone with the rest.
    world.reply(world.call("c"), refuse=True)
    world.reply(world.call("c", undo=True))
    assert world.waited_for() == ["-gift"]
    world.heal()
    assert world.standing() == set()


def test_a_best_effort_step_without_undo_is_left_out_beyond_go() -> None:
    world = World(saga_of(undoable("a"), final("mail", best_effort=True, retry=ONCE)))
    world.submit()
    world.reply(world.call("a"))
    world.time_out(world.call("mail"))
    assert world.saga.phase is Phase.COMPLETED


# -- back ------------------------------------------------------------------------


def test_steps_are_undone_in_reverse_beginning_with_the_one_that_failed() -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.reply(world.call("ship"), refuse=True)
    undone = []
    while world.saga_host.waited:
        (name,) = world.waited_for()
        undone.append(name)
        world.reply(world.saga_host.waited[0])
    assert undone == ["-ship", "-pay", "-reserve"]
    assert world.saga.phase is Phase.COMPENSATED


def test_of_undos_that_may_leave_together_the_latest_goes_first() -> None:
    world = World(
        saga_of(undoable("a", after=()), undoable("b", after=()), undoable("c", after=()))
    )
    world.submit()
    for name in ("a", "b"):
        world.reply(world.call(name))
    world.reply(world.call("c"), refuse=True)
    assert world.waited_for() == ["-c", "-b", "-a"]


def test_the_latch_is_on_disk_before_the_first_undo_leaves_and_a_cancel_is_answered() -> None:
    world = World(order_of(durability=Durability.RELAXED))
    world.submit()
    world.time_out(world.call("reserve"))
    world.crash_at_barrier = 0
    world.give(CANCEL)
    assert world.host is None
    assert not [call for call in world.network if call.undo]
    assert "CancelRequested accepted" not in world.seen


def test_no_undo_leaves_while_an_action_is_under_way() -> None:
    world = World(saga_of(undoable("a", after=()), undoable("b", after=())))
    world.submit()
    assert world.give(CANCEL).answer is Answer.ACCEPTED
    assert world.waited_for() == ["a", "b"]
    world.reply(world.call("a"))
    assert world.waited_for() == ["b"]
    world.time_out(world.call("b"))
    assert world.waited_for() == ["-b", "-a"]
    world.heal()
    assert world.standing() == set()


def test_on_the_way_back_a_refusal_or_success_of_what_was_under_way_is_noted() -> None:
    world = World(saga_of(undoable("a", after=()), undoable("b", after=())))
    world.submit()
    world.give(CANCEL)
    world.reply(world.call("a"), refuse=True)
    world.reply(world.call("b"))
    assert [type(e) for e in world.saga_host.pending[0]] == [StepRefused]
    world.heal()
    ended = world.journal[-1]
    assert isinstance(ended, SagaCompensated)
    assert world.ledgers.rows[0].status is LedgerStatus.REFUSED


def test_with_strict_durability_the_answer_before_the_first_undo_is_waited_for() -> None:
    world = World(
        saga_of(undoable("a", after=()), undoable("b", after=()), durability=Durability.STRICT)
    )
    world.submit()
    world.give(CANCEL)
    world.reply(world.call("a"))
    world.crash_at_barrier = 0
    world.reply(world.call("b"))
    assert world.host is None
    assert not [call for call in world.network if call.undo]


def test_with_strict_durability_an_undo_is_on_disk_before_the_next_leaves() -> None:
    world = World(order_of(durability=Durability.STRICT))
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"), refuse=True)
    world.crash_at_barrier = 0
    world.reply(world.call("pay", undo=True))
    assert world.host is None
    assert [call.step for call in world.network] == []


@pytest.mark.parametrize(
    ("durability", "flushes"),
    [
        # ACCEPTED, the latch and the end; strict waits for each answer, too.
        (Durability.PIPELINED, 3),
        (Durability.STRICT, 5),
        (Durability.RELAXED, 1),
    ],
)
def test_the_way_back_waits_for_no_more_flushes_than_promised(
    durability: Durability, flushes: int
) -> None:
    world = World(order_of(durability=durability))
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"), refuse=True)
    while world.saga_host.waited:
        name = world.waited_for()[0].removeprefix("-")
        world.reply(world.call(name, undo=True))
    assert world.saga.phase is Phase.COMPENSATED
    assert world.barrier_count == flushes


def test_an_undo_is_tried_again_by_its_own_policy() -> None:
    world = World(saga_of(undoable("a", retry=ONCE, compensation_retry=TWICE)))
    world.submit()
    world.give(CANCEL)
    world.reply(world.call("a"))
    world.time_out(world.call("a", undo=True))
    assert world.saga.due_at_ms() == world.now_ms + 5
    world.now_ms += 5
    world.give(TimeReached())
    assert world.call("a", undo=True).attempt == 2


def test_a_late_success_of_an_undo_is_heard_while_the_next_attempt_is_waited_for() -> None:
    world = World(order_of())
    world.submit()
    world.give(CANCEL)
    world.reply(world.call("reserve"))
    call = world.call("reserve", undo=True)
    world.time_out(call)
    world.reply_late(call)
    assert world.saga.phase is Phase.COMPENSATED


def test_a_second_failure_of_an_attempt_given_up_means_nothing() -> None:
    world = World(order_of())
    world.submit()
    world.give(CANCEL)
    world.reply(world.call("reserve"))
    world.time_out(world.call("reserve", undo=True))
    again = StepAnswered(0, True, 1, 3, False, None, "TIMEOUT", "", 0, 0.5)
    assert world.give(again) == NOTHING


def test_a_cancel_while_it_is_being_undone_is_already_granted() -> None:
    world = World(order_of())
    world.submit()
    world.give(CANCEL)
    assert world.give(CANCEL) == NOTHING._replace(answer=Answer.ALREADY)


def test_a_cancel_says_who_and_why() -> None:
    world = World(order_of())
    world.submit()
    world.give(CANCEL)
    started = world.journal[-1]
    assert isinstance(started, CompensationStarted)
    assert (started.code, started.message, started.by) == (
        "CANCELLED",
        "changed my mind",
        "somebody",
    )
    other = World(order_of())
    other.submit()
    other.give(CancelRequested("somebody", ""))
    assert other.saga.turned is not None
    assert other.saga.turned.message == "cancelled by somebody"


# -- the deadline --------------------------------------------------------------------


def test_the_deadline_turns_back_a_saga_that_still_can() -> None:
    world = World(order_of(deadline_ms=100))
    world.submit()
    assert world.saga.due_at_ms() == world.now_ms + 100
    world.now_ms += 99
    assert not world.give(TimeReached()).events
    world.now_ms += 1
    world.give(TimeReached())
    assert world.saga.turned is not None
    assert world.saga.turned.code == "DEADLINE_EXCEEDED"
    # Compensations are never cancelled by it.
    assert world.saga.due_at_ms() is None


def test_whatever_is_due_first_is_looked_at_first() -> None:
    world = World(order_of(deadline_ms=3))
    world.submit()
    world.time_out(world.call("reserve"))
    assert world.saga.due_at_ms() == world.now_ms + 3
    other = World(order_of(deadline_ms=300))
    other.submit()
    other.time_out(other.call("reserve"))
    assert other.saga.due_at_ms() == other.now_ms + 5


# -- takeover in every phase -----------------------------------------------------------


def test_a_takeover_while_running_calls_again_what_was_under_way_and_what_is_ready() -> None:
    world = World(
        saga_of(undoable("a", after=()), undoable("b", after=()), undoable("c", after=("b",)))
    )
    world.submit()
    world.reply(world.call("b"))
    world.flush()
    world.crash()
    world.restart()
    assert world.waited_for() == ["a", "c"]
    assert [call.attempt for call in world.saga_host.waited] == [1, 1]


def test_a_takeover_leaves_what_waits_for_its_retry_to_its_timer() -> None:
    world = World(order_of())
    world.submit()
    world.time_out(world.call("reserve"))
    world.flush()
    world.crash()
    world.restart()
    assert world.waited_for() == []
    assert world.saga.due_at_ms() == world.now_ms + 5
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_a_takeover_on_the_way_back_calls_again_what_was_being_undone() -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"))
    world.flush()
    world.crash()
    world.restart()
    assert world.waited_for() == ["-pay"]
    world.heal()
    assert world.standing() == set()


def test_a_takeover_on_the_way_back_leaves_what_waits_for_its_retry_to_its_timer() -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"), refuse=True)
    world.time_out(world.call("reserve", undo=True))
    world.flush()
    world.crash()
    world.restart()
    assert world.waited_for() == []
    assert world.saga.due_at_ms() == world.now_ms + 5
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_a_takeover_just_after_the_latch_begins_the_way_back() -> None:
    """What was under way will not be answered to this host, so it waits for nothing."""
    world = World(order_of())
    world.submit()
    world.give(CANCEL)
    world.crash()
    world.restart()
    assert world.waited_for() == ["-reserve"]


@pytest.mark.parametrize(("undo", "end"), [(False, Phase.COMPLETED), (True, Phase.COMPENSATED)])
def test_a_takeover_just_before_the_end_ends_the_saga(undo: bool, end: Phase) -> None:
    """The record was cut short after the last step's answer."""
    world = World(saga_of(undoable("a")))
    world.submit()
    if undo:
        world.give(CANCEL)
        world.reply(world.call("a"))
    world.flush()
    world.torn, world.crash_at_barrier = 1, 0
    world.reply(world.saga_host.waited[0])
    world.restart()
    assert world.saga.phase is end


def test_a_takeover_with_nothing_to_undo_ends_the_way_back() -> None:
    world = World(saga_of(final("pay", StepKind.PIVOT)))
    world.submit()
    world.torn, world.crash_at_barrier = 2, 0
    world.reply(world.call("pay"), refuse=True)
    assert isinstance(world.journal[-1], CompensationStarted)
    world.restart()
    assert world.saga.phase is Phase.COMPENSATED
