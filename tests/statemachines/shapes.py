"""Definitions that the named examples are about."""

from __future__ import annotations

from typing import Any

from raysaga.statemachines.definition import SagaDefinition, Step, StepKind
from raysaga.statemachines.retry import RetryPolicy

TWICE = RetryPolicy(attempts_max=2, delay_ms_first=10, delay_ms_max=10)
ONCE = RetryPolicy(attempts_max=1, delay_ms_first=10, delay_ms_max=10)


def undoable(name: str, **more: Any) -> Step:
    """Return a compensatable step with two tries each way."""
    fields: dict[str, Any] = {
        "participant": name,
        "action": "do",
        "compensation": "undo",
        "retry": TWICE,
        "compensation_retry": TWICE,
        "request": {"id": "input.id"},
    }
    return Step(name=name, **{**fields, **more})


def final(name: str, kind: StepKind = StepKind.RETRIABLE, **more: Any) -> Step:
    """Return a step that cannot be undone, with two tries."""
    return undoable(name, kind=kind, compensation=None, **more)


def saga_of(*steps: Step, **more: Any) -> SagaDefinition:
    """Return a definition of these steps."""
    return SagaDefinition(name="example", steps=steps, **more)


def order_of(**more: Any) -> SagaDefinition:
    """Return four steps in a row that can all be undone."""
    return saga_of(*(undoable(name) for name in ("reserve", "pay", "ship", "notify")), **more)


def pivot_of(**more: Any) -> SagaDefinition:
    """Return reserve, then a pivot, then two steps after it side by side."""
    return saga_of(
        undoable("reserve"),
        final("pay", StepKind.PIVOT),
        final("ship", after=("pay",)),
        final("mail", after=("pay",)),
        **more,
    )


def mail_of(**more: Any) -> SagaDefinition:
    """Return two steps that can be undone, and mail, which cannot."""
    return saga_of(undoable("reserve"), undoable("pay"), final("mail"), **more)
