"""The histories that forced the rules of `docs/ARCHITECTURE.md`, each as an example.

Rule 1 is in `test_definition`, rule 11 in `test_restored`, rule 12 in `test_parked` and
`test_operators`; the others concern hosts, ledgers and journals, and are proved with those.
"""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import Code, LedgerStatus, Outcome
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import Durability, SagaDefinition
from raysaga.statemachines.events import (
    Accepted,
    CompensationStarted,
    GoGiven,
    SagaParked,
    StepSkipped,
)
from raysaga.statemachines.inputs import CancelRequested, RetryOrdered, TimeReached
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import Phase, StepStatus

from .model_ledger import Reply
from .shapes import final, mail_of, order_of, pivot_of, saga_of, undoable
from .world import World

CANCEL = CancelRequested("somebody", "changed my mind")


# -- section 5: what is waited for ---------------------------------------------


@pytest.mark.parametrize(
    ("definition", "flushes"),
    [
        # ACCEPTED and the end.
        (order_of(), 2),
        (order_saga, 2),
        # And GO.
        (mail_of(), 3),
        (pivot_of(), 3),
        # ACCEPTED, each result but the last, and the end.
        (order_of(durability=Durability.STRICT), 5),
        (order_of(durability=Durability.RELAXED), 0),
        # GO is waited for by whoever waits for nothing else.
        (mail_of(durability=Durability.RELAXED), 1),
    ],
)
def test_a_happy_saga_waits_for_no_more_flushes_than_promised(
    definition: SagaDefinition, flushes: int
) -> None:
    world = World(definition)
    world.submit()
    while world.saga_host.waited:
        world.reply(world.saga_host.waited[0])
    assert world.saga.phase is Phase.COMPLETED
    assert world.barrier_count == flushes


def test_a_result_that_a_later_step_uses_is_on_disk_before_that_step_leaves() -> None:
    world = World(saga_of(undoable("a"), undoable("b", request={"x": "results.a.value"})))
    world.submit()
    world.crash_at_barrier = 0
    world.reply(world.call("a"))
    assert world.host is None
    assert [call.step for call in world.network] == []


# -- rule 2: GO ----------------------------------------------------------------


