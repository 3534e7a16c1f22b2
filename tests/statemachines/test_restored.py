"""Rule 11: after a restore the ledgers are heard before anything else is done."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import Answer, AskLedgers
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.events import (
    CompensationStarted,
    LedgersAsked,
    StepSucceeded,
)
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
from raysaga.statemachines.tables import Phase, StepStatus

from .shapes import final, mail_of, order_of, pivot_of, saga_of, undoable
from .troubles import answer_with, at_the_backup, fail_for_good, parked_by_poison, restore
from .world import World

CANCEL = CancelRequested("somebody", "")
RETRY = RetryOrdered("somebody", "")


def test_every_ledger_is_asked_and_nothing_else_is_done() -> None:
    world = at_the_backup(World(order_of(deadline_ms=100)))
    restore(world)
    assert world.saga_host.asking
    assert world.waited_for() == []
    assert world.saga.due_at_ms() is None


@pytest.mark.parametrize(
    "given",
    [
        TimeReached(),
        StepAnswered(0, False, 1, 1, True, None, "", "", 0, 0.0),
        CANCEL,
        CompensationForced("somebody", ""),
        RETRY,
        SkipOrdered("somebody", ""),
        Submitted("1", "f", "s", {}, None),
    ],
    ids=lambda given: type(given).__name__,
)
def test_no_input_is_acted_on_before_the_ledgers_were_heard(given: Input) -> None:
    world = at_the_backup(World(order_of(deadline_ms=100)))
    restore(world)
    world.now_ms += 1_000
    decision = world.give(given)
    assert (decision.events, decision.commands) == ((), ())
    if isinstance(given, CancelRequested | CompensationForced | RetryOrdered | SkipOrdered):
        assert decision.answer is Answer.LEDGERS_NOT_ASKED
    else:
        assert decision.answer is (Answer.ALREADY if isinstance(given, Submitted) else None)


def test_a_crash_before_the_answers_leads_to_asking_again() -> None:
    """Also when the next host no longer knows that the journal was restored."""
    world = at_the_backup(World(order_of()))
    restore(world)
    world.crash()
    world.restart()
    assert world.saga_host.asking
    decision = world.give(HostRestarted(world.epoch, False, 100))
    assert decision.commands == (AskLedgers(),)


def test_answers_that_nobody_asked_for_mean_nothing() -> None:
    world = at_the_backup(World(order_of()))
    assert not world.give(LedgersAnswered(["applied"] * 4, [None] * 4)).events


def test_what_the_ledgers_hold_is_taken_over_and_not_done_again() -> None:
    world = at_the_backup(World(order_of()))
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    restore(world)
    world.answer_questions(only_final=True)
    facts = [event for event in world.journal if isinstance(event, StepSucceeded)]
    assert [(fact.step, fact.result) for fact in facts] == [
        (0, {"value": "made by reserve"}),
        (1, {"value": "made by pay"}),
    ]
    assert world.waited_for() == ["ship"]


def test_the_takeover_that_asked_is_not_counted_as_one_without_progress() -> None:
    world = at_the_backup(World(order_of(), recoveries_max=1))
    restore(world)
    world.answer_questions(only_final=True)
    assert world.saga.recoveries == 1
    assert world.saga.phase is Phase.RUNNING


def test_a_saga_that_had_ended_ends_again() -> None:
    world = at_the_backup(World(order_of()))
    while world.saga_host.waited:
        world.reply(world.saga_host.waited[0])
    restore(world)
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.COMPLETED


def test_a_saga_that_had_ended_in_the_backup_is_left_alone() -> None:
    world = at_the_backup(World(order_of()))
    while world.saga_host.waited:
        world.reply(world.saga_host.waited[0])
    restore(world, to=-1)
    assert not world.saga_host.asking


@pytest.mark.parametrize(
    "status", [LedgerStatus.APPLIED, LedgerStatus.PENDING, LedgerStatus.UNKNOWN]
)
def test_a_step_without_undo_that_may_have_happened_means_forward_only(
    status: LedgerStatus,
) -> None:
    """The mail was sent, or its provider will not say: the order must not be undone."""
    world = at_the_backup(World(mail_of(deadline_ms=100), providers=frozenset({2})))
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.reply(world.call("mail"))
    if status is not LedgerStatus.PENDING:
        world.ledgers.provider_answers(2, 0 if status is LedgerStatus.APPLIED else 2)
    assert world.ledgers.rows[2].status is status
    restore(world)
    # Between the two inputs that the answers become, another may be decided.
    held = [world.ledgers.question(i, world.epoch) for i in range(3)]
    world.saga_host.asking = False
    world.give(LedgersAnswered([s for s, _ in held], [r for _, r in held]))
    assert world.saga.phase is Phase.FORWARD_ONLY
    assert world.give(CANCEL).answer is Answer.CANCEL_TOO_LATE
    world.now_ms += 1_000
    assert not world.give(TimeReached()).events


def test_a_saga_that_had_turned_back_turns_back() -> None:
    """The latch itself is lost; tombstones and undone rows tell of it."""
    world = at_the_backup(
        World(
            saga_of(undoable("a"), undoable("b", request={"x": "results.a.value"}), undoable("c"))
        )
    )
    world.reply(world.call("a"))
    world.reply(world.call("b"))
    world.reply(world.call("c"), refuse=True)
    world.reply(world.call("c", undo=True))
    world.reply(world.call("b", undo=True))
    restore(world)
    world.answer_questions(only_final=True)
    started = next(e for e in world.journal if isinstance(e, CompensationStarted))
    assert (started.code, started.undo) == ("RESTORED", (0, 1, 2))
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_an_undo_finds_the_result_that_its_request_needs_in_an_undone_row() -> None:
    """`b` was applied by the use of `a`, which is undone already by the time of the restore."""
    world = at_the_backup(
        World(
            saga_of(
                undoable("a"),
                undoable("b", after=("a",), request={"x": "results.a.value"}),
            )
        )
    )
    world.reply(world.call("a"))
    world.arrive_late(world.call("b"))
    world.give(CANCEL)
    world.time_out(world.call("b"))
    world.reply(world.call("b", undo=True))
    world.reply(world.call("a", undo=True))
    restore(world)
    world.answer_questions(only_final=True)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_a_saga_on_its_way_back_in_the_backup_goes_on_back() -> None:
    world = at_the_backup(World(order_of()))
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"))
    world.reply(world.call("pay", undo=True))
    restore(world, to=1)
    assert world.saga.phase is Phase.COMPENSATING
    world.answer_questions(only_final=True)
    assert world.waited_for() == ["-pay"]
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_after_a_refused_pivot_the_way_back_goes_on() -> None:
    """The backup faces forward only; the ledgers show the refusal that opened compensation."""
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    mark = len(world.marks) - 1
    assert world.saga.phase is Phase.FORWARD_ONLY
    world.reply(world.call("pay"), refuse=True)
    world.reply(world.call("reserve", undo=True))
    restore(world, to=mark)
    world.answer_questions(only_final=True)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_what_a_provider_cannot_tell_of_is_undone_on_abort() -> None:
    """`gift` had been skipped before the restore, and `wrap` is still at its provider.

    With every result durable before the next call, the log alone would say that
    `wrap`, which waits for `gift`, cannot have been sent.
    """
    definition = saga_of(
        undoable("gift", best_effort=True),
        undoable("wrap"),
        durability=Durability.STRICT,
    )
    world = at_the_backup(World(definition, providers=frozenset({1})))
    world.reply(world.call("gift"), refuse=True)
    world.reply(world.call("wrap"))
    assert world.ledgers.rows[1].status is LedgerStatus.PENDING
    restore(world)
    world.answer_questions(only_final=False)
    assert world.give(CANCEL).answer is Answer.ACCEPTED
    world.time_out(world.call("gift"))
    world.ledgers.provider_answers(1, 0)
    assert world.standing() == {"wrap"}
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_a_step_skipped_before_the_restore_and_refused_after_it_parks_beyond_go() -> None:
    """It may turn nothing back any more: mail has gone out."""
    world = World(mail_of(), recoveries_max=0)
    world.submit()
    world.crash()
    # Poison: an operator skips `reserve`, the order goes on without it, and mail is sent.
    world.restart()
    world.give(SkipOrdered("somebody", "by hand"))
    world.reply(world.call("pay"))
    world.reply(world.call("mail"))
    assert world.saga.phase is Phase.COMPLETED
    world.recoveries_max = 100
    restore(world)
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.FORWARD_ONLY
    world.reply(world.call("reserve"), refuse=True)
    assert world.saga.phase is Phase.PARKED_FORWARD
    assert world.saga.parked is not None
    assert world.saga.parked.code == "STEP_REFUSED"
    assert (
        world.standing()
        == {"pay", "mail"}
        == {world.definition.steps[i].name for i in world.saga.net_effect()}
    )


def test_a_pivot_refused_after_a_restore_turns_nothing_back_if_mail_is_out() -> None:
    """An operator had skipped the pivot; the lost journal alone knew."""
    definition = saga_of(undoable("reserve"), *pivot_of().steps[1:3])
    world = World(definition)
    world.submit()
    world.reply(world.call("reserve"))
    mark = len(world.marks) - 1
    for _ in range(2):
        world.time_out(world.call("pay"))
        world.now_ms = world.saga.due_at_ms() or world.now_ms
        world.give(TimeReached())
    world.give(SkipOrdered("somebody", "paid in cash"))
    world.reply(world.call("ship"))
    restore(world, to=mark)
    world.answer_questions(only_final=True)
    world.reply(world.call("pay"), refuse=True)
    assert world.saga.phase is Phase.PARKED_FORWARD
    assert world.standing() == {"reserve", "ship"}


# -- parked sagas of a restored journal ------------------------------------------


def test_a_parked_saga_learns_from_the_ledgers_that_it_had_passed_go() -> None:
    world = World(mail_of())
    mark = parked_by_poison(world)
    world.give(RETRY)
    for name in ("reserve", "pay", "mail"):
        world.reply(world.call(name))
    restore(world, to=mark)
    assert world.give(CANCEL).answer is Answer.LEDGERS_NOT_ASKED
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.PARKED_FORWARD
    assert world.give(CANCEL).answer is Answer.CANCEL_TOO_LATE
    assert world.give(RETRY).answer is Answer.ACCEPTED
    assert world.saga.phase is Phase.COMPLETED
    assert (Phase.PARKED_RUNNING, Phase.PARKED_FORWARD) in world.rows_used


def test_a_parked_saga_learns_from_the_ledgers_that_it_had_turned_back() -> None:
    world = World(mail_of())
    mark = parked_by_poison(world)
    world.give(RETRY)
    world.reply(world.call("reserve"))
    world.give(CANCEL)
    world.reply(world.call("pay"))
    world.reply(world.call("pay", undo=True))
    restore(world, to=mark)
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert world.give(RETRY).answer is Answer.ACCEPTED
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()
    assert (Phase.PARKED_RUNNING, Phase.PARKED_BACKWARD) in world.rows_used


def test_a_saga_parked_at_its_pivot_learns_that_the_pivot_was_refused() -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    for _ in range(2):
        world.time_out(world.call("pay"))
        world.now_ms = world.saga.due_at_ms() or world.now_ms
        world.give(TimeReached())
    assert world.saga.phase is Phase.PARKED_FORWARD
    mark = len(world.marks) - 1
    world.give(RETRY)
    world.reply(world.call("pay"), refuse=True)
    world.reply(world.call("reserve", undo=True))
    restore(world, to=mark)
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    assert (Phase.PARKED_FORWARD, Phase.PARKED_BACKWARD) in world.rows_used
    world.give(RETRY)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_a_saga_parked_at_its_pivot_learns_that_the_pivot_has_happened() -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.arrive_late(world.call("pay"))
    fail_for_good(world, "pay")
    restore(world, to=-1)
    world.answer_questions(only_final=True)
    assert world.saga.phase is Phase.PARKED_FORWARD
    assert world.saga.steps[1].status is StepStatus.SUCCEEDED
    world.give(RETRY)
    assert world.waited_for() == ["ship", "mail"]


def test_on_the_way_back_a_success_of_which_the_ledger_knows_nothing_is_no_contradiction() -> None:
    """The undo will find nothing, and leaves a tombstone."""
    world = at_the_backup(World(saga_of(undoable("a", after=()), undoable("b", after=()))))
    world.reply(world.call("a"))
    world.give(CANCEL)
    restore(world, to=-1)
    answer_with(world, a=LedgerStatus.NOTHING)
    assert world.saga.phase is Phase.COMPENSATING
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED


def test_what_was_learnt_is_written_last_so_that_a_torn_record_is_asked_about_again() -> None:
    world = at_the_backup(World(order_of()))
    world.reply(world.call("reserve"))
    restore(world)
    world.torn, world.crash_at_barrier = 1, 0
    world.answer_questions(only_final=True)
    assert isinstance(world.journal[-1], StepSucceeded)
    assert not any(isinstance(event, LedgersAsked) for event in world.journal)
    world.restart()
    assert world.saga_host.asking
    world.torn = 0
    world.answer_questions(only_final=True)
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_a_status_of_the_ledger_that_needs_nothing_changes_nothing() -> None:
    """A stored refusal is asked for again, and answered the same."""
    world = at_the_backup(World(saga_of(undoable("a", best_effort=True), final("mail"))))
    world.reply(world.call("a"), refuse=True)
    restore(world)
    world.answer_questions(only_final=True)
    assert world.waited_for() == ["a"]
    world.reply(world.call("a"))
    assert world.saga.steps[0].status is StepStatus.SKIPPED
    assert world.waited_for() == ["mail"]
