"""Tells people what has happened to a saga: log lines now, a history later.

Payloads stay out of both, unless they are asked for: a request may hold what is
nobody's business. Codes and messages of participants are kept, with control
characters escaped by the log's renderer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    CompensationStarted,
    Event,
    Recovered,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    SagaResumed,
    StepCalled,
    StepRefused,
    StepSkipped,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import Direction
from raysaga.statemachines.saga import Saga

_LEVELS: dict[type[Any], str] = {
    AttemptFailed: "warning",
    StepRefused: "info",
    CompensationStarted: "info",
    SagaCompensated: "info",
    SagaParked: "error",
    SagaResumed: "info",
    StepSkipped: "warning",
    Recovered: "info",
}
"""Events that tell of trouble; all others are logged at `debug`."""

_PAYLOADS = frozenset({"input", "result", "results"})

EVENT_NAMES: dict[type[Any], str] = {}
"""Filled on demand: `StepSucceeded` is told as `step_succeeded`."""


def event_name(event: Event) -> str:
    """Return the event's name as it is written in logs and histories."""
    cls = type(event)
    name = EVENT_NAMES.get(cls)
    if name is None:
        letters = "".join(f"_{c.lower()}" if c.isupper() else c for c in cls.__name__)
        name = EVENT_NAMES[cls] = letters.lstrip("_")
    return name


def event_facts(definition: SagaDefinition, event: Event, *, with_payloads: bool) -> dict[str, Any]:
    """Return what an event says, with steps by name and directions in words."""
    facts: dict[str, Any] = {}
    for name, value in event._asdict().items():
        if name in _PAYLOADS and not with_payloads:
            continue
        if name == "step" and value is not None:
            value = definition.steps[value].name
        elif name in ("undo", "remaining", "net_effect") and isinstance(value, tuple):
            value = [definition.steps[i].name for i in value]
        facts[name] = value
    if isinstance(event, StepCalled | AttemptFailed | StepSkipped):
        facts["direction"] = Direction.COMPENSATION if facts.pop("undo") else Direction.ACTION
    return facts


def log_events(log: Any, saga: Saga, events: Iterable[Event]) -> None:
    """Write one line for each event, at its level."""
    is_for_debugging = log.is_enabled_for(10)
    for event in events:
        level = _LEVELS.get(type(event), "debug")
        if level == "debug" and not is_for_debugging:
            continue
        facts = event_facts(saga.definition, event, with_payloads=False)
        facts.pop("at_ms", None)
        if isinstance(event, Accepted):
            facts.pop("scope", None)
        elif isinstance(event, StepSucceeded | StepRefused | AttemptFailed | StepUndone):
            facts["duration_ms"] = event.at_ms - saga.steps[event.step].called_at_ms
        elif isinstance(event, SagaCompleted | SagaCompensated | SagaParked):
            facts["duration_ms"] = event.at_ms - saga.accepted_at_ms
        getattr(log, level)(event_name(event), saga_id=saga.saga_id, **facts)


def history_rows(
    definition: SagaDefinition, events: Iterable[Event], *, with_payloads: bool = False
) -> list[dict[str, Any]]:
    """Return a saga's history, oldest first: `{"event", "at_ms", …}` for each."""
    return [
        {"event": event_name(event), **event_facts(definition, event, with_payloads=with_payloads)}
        for event in events
    ]
