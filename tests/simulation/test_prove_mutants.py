"""A prover that finds nothing proves nothing: each broken engine here must be found out.

Method: break one rule of `decide`, of `evolve`'s bookkeeping or of the ledger by exchanging
one function or one row, and prove a saga of three or four steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raysaga.simulation import prove_moves, prove_world
from raysaga.simulation.prove_moves import Bounds, Moves
from raysaga.simulation.prove_search import Explored, explore
from raysaga.statemachines import backward, decide, forward
from raysaga.statemachines.calls import LedgerStatus, Outcome
from raysaga.statemachines.commands import NOTHING, Answer, CallStep, Decision
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import (
    CompensationStarted,
    GoGiven,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
)
from raysaga.statemachines.inputs import CancelRequested, HostRestarted, Input, StepAnswered
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import BACKWARD, Phase, StepStatus

from .proof_recipes import chain_saga, diamond_saga, pivot_saga

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]

CHAIN = chain_saga(3)
PIVOT = pivot_saga()
DIAMOND = diamond_saga()


def deciding(change: Callable[[Saga, Input, Decision], Decision]) -> Break:
    """Return what lets every decision be changed before anybody sees it."""

    def breaks(patch: Patch) -> None:
        whole = decide.decide

        def broken(saga: Saga, given: Input, now_ms: int) -> Decision:
            return change(saga, given, whole(saga, given, now_ms))

        patch.setattr(prove_moves, "decide", broken)

    return breaks


def waiting_for_no(*events: type[Any]) -> Break:
    """Return what lets decisions with such events not wait for the disk."""

    def change(_saga: Saga, _given: Input, decision: Decision) -> Decision:
        if any(isinstance(event, events) for event in decision.events):
            return decision._replace(durable_first=False)
        return decision

    return deciding(change)


def sent_as_logged(patch: Patch) -> None:
    """What an earlier life can have sent is what it has recorded, and no more."""

    def logged(saga: Saga) -> set[int]:
        return {i for i, s in enumerate(saga.steps) if s.status is not StepStatus.PENDING}

    patch.setattr(Saga, "may_have_been_sent", logged)


def without_one(chosen: Callable[[set[int]], int]) -> Break:
    """Return what leaves one step out of what is to be undone."""

    def breaks(patch: Patch) -> None:
        whole = Saga.may_have_been_sent

        def broken(saga: Saga) -> set[int]:
            sent = whole(saga)
            return sent - {chosen(sent)} if sent else sent

        patch.setattr(Saga, "may_have_been_sent", broken)

    return breaks


def all_at_once(patch: Patch) -> None:
    """Every compensation leaves with the first."""
    patch.setattr(backward, "_has_passed", lambda _saga, _i, _passed: True)


def first_steps_first(patch: Patch) -> None:
    """A compensation waits for those of the steps before its own, not after."""
    whole = backward._undo_next

    def broken(saga: Saga, undo: Any, candidates: Any, *rest: Any, **more: Any) -> Decision:
        real = saga.definition
        turned: Any = type("Turned", (), {"__getattr__": lambda _s, name: getattr(real, name)})()
        turned.dependents, turned.dependencies = real.dependencies, real.dependents
        saga.definition = turned
        try:
            return whole(saga, undo, range(len(real.steps)), *rest, **more)
        finally:
            saga.definition = real

    patch.setattr(backward, "_undo_next", broken)


def any_refusal_counts(patch: Patch) -> None:
    """An overload is taken for the ledger's word."""
    patch.setattr(decide, "_is_definite", lambda given: given.outcome != Outcome.UNKNOWN)


def goes_on_after_a_takeover_backward(patch: Patch) -> None:
    """A new owner sends no compensation again."""
    patch.setattr(decide, "recall_undos", lambda *_args, **_more: NOTHING)


