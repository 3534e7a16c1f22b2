"""What a host must do next, once the barrier before it is durable."""

from __future__ import annotations

from enum import StrEnum

from raysaga.statemachines.events import Event
from raysaga.statemachines.structure import Structure


class CallStep(Structure, frozen=True):
    """Send one attempt of a step's action, or of its compensation."""

    step: int
    undo: bool
    attempt: int


class AskLedgers(Structure, frozen=True):
    """Ask the participant of every step what it holds under the step's key."""


Command = CallStep | AskLedgers


class Answer(StrEnum):
    """What a caller or operator is told about a request that concerns a saga."""

    ACCEPTED = "accepted"
    ALREADY = "already"
    """It is as the caller wants it; nothing was to be done."""
    CANCEL_TOO_LATE = "cancel_too_late"
    NOT_PARKED = "not_parked"
    IS_PARKED = "is_parked"
    """It waits for an operator, who alone can send it on, or force it back."""
    SKIP_BREAKS_USES = "skip_breaks_uses"
    """A later step needs the result of the step that was to be skipped."""
    NOTHING_TO_SKIP = "nothing_to_skip"
    LEDGERS_NOT_ASKED = "ledgers_not_asked"
    """The journal was restored, and its participants have not all been heard yet; ask again."""


class Decision(Structure, frozen=True):
    """The outcome of deciding.

    Attributes:
        events: What has happened, in order. May be empty: the input changed nothing.
        commands: What to do.
        durable_first: Whether `events`, and all of this saga's before them, must be on
            disk before a command leaves, anybody is told, or the next input is decided.
        answer: For an input that expects one.
    """

    events: tuple[Event, ...] = ()
    commands: tuple[Command, ...] = ()
    durable_first: bool = False
    answer: Answer | None = None


NOTHING = Decision()
"""The input changes nothing."""
