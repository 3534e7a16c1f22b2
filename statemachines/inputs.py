"""What can reach a saga: answers, instants, callers and operators.

Each input is named for what happened. Chance and time come in with them, so
that deciding stays a pure function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raysaga.statemachines.structure import Structure


class Submitted(Structure, frozen=True):
    """A caller asked for the saga; the first input of each."""

    key: str
    fingerprint: str
    scope: str
    input: Mapping[str, Any]
    deadline_at_ms: int | None


class StepAnswered(Structure, frozen=True):
    """An attempt ended: with an answer, or with none in time.

    Attributes:
        step: Index of the step.
        undo: Which of its two calls.
        attempt: Which attempt.
        outcome: An `Outcome`, as a number.
        stored: Whether the answer is the participant's ledger row.
        result: What a success gave.
        code: Why not.
        message: The same for people.
        retry_after_ms: What the participant asked for.
        jitter: A draw from [0, 1) for the backoff.
    """

    step: int
    undo: bool
    attempt: int
    outcome: int
    stored: bool
    result: Mapping[str, Any] | None
    code: str
    message: str
    retry_after_ms: int
    jitter: float


class TimeReached(Structure, frozen=True):
    """A timer of the saga is due: a retry, or the deadline."""


class CancelRequested(Structure, frozen=True):
    """A caller wants the saga undone."""

    by: str
    note: str


class RetryOrdered(Structure, frozen=True):
    """An operator sends a parked saga on, the way it faces."""

    by: str
    note: str


class SkipOrdered(Structure, frozen=True):
    """An operator lets a parked saga go on without the steps that hold it."""

    by: str
    note: str


class CompensationForced(Structure, frozen=True):
    """An operator turns a saga back that has not passed the point of no return."""

    by: str
    note: str


class HostRestarted(Structure, frozen=True):
    """A new owner has read the saga from the journal.

    Attributes:
        epoch: The new owner's.
        restored: Whether the journal came from a backup, so that ledgers know more.
        recoveries_max: Restarts without progress after which the saga is poison.
    """

    epoch: int
    restored: bool
    recoveries_max: int


class LedgersAnswered(Structure, frozen=True):
    """Every participant has said what it holds, step by step of the definition."""

    statuses: Sequence[str]
    results: Sequence[Mapping[str, Any] | None]


Input = (
    Submitted
    | StepAnswered
    | TimeReached
    | CancelRequested
    | RetryOrdered
    | SkipOrdered
    | CompensationForced
    | HostRestarted
    | LedgersAnswered
)