def waits_for_a_takeover_forward(patch: Patch) -> None:
    """A new owner sends nothing again."""
    patch.setattr(decide, "resume_forward", lambda *_args, **_more: NOTHING)


def never_done_waiting(_saga: Saga, given: Input, decision: Decision) -> Decision:
    """A timer that is due means nothing."""
    return NOTHING if type(given).__name__ == "TimeReached" else decision


def one_step_too_early(patch: Patch) -> None:
    """The last step is not waited for."""
    whole = forward.go_on

    def broken(saga: Saga, just_done: Any, candidates: Any, now_ms: int) -> Decision:
        if just_done and saga.open_count == 2:
            return Decision((SagaCompleted(now_ms),), (), True)
        return whole(saga, just_done, candidates, now_ms)

    patch.setattr(decide, "go_on", broken)


def undone_one_too_early(patch: Patch) -> None:
    """The last compensation is not waited for."""
    whole = backward._undo_next

    def broken(saga: Saga, undo: Any, candidates: Any, left: int, *rest: Any, **more: Any) -> Any:
        return whole(saga, undo, candidates, 0 if left == 1 else left, *rest, **more)

    patch.setattr(backward, "_undo_next", broken)


def cancelled_after_go(saga: Saga, given: Input, decision: Decision) -> Decision:
    """A cancel is granted beyond the point of no return."""
    if isinstance(given, CancelRequested) and saga.phase is Phase.FORWARD_ONLY:
        return backward.turn_back(saga, (), 0, code="CANCELLED", message="so", step=None)
    return decision


def silence_is_a_no(saga: Saga, _given: Input, decision: Decision) -> Decision:
    """A pivot that gives no answer is taken for refused."""
    parked = [e for e in decision.events if isinstance(e, SagaParked) and e.code == "PIVOT_UNKNOWN"]
    if not parked:
        return decision
    failed = decision.events[:-1]
    return backward.turn_back(
        saga, failed, 0, code="X", message="so", step=parked[0].step, settled=parked[0].step
    )


def forward_again(saga: Saga, given: Input, decision: Decision) -> Decision:
    """A saga that was being undone is sent forward by whoever takes it over."""
    if isinstance(given, HostRestarted) and saga.phase in BACKWARD and decision.events:
        onward = forward.resume_forward(saga, 0, with_waiting=True)
        return decision._replace(
            events=(decision.events[0], *onward.events), commands=onward.commands
        )
    return decision


def without_go(_saga: Saga, _given: Input, decision: Decision) -> Decision:
    """A step without an undo leaves like any other."""
    events = tuple(event for event in decision.events if not isinstance(event, GoGiven))
    return decision._replace(events=events)


def nothing_listed(_saga: Saga, _given: Input, decision: Decision) -> Decision:
    """A parked saga says that nothing of it stands."""
    events = tuple(
        event._replace(net_effect=()) if isinstance(event, SagaParked) else event
        for event in decision.events
    )
    return decision._replace(events=events)


def granted_for_nothing(_saga: Saga, given: Input, decision: Decision) -> Decision:
    """Who cancels is told yes, and nothing is done."""
    if isinstance(given, CancelRequested) and decision.events:
        return Decision(answer=Answer.ACCEPTED)
    return decision


def sent_unrecorded(_saga: Saga, given: Input, decision: Decision) -> Decision:
    """An answer is answered by one more call, which no event tells of."""
    if isinstance(given, StepAnswered) and given.undo:
        return decision._replace(commands=(*decision.commands, CallStep(0, True, 1)))
    return decision


def uses_are_not_awaited(_saga: Saga, given: Input, decision: Decision) -> Decision:
    """A result that a later step uses is written behind."""
    is_answer = isinstance(given, StepAnswered) and not given.undo
    forward_only = decision.commands and not any(
        isinstance(event, CompensationStarted | GoGiven) for event in decision.events
    )
    return decision._replace(durable_first=False) if is_answer and forward_only else decision


