"""What a saga of a restored journal learns from its participants' ledgers.

A backup has forgotten the latest history; the ledgers have not. Nothing is
called here: the facts are taken over, and the host then restarts the saga from
them as after a crash. A step without an undo that has happened, or may have,
means forward only. What contradicts itself is parked: only a person can know
which of two records to believe.
"""

from __future__ import annotations

from collections.abc import Sequence

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import NOTHING, Decision
from raysaga.statemachines.definition import StepKind
from raysaga.statemachines.events import (
    CompensationStarted,
    Event,
    GoGiven,
    LedgersAsked,
    SagaParked,
    StepSucceeded,
)
from raysaga.statemachines.inputs import LedgersAnswered
from raysaga.statemachines.saga import LEDGER_MAY_STAND, Saga
from raysaga.statemachines.tables import BACKWARD, Phase, StepStatus

TAKEN_BACK = frozenset({LedgerStatus.TOMBSTONE.value, LedgerStatus.UNDONE.value})
"""Only a saga that had turned back leaves these."""

HAPPENED = frozenset({LedgerStatus.APPLIED.value, LedgerStatus.UNDONE.value})
"""The action succeeded, whatever became of it."""

_OPEN = frozenset({StepStatus.PENDING, StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN})


def reconcile(saga: Saga, given: LedgersAnswered, now_ms: int) -> Decision:
    """Decide what the answers of all ledgers mean; parked or not, it stays so."""
    if not saga.must_ask:
        return NOTHING
    held = given.statuses
    # Last of all events, so that were the history cut short before it, they are asked again.
    asked = LedgersAsked(now_ms, tuple(held), tuple(given.results))
    contradiction = _contradiction(saga, held)
    if contradiction is not None:
        step, why = contradiction
        stands = tuple(i for i, status in enumerate(held) if status in LEDGER_MAY_STAND)
        parked = SagaParked(now_ms, "RESTORED_CONTRADICTION", why, step, stands)
        return Decision((parked, asked), (), True)
    if saga.phase in BACKWARD:
        return Decision((asked,), (), True)
    facts: list[Event] = [
        StepSucceeded(i, step.attempt, now_ms, given.results[i])
        for i, step in enumerate(saga.steps)
        if step.status in _OPEN and held[i] in HAPPENED
    ]
    if any(status in TAKEN_BACK for status in held):
        undo = tuple(i for i, step in enumerate(saga.definition.steps) if step.has_undo)
        why = "the ledgers show that it had turned back before the restore"
        facts.append(CompensationStarted(now_ms, "RESTORED", why, None, undo, ""))
    elif saga.phase in (Phase.RUNNING, Phase.PARKED_RUNNING) and _beyond(saga, held) is not None:
        facts.append(GoGiven(now_ms))
    return Decision((*facts, asked), (), True)


def _beyond(saga: Saga, held: Sequence[str]) -> int | None:
    """Return a step that cannot be undone and has happened, or may have."""
    steps = saga.definition.steps
    return next(
        (i for i, step in enumerate(steps) if not step.has_undo and held[i] in LEDGER_MAY_STAND),
        None,
    )


def _contradiction(saga: Saga, held: Sequence[str]) -> tuple[int, str] | None:
    """Return what cannot all be true: a step, and one sentence."""
    steps = saga.definition.steps
    beyond = _beyond(saga, held)
    back = next((i for i, status in enumerate(held) if status in TAKEN_BACK), None)
    if beyond is not None and (back is not None or saga.phase in BACKWARD):
        return beyond, f"{steps[beyond].name} happened, yet the saga was being undone"
    if saga.phase in BACKWARD:
        return None
    if back is not None and saga.phase in (Phase.FORWARD_ONLY, Phase.PARKED_FORWARD):
        pivot = next((i for i, step in enumerate(steps) if step.kind is StepKind.PIVOT), None)
        if pivot is None or held[pivot] != LedgerStatus.REFUSED.value:
            why = f"{steps[back].name} was undone beyond the point of no return"
            return back, why
    for i, progress in enumerate(saga.steps):
        lost = held[i] in (LedgerStatus.NOTHING.value, LedgerStatus.REFUSED.value)
        if progress.status is StepStatus.SUCCEEDED and lost:
            return i, f"{steps[i].name} had succeeded, yet its participant knows nothing of it"
    return None
