"""What has happened to a saga: the only thing that a journal stores.

Events are named tuples for the reason given in `calls`; `EVENT_TYPES` gives
each type the number that stands for it on disk. Never reuse a tag or reorder fields: a new
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


class StepCalled(NamedTuple):
    """An attempt was sent; `undo` tells which of the step's two calls."""

    step: int
    undo: bool
    attempt: int
    at_ms: int


class StepSucceeded(NamedTuple):
    """The action took effect, with this result."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None


class StepRefused(NamedTuple):
    """The participant refused the action for certain, and will for ever."""

    step: int
    attempt: int
    at_ms: int
    code: str
    message: str


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


class StepUndone(NamedTuple):
    """The compensation was done, or there was nothing to undo and never will be."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None


class StepSkipped(NamedTuple):
    """The saga goes on without the step, or without its undo.

    `by` is an operator's name, or empty for a best-effort step.
    """

    step: int
    undo: bool
    at_ms: int
    by: str
    note: str


class GoGiven(NamedTuple):
    """The point of no return: a step without an undo is next."""

    at_ms: int


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


class SagaCompleted(NamedTuple):
    """Done."""

    at_ms: int


class SagaCompensated(NamedTuple):
    """Undone; `remaining` lists the steps whose effect an operator let stand."""

    at_ms: int
    remaining: tuple[int, ...]


class SagaParked(NamedTuple):
    """Needs a person. `net_effect` lists the steps whose effect stands, or may stand."""

    at_ms: int
    code: str
    message: str
    step: int | None
    net_effect: tuple[int, ...]


class SagaResumed(NamedTuple):
    """An operator sent a parked saga on, in the direction that it faces."""

    at_ms: int
    by: str
    note: str


class Recovered(NamedTuple):
    """A host has taken the saga up again, for the n-th time since it last made progress.

    `restored` tells that the journal came from a backup: from here on nothing is
    sent or decided before the ledgers were asked.
    """

    at_ms: int
    epoch: int
    recoveries: int
    restored: bool = False


class LedgersAsked(NamedTuple):
    """After a restore: what each participant's ledger holds, by step."""

    at_ms: int
    statuses: tuple[str, ...]
    results: tuple[Mapping[str, Any] | None, ...]


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
    1: Accepted,
    2: StepCalled,
    3: StepSucceeded,
    4: StepRefused,
    5: AttemptFailed,
    6: StepUndone,
    7: StepSkipped,
    8: GoGiven,
    9: CompensationStarted,
    10: SagaCompleted,
    11: SagaCompensated,
    12: SagaParked,
    13: SagaResumed,
    14: Recovered,
    15: LedgersAsked,
}
"""Tag on disk to type of event."""

EVENT_TAGS: Mapping[type[Any], int] = {cls: tag for tag, cls in EVENT_TYPES.items()}
"""Type of event to its tag on disk."""