@pytest.mark.parametrize("durability", list(Durability))
def test_mail_is_not_sent_before_go_is_on_disk(durability: Durability) -> None:
    """Else mail is sent, the results are lost, the deadline undoes the order, the mail stays."""
    world = World(mail_of(durability=durability, deadline_ms=100))
    world.submit()
    world.flush()
    world.reply(world.call("reserve"))
    world.crash_at_barrier = 0
    world.reply(world.call("pay"))
    assert world.standing() == {"reserve", "pay"}
    assert not world.network, "the mail left before its barrier"
    world.restart()
    world.now_ms += 100
    world.give(TimeReached())
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_go_stands_behind_all_results_that_it_follows() -> None:
    world = World(mail_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    kinds = [type(event).__name__ for event in world.journal]
    assert kinds.index("GoGiven") > max(i for i, k in enumerate(kinds) if k == "StepSucceeded")
    assert world.waited_for() == ["mail"]


def test_a_saga_of_nothing_but_a_step_without_undo_begins_with_go() -> None:
    world = World(saga_of(final("mail"), durability=Durability.RELAXED))
    world.submit()
    assert any(isinstance(event, GoGiven) for event in world.journal)
    assert world.waited_for() == ["mail"]


# -- rule 3: what an earlier incarnation can still send --------------------------


def test_what_was_sent_and_not_recorded_is_undone_too() -> None:
    """The first host got as far as `ship`; the disk knows only that `reserve` was sent."""
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    ship = world.call("ship")
    world.crash(keep=0)
    world.restart()
    assert world.standing() == {"reserve", "pay"}
    assert world.give(CANCEL).answer is Answer.ACCEPTED
    started = world.journal[-1]
    assert isinstance(started, CompensationStarted)
    assert started.undo == (0, 1, 2, 3)
    world.reply(world.call("reserve"))
    # The latest that could have been sent is undone first, and alone.
    assert world.waited_for() == ["-notify"]
    world.reply(world.call("notify", undo=True))
    assert world.waited_for() == ["-ship"]
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()
    # And the call that was under way arrives at last: it finds the tombstone.
    late = world.ledgers.deliver(ship._replace(epoch=world.epoch), refuse=False)
    assert (late.outcome, late.code) == (Outcome.REFUSED, Code.CANCELLED_BEFORE_START)
    assert world.standing() == set()


def test_the_undo_list_ends_at_the_next_barrier_that_the_disk_does_not_hold() -> None:
    """`ship` needs the result of `pay`, which is not on disk: nobody can have sent it."""
    world = World(
        saga_of(
            undoable("reserve"),
            undoable("pay"),
            undoable("ship", request={"x": "results.pay.value"}),
            undoable("notify"),
        )
    )
    world.submit()
    world.crash(keep=0)
    world.restart()
    world.give(CANCEL)
    assert isinstance(world.journal[-1], CompensationStarted)
    assert world.journal[-1].undo == (0, 1)


def test_with_every_result_on_disk_only_what_is_recorded_is_undone() -> None:
    world = World(order_of(durability=Durability.STRICT))
    world.submit()
    world.reply(world.call("reserve"))
    world.crash(keep=0)
    world.restart()
    world.give(CANCEL)
    assert isinstance(world.journal[-1], CompensationStarted)
    assert world.journal[-1].undo == (0, 1)


def test_a_relaxed_saga_that_was_lost_whole_undoes_what_its_forgotten_host_sent() -> None:
    """The disk held nothing, so the caller submits again, under the same keys."""
    world = World(order_of(durability=Durability.RELAXED))
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.crash(keep=0)
    world.restart()
    world.submit()
    world.give(CANCEL)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_acceptance_holds_the_content_hash_of_its_definition() -> None:
    world = World(order_of())
    world.submit()
    assert isinstance(world.journal[0], Accepted)
    assert world.journal[0].definition_hash == world.definition.content_hash


def test_the_undo_of_a_step_asks_for_what_its_action_asked_for() -> None:
    """Also when its own result was lost; the ledgers refuse anything else."""
    world = World(saga_of(undoable("a"), undoable("b", request={"x": "results.a.value"})))
    world.submit()
    world.reply(world.call("a"))
    asked = world.call("b").request
    world.crash(keep=0)
    world.restart()
    world.give(CANCEL)
    world.time_out(world.call("b"))
    assert world.call("b", undo=True).request == asked == {"x": "made by a"}


# -- rule 4: only stored answers are refusals ------------------------------------


@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.EXPIRED, "ERROR_BEFORE_THE_LEDGER"])
def test_a_refusal_that_is_not_stored_concerns_one_attempt(code: str) -> None:
    """It may have happened through another attempt, so it is tried again, and then undone."""
    world = World(order_of())
    world.submit()
    world.hand_over(world.call("reserve"), Reply(Outcome.REFUSED, code=code))
    assert world.saga.steps[0].status is StepStatus.WAITING
    world.now_ms = world.saga.due_at_ms() or 0
    world.give(TimeReached())
    world.hand_over(world.call("reserve"), Reply(Outcome.REFUSED, code=code))
    assert world.saga.phase is Phase.COMPENSATING
    assert world.waited_for() == ["-reserve"]


def test_a_refusal_that_is_stored_is_not_tried_again() -> None:
    world = World(order_of())
    world.submit()
    world.reply(world.call("reserve"), refuse=True)
    assert world.saga.phase is Phase.COMPENSATING
    assert world.saga.turned is not None
    assert (world.saga.turned.code, world.saga.turned.step) == ("NO", 0)
    # P4 begins with the step that failed: its undo is a cheap no-op.
    assert world.waited_for() == ["-reserve"]
    world.heal()
    assert world.ledgers.rows[0].status is LedgerStatus.REFUSED


def test_a_tombstone_means_abort_even_for_a_step_that_the_saga_could_do_without() -> None:
    """Somebody had turned the saga back; to skip the step and go on would be wrong."""
    world = World(saga_of(undoable("reserve"), undoable("gift", best_effort=True), undoable("pay")))
    world.submit()
    world.reply(world.call("reserve"))
    cancelled = Reply(Outcome.REFUSED, True, code=Code.CANCELLED_BEFORE_START)
    world.hand_over(world.call("gift"), cancelled)
    assert world.saga.phase is Phase.COMPENSATING
    assert not any(isinstance(event, StepSkipped) for event in world.journal)