def row(status: LedgerStatus, undo: bool, *choices: Any) -> Break:
    """Return what lets a ledger answer otherwise."""

    def breaks(patch: Patch) -> None:
        table = {**prove_world.LEDGER, (status, undo): choices}
        patch.setattr(prove_moves, "LEDGER", table)

    return breaks


MUTANTS: dict[str, tuple[Break, SagaDefinition, str]] = {
    "the first step is never undone": (
        without_one(min),
        CHAIN,
        "undo_list",
    ),
    "the last step is never undone": (
        without_one(max),
        CHAIN,
        "undo_list",
    ),
    "only what is logged is undone": (sent_as_logged, CHAIN, "undo_list"),
    "all is undone at once": (all_at_once, CHAIN, "reverse_order"),
    "it is undone forward": (first_steps_first, CHAIN, "reverse_order"),
    "it is undone forward, with branches": (first_steps_first, DIAMOND, "reverse_order"),
    "the latch is not waited for": (
        waiting_for_no(CompensationStarted),
        CHAIN,
        "durable_first",
    ),
    "GO is not waited for": (waiting_for_no(GoGiven), PIVOT, "durable_first"),
    "there is no GO": (deciding(without_go), PIVOT, "durable_first"),
    "acceptance is not waited for": (
        deciding(lambda _s, _g, d: d._replace(durable_first=False) if d.answer else d),
        CHAIN,
        "durable_first",
    ),
    "an end is not waited for": (
        waiting_for_no(SagaCompleted, SagaCompensated),
        CHAIN,
        "durable_first",
    ),
    "a result that is used is not waited for": (
        deciding(uses_are_not_awaited),
        DIAMOND,
        "undo_list",
    ),
    "any refusal counts": (
        any_refusal_counts,
        CHAIN,
        "parked",
    ),
    "a takeover sends no undo again": (goes_on_after_a_takeover_backward, CHAIN, "not_stuck"),
    "a takeover sends no action again": (waits_for_a_takeover_forward, CHAIN, "not_stuck"),
    "a takeover goes forward again": (deciding(forward_again), CHAIN, "not_stuck"),
    "no timer is obeyed": (deciding(never_done_waiting), CHAIN, "end_in_reach"),
    "it ends before its last step": (one_step_too_early, CHAIN, "completed"),
    "it ends before its last undo": (undone_one_too_early, CHAIN, "compensated"),
    "a cancel is granted beyond GO": (deciding(cancelled_after_go), PIVOT, "latch"),
    "silence of the pivot is a refusal": (deciding(silence_is_a_no), PIVOT, "latch"),
    "a parked saga lists nothing": (deciding(nothing_listed), CHAIN, "parked"),
    "a cancel is granted for nothing": (deciding(granted_for_nothing), CHAIN, "durable_first"),
    "a call is sent that is not recorded": (deciding(sent_unrecorded), CHAIN, "total"),
    "there are no tombstones": (
        row(LedgerStatus.NOTHING, True, (LedgerStatus.NOTHING, prove_world.DONE)),
        CHAIN,
        "compensated",
    ),
    "a tombstone is forgotten": (
        row(LedgerStatus.TOMBSTONE, False, (LedgerStatus.APPLIED, prove_world.DONE)),
        CHAIN,
        "once",
    ),
    "what was undone can be done again": (
        row(LedgerStatus.UNDONE, False, (LedgerStatus.APPLIED, prove_world.DONE)),
        CHAIN,
        "once",
    ),
}
"""What is broken how, in which saga, and the promise that finds it; docs/PROOF.md lists them."""


def proof(definition: SagaDefinition) -> Explored:
    return explore(Moves(definition, Bounds()))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_found_out(name: str, monkeypatch: Patch) -> None:
    breaks, definition, promise = MUTANTS[name]
    breaks(monkeypatch)
    found = proof(definition).counterexample
    assert found is not None, "nothing was found"
    assert found.promise == promise, found
