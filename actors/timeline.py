"""Tells a saga's history as people read one: an attempt a row, with its answer and its length.

Guarantees: every event of the history is in some row, and rows come in the order in which
they began. An attempt that was never answered says so: its host stopped, or the answer is
still to come.
Costs: one pass over the events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from raysaga.actors.story import event_facts, event_name
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import (
    AttemptFailed,
    Event,
    StepCalled,
    StepRefused,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import Direction

Answered = StepSucceeded | StepRefused | AttemptFailed | StepUndone

_ANSWERS: Mapping[type[Any], str] = {
    StepSucceeded: "succeeded",
    StepRefused: "refused",
    AttemptFailed: "failed",
    StepUndone: "undone",
}


def timeline_rows(
    definition: SagaDefinition, events: Iterable[Event], *, with_payloads: bool = False
) -> list[dict[str, Any]]:
    """Return attempts and turning points, in the order in which they began.

    An attempt is `{"kind": "attempt", "at_ms", "step", "direction", "participant",
    "operation", "attempt", "answer", "took_ms", "code", "message", "retry_at_ms"}`; its
    answer is `succeeded`, `refused`, `failed`, `undone` or, without one, empty, and then it
    took None. Anything else is `{"kind": "turn", "event", "at_ms", …}` with the facts of
    the event.
    """
    rows: list[dict[str, Any]] = []
    open_rows: dict[tuple[int, bool], dict[str, Any]] = {}
    for event in events:
        if isinstance(event, StepCalled):
            row = _attempt(definition, event.step, event.undo, event.attempt, event.at_ms)
            open_rows[event.step, event.undo] = row
            rows.append(row)
        elif isinstance(event, StepSucceeded | StepRefused | AttemptFailed | StepUndone):
            _answer(definition, rows, open_rows, event, with_payloads=with_payloads)
        else:
            facts = event_facts(definition, event, with_payloads=with_payloads)
            rows.append({"kind": "turn", "event": event_name(event), **facts})
    return rows


def _attempt(
    definition: SagaDefinition, i: int, undo: bool, attempt: int, at_ms: int
) -> dict[str, Any]:
    step = definition.steps[i]
    return {
        "kind": "attempt",
        "at_ms": at_ms,
        "step": step.name,
        "direction": Direction.COMPENSATION if undo else Direction.ACTION,
        "participant": step.participant,
        "operation": (step.compensation or "") if undo else step.action,
        "attempt": attempt,
        "answer": "",
        "took_ms": None,
        "code": "",
        "message": "",
        "retry_at_ms": None,
    }


def _answer(
    definition: SagaDefinition,
    rows: list[dict[str, Any]],
    open_rows: dict[tuple[int, bool], dict[str, Any]],
    event: Answered,
    *,
    with_payloads: bool,
) -> None:
    """Write an answer into the row of its attempt, or into one of its own."""
    undo = event.undo if isinstance(event, AttemptFailed) else isinstance(event, StepUndone)
    row = open_rows.get((event.step, undo))
    if row is None or row["attempt"] != event.attempt or row["answer"] in ("succeeded", "undone"):
        # Told by a ledger after a restore, or recorded by a host that lost the call's event.
        row = _attempt(definition, event.step, undo, event.attempt, event.at_ms)
        rows.append(row)
    else:
        row["took_ms"] = event.at_ms - row["at_ms"]
    row["answer"] = _ANSWERS[type(event)]
    if isinstance(event, StepRefused | AttemptFailed):
        row["code"], row["message"] = event.code, event.message
    if isinstance(event, AttemptFailed):
        row["retry_at_ms"] = event.retry_at_ms
    if with_payloads and isinstance(event, StepSucceeded | StepUndone):
        row["result"] = event.result