def test_an_answer_to_another_attempt_is_not_heard() -> None:
    world = World(order_of())
    world.submit()
    call = world.call("reserve")
    world.time_out(call)
    world.now_ms = world.saga.due_at_ms() or 0
    world.give(TimeReached())
    assert world.saga.steps[0].attempt == 2
    world.reply_late(call)
    assert world.saga.steps[0].status is StepStatus.CALLING


def test_a_late_answer_is_heard_while_the_next_attempt_is_waited_for() -> None:
    world = World(order_of())
    world.submit()
    call = world.call("reserve")
    world.time_out(call)
    world.reply_late(call)
    assert world.saga.steps[0].status is StepStatus.SUCCEEDED
    assert not world.saga.waiting
    assert world.waited_for() == ["pay"]


# -- rule 7: an unknown pivot ------------------------------------------------------


def at_the_pivot(**more: object) -> World:
    world = World(pivot_of(**more))
    world.submit()
    world.reply(world.call("reserve"))
    assert world.saga.phase is Phase.FORWARD_ONLY
    return world


def test_beyond_go_a_cancel_comes_too_late() -> None:
    world = at_the_pivot()
    assert world.give(CANCEL).answer is Answer.CANCEL_TOO_LATE
    assert world.saga.phase is Phase.FORWARD_ONLY


def test_beyond_go_the_deadline_is_ignored() -> None:
    world = at_the_pivot(deadline_ms=50)
    assert world.saga.due_at_ms() is None
    world.now_ms += 1_000
    assert not world.give(TimeReached()).events
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_a_stored_refusal_of_the_pivot_opens_compensation() -> None:
    world = at_the_pivot()
    world.reply(world.call("pay"), refuse=True)
    assert world.waited_for() == ["-reserve"]
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_nothing_but_a_stored_refusal_of_the_pivot_opens_compensation() -> None:
    """Attempts exhausted: parked, facing forward, and every order back is refused."""
    world = at_the_pivot()
    world.hand_over(world.call("pay"), Reply(Outcome.REFUSED, code="BAD_GATEWAY"))
    world.now_ms = world.saga.due_at_ms() or 0
    world.give(TimeReached())
    world.arrive_late(world.call("pay"))
    world.time_out(world.call("pay"))
    assert world.saga.phase is Phase.PARKED_FORWARD
    parked = world.journal[-1]
    assert isinstance(parked, SagaParked)
    assert (parked.code, parked.step, parked.net_effect) == ("PIVOT_UNKNOWN", 1, (0, 1))
    assert world.give(CANCEL).answer is Answer.CANCEL_TOO_LATE
    assert world.standing() == {"reserve", "pay"}
    world.give(RetryOrdered("somebody", ""))
    world.heal()
    assert world.saga.phase is Phase.COMPLETED


def test_an_unknown_pivot_that_turns_out_refused_is_undone_by_an_operators_retry() -> None:
    world = at_the_pivot()
    for _ in range(2):
        world.time_out(world.call("pay"))
        world.now_ms = world.saga.due_at_ms() or world.now_ms
        world.give(TimeReached())
    assert world.saga.phase is Phase.PARKED_FORWARD
    world.give(RetryOrdered("somebody", ""))
    world.reply(world.call("pay"), refuse=True)
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()


def test_a_pivot_refused_late_while_parked_waits_for_the_operator() -> None:
    world = at_the_pivot()
    for _ in range(2):
        call = world.call("pay")
        world.time_out(call)
        world.now_ms = world.saga.due_at_ms() or world.now_ms
        world.give(TimeReached())
    world.reply_late(call, refuse=True)
    assert world.saga.phase is Phase.PARKED_FORWARD
    assert world.saga.steps[1].status is StepStatus.REFUSED
    assert world.saga.net_effect() == (0,)
    world.give(RetryOrdered("somebody", ""))
    world.heal()
    assert world.saga.phase is Phase.COMPENSATED
    assert world.standing() == set()
