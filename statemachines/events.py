"""What has happened to a saga: the only thing that a journal stores.

The `tag` of a type is the number that stands for it on disk. Never reuse a tag or reorder
fields: a new field goes last, with a default, so that old records can still be read.
Steps are named by their index in the definition, which the journal keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from raysaga.statemachines.structure import Structure


class Accepted(Structure, frozen=True, tag=1):
    """The saga exists: its input, its recipe, who owns it, when it must turn back."""

    definition_name: str
    definition_hash: str
    key: str
    fingerprint: str
    scope: str
    input: Mapping[str, Any]
    at_ms: int
    deadline_at_ms: int | None


class StepCalled(Structure, frozen=True, tag=2):
    """An attempt was sent; `undo` tells which of the step's two calls."""

    step: int
    undo: bool
    attempt: int
    at_ms: int


class StepSucceeded(Structure, frozen=True, tag=3):
    """The action took effect, with this result."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None


class StepRefused(Structure, frozen=True, tag=4):
    """The participant refused the action for certain, and will for ever."""

    step: int
    attempt: int
    at_ms: int
    code: str
    message: str


class AttemptFailed(Structure, frozen=True, tag=5):
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


class StepUndone(Structure, frozen=True, tag=6):
    """The compensation was done, or there was nothing to undo and never will be."""

    step: int
    attempt: int
    at_ms: int
    result: Mapping[str, Any] | None


class StepSkipped(Structure, frozen=True, tag=7):
    """The saga goes on without the step, or without its undo.

    `by` is an operator's name, or empty for a best-effort step.
    """

    step: int
    undo: bool
    at_ms: int
    by: str
    note: str


class GoGiven(Structure, frozen=True, tag=8):
    """The point of no return: a step without an undo is next."""

    at_ms: int


class CompensationStarted(Structure, frozen=True, tag=9):
    """The direction is latched backward.

    `undo` lists, in the order of the definition, every step that could have been sent.
    """

    at_ms: int
    code: str
    message: str
    step: int | None
    undo: tuple[int, ...]
    by: str


class SagaCompleted(Structure, frozen=True, tag=10):
    """Done."""

    at_ms: int


class SagaCompensated(Structure, frozen=True, tag=11):
    """Undone; `remaining` lists the steps whose effect an operator let stand."""

    at_ms: int
    remaining: tuple[int, ...]


class SagaParked(Structure, frozen=True, tag=12):
    """Needs a person. `net_effect` lists the steps whose effect stands, or may stand."""

    at_ms: int
    code: str
    message: str
    step: int | None
    net_effect: tuple[int, ...]


class SagaResumed(Structure, frozen=True, tag=13):
    """An operator sent a parked saga on, in the direction that it faces."""

    at_ms: int
    by: str
    note: str


class Recovered(Structure, frozen=True, tag=14):
    """A host has taken the saga up again, for the n-th time since it last made progress.

    `restored` tells that the journal came from a backup: from here on nothing is
    sent or decided before the ledgers were asked.
    """

    at_ms: int
    epoch: int
    recoveries: int
    restored: bool = False


class LedgersAsked(Structure, frozen=True, tag=15):
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

EVENT_TYPES: Mapping[int, type[Any]] = {cls.__struct_config__.tag: cls for cls in get_args(Event)}
"""Tag on disk to type of event."""
