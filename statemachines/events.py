"""What has happened to a saga: the only thing that a journal stores.

Events are named tuples for the reason given in `calls`; `tag` is the number
that stands for the type on disk. Never reuse a tag or reorder fields: a new
field goes last, with a default, so that old records can still be read.
Steps are named by their index in the definition, which the journal keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Accepted(NamedTuple):
    """The saga exists: its input, its recipe, who owns it, when it must turn back."""

    definition_name: str
    definition_hash: str
    key: str
    fingerprint: str
    scope: str
    input: Mapping[str, Any]
    at_ms: int
    deadline_at_ms: int | None

    tag = 1  # type: ignore[misc]


class StepCalled(NamedTuple):
    """An attempt was sent; `undo` tells which of the step's two calls."""

    step: int
    undo: bool
    attempt: int
    at_ms: int

    tag = 2  # type: ignore[misc]


class StepSucceeded(NamedTuple):
    """The action took effect, with this result."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None

    tag = 3  # type: ignore[misc]


class StepRefused(NamedTuple):
    """The participant refused the action for certain, and will for ever."""

    step: int
    attempt: int
    at_ms: int
    code: str
    message: str

    tag = 4  # type: ignore[misc]


class AttemptFailed(NamedTuple):
    """An attempt ended without an answer to build on.

    `retry_at_ms` is None when the policy gives up.
    """

    step: int
    undo: bool
    attempt: int
    at_ms: int
    code: str
    message: str
    retry_at_ms: int | None

    tag = 5  # type: ignore[misc]


class StepUndone(NamedTuple):
    """The compensation was done, or there was nothing to undo and never will be."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None

    tag = 6  # type: ignore[misc]


class StepSkipped(NamedTuple):
    """The saga goes on without the step, or without its undo.

    `by` is an operator's name, or empty for a best-effort step.
    """

    step: int
    undo: bool
    at_ms: int
    by: str
    note: str

    tag = 7  # type: ignore[misc]


class GoGiven(NamedTuple):
    """The point of no return: a step without an undo is next."""

    at_ms: int

    tag = 8  # type: ignore[misc]


class CompensationStarted(NamedTuple):
    """The direction is latched backward.

    `undo` lists, in the order of the definition, every step that could have been sent.
    """

    at_ms: int
    code: str
    message: str
    step: int | None
    undo: tuple[int, ...]
    by: str

    tag = 9  # type: ignore[misc]


class SagaCompleted(NamedTuple):
    """Done."""

    at_ms: int

    tag = 10  # type: ignore[misc]


class SagaCompensated(NamedTuple):
    """Undone; `remaining` lists the steps whose effect an operator let stand."""

    at_ms: int
    remaining: tuple[int, ...]

    tag = 11  # type: ignore[misc]


class SagaParked(NamedTuple):
    """Needs a person. `net_effect` lists the steps whose effect stands, or may stand."""

    at_ms: int
    code: str
    message: str
    step: int | None
    net_effect: tuple[int, ...]

    tag = 12  # type: ignore[misc]


class SagaResumed(NamedTuple):
    """An operator sent a parked saga on, in the direction that it faces."""

    at_ms: int
    by: str
    note: str

    tag = 13  # type: ignore[misc]


class Recovered(NamedTuple):
    """A host has taken the saga up again; `count` since it last made progress."""

    at_ms: int
    epoch: int
    count: int

    tag = 14  # type: ignore[misc]


class LedgersAsked(NamedTuple):
    """After a restore: what each participant's ledger holds, by step."""

    at_ms: int
    statuses: tuple[str, ...]
    results: tuple[Mapping[str, Any] | None, ...]

    tag = 15  # type: ignore[misc]


Event = (
    Accepted
    | StepCalled
    | StepSucceeded
    | StepRefused
    | AttemptFailed
    | StepUndone
    | StepSkipped
    | GoGiven
    | CompensationStarted
    | SagaCompleted
    | SagaCompensated
    | SagaParked
    | SagaResumed
    | Recovered
    | LedgersAsked
)

EVENT_TYPES: Mapping[int, type[Any]] = {
    cls.tag: cls
    for cls in (
        Accepted,
        StepCalled,
        StepSucceeded,
        StepRefused,
        AttemptFailed,
        StepUndone,
        StepSkipped,
        GoGiven,
        CompensationStarted,
        SagaCompleted,
        SagaCompensated,
        SagaParked,
        SagaResumed,
        Recovered,
        LedgersAsked,
    )
}
"""Tag to type; what a journal's codec goes by."""
