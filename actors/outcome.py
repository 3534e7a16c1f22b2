"""What a caller is told about a saga: how it ended, where each step stands, and the ways on."""

from __future__ import annotations

from typing import Any

from raysaga.statemachines.commands import Answer
from raysaga.statemachines.decide import decide
from raysaga.statemachines.inputs import CompensationForced, Input, RetryOrdered, SkipOrdered
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import StepStatus
from raysaga.storage.journal import Head, KeyRecord


def outcome_of(saga: Saga) -> dict[str, Any]:
    """Return the end of a saga, or why it is parked, as plain values.

    `{"saga_id", "phase", "code", "message", "step", "results", "remaining"}`: code,
    message and step tell why it was undone or parked and are empty when it completed;
    results maps steps to what they gave; remaining lists steps whose effect stands, or
    may stand, although the saga did not complete, and steps that it completed without.
    """
    steps = saga.definition.steps
    reason = saga.reason
    completed = saga.phase.value == "completed"
    if completed:
        left = [i for i, s in enumerate(saga.steps) if s.status is StepStatus.SKIPPED]
    elif saga.is_parked:
        left = list(saga.net_effect())
    else:
        left = [i for i, s in enumerate(saga.steps) if s.status is StepStatus.UNDO_SKIPPED]
    return {
        "saga_id": saga.saga_id,
        "phase": saga.phase.value,
        "code": "" if reason is None or completed else reason.code,
        "message": "" if reason is None or completed else reason.message,
        "step": ""
        if reason is None or completed or reason.step is None
        else steps[reason.step].name,
        "results": {
            steps[i].name: step.result
            for i, step in enumerate(saga.steps)
            if step.result is not None
        },
        "remaining": [steps[i].name for i in left],
    }


def bare_outcome(known: Head | KeyRecord) -> dict[str, Any]:
    """Return as much of an outcome as is known without a saga's records."""
    return {
        "saga_id": known.saga_id,
        "phase": known.phase.value,
        "code": known.reason,
        "message": "",
        "step": known.step if isinstance(known, Head) else "",
        "results": {},
        "remaining": [],
    }


def status_of(saga: Saga) -> dict[str, Any]:
    """Return where a saga stands: the outcome so far, its times, and each step's status."""
    return {
        **outcome_of(saga),
        "definition": saga.definition.name,
        "definition_hash": saga.definition.content_hash,
        "accepted_at_ms": saga.accepted_at_ms,
        "deadline_at_ms": saga.deadline_at_ms,
        "due_at_ms": saga.due_at_ms(),
        "recoveries": saga.recoveries,
        "steps": [
            {
                "name": step.name,
                "kind": step.kind.value,
                "participant": step.participant,
                "status": progress.status.value,
                "attempts": progress.attempt,
                "undo_attempts": progress.undo_attempt,
            }
            for step, progress in zip(saga.definition.steps, saga.steps, strict=True)
        ],
    }


def head_row(head: Head) -> dict[str, Any]:
    """Return an index row as plain values for people and programs."""
    return {
        "saga_id": head.saga_id,
        "phase": head.phase.value,
        "reason": head.reason,
        "step": head.step,
        "accepted_at_ms": head.accepted_at_ms,
        "changed_at_ms": head.changed_at_ms,
        "definition": head.definition_name,
        "due_at_ms": head.due_at_ms,
        "scope": head.scope,
    }


def ways_on(saga: Saga | None, now_ms: int) -> list[str]:
    """Return which of an operator's orders would be taken, by asking what they would do."""
    if saga is None or not saga.is_parked:
        return []
    orders: dict[str, Input] = {
        "retry": RetryOrdered("", ""),
        "skip": SkipOrdered("", ""),
        "force": CompensationForced("", ""),
    }
    return [
        name
        for name, order in orders.items()
        if decide(saga, order, now_ms).answer is Answer.ACCEPTED
    ]
