"""What a host and a participant say to each other: calls, questions and replies.

The order of the fields is the wire format; a new field goes last, with a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any

from raysaga.statemachines.structure import Structure


class Outcome(IntEnum):
    """What is known about one attempt. There are three answers, not two."""

    SUCCEEDED = 1
    REFUSED = 2
    """A definite answer that the participant stored under the key, and gives for ever."""
    UNKNOWN = 3
    """A timeout, a lost reply, a crash, an overload: the step may have happened."""


class LedgerStatus(StrEnum):
    """What a participant's ledger holds under one step key."""

    NOTHING = "nothing"
    PENDING = "pending"
    APPLIED = "applied"
    REFUSED = "refused"
    TOMBSTONE = "tombstone"
    UNDONE = "undone"
    UNKNOWN = "unknown"


ACTION, COMPENSATION, QUESTION, RELEASE = 0, 1, 2, 3
"""Verbs of a call: do, undo, tell what you hold, forget (the saga is over)."""


class StepCall(Structure, frozen=True):
    """One attempt of one call to one participant.

    Attributes:
        call_id: Correlates the reply; unique within one host's life.
        verb: One of the four above.
        journal_uuid: Part of the key.
        saga_id: Part of the key.
        step: Part of the key.
        operation: The participant's operation, such as `reserve` or `release`.
        request: The step's request; the same for action and compensation.
        scope: What `epoch` fences.
        epoch: Fencing token of the sender in that scope.
        attempt: Counted from 1 for each direction.
        expires_at_ms: After this instant an action must not take effect. None for the others.
        timeout_ms: How long the sender waits.
    """

    call_id: int
    verb: int
    journal_uuid: str
    saga_id: str
    step: str
    operation: str
    request: Mapping[str, Any]
    scope: str
    epoch: int
    attempt: int
    expires_at_ms: int | None
    timeout_ms: int


class StepReply(Structure, frozen=True):
    """The answer to one attempt.

    Attributes:
        call_id: As in the call.
        verb: As in the call, like the next five: a host trusts no reply that is not its own.
        saga_id: Echo.
        step: Echo.
        epoch: Echo.
        attempt: Echo.
        outcome: `Outcome`, as a number.
        result: What a success gave; for a question `{"status": LedgerStatus, "result": …}`.
        code: Stable code of a refusal or of the reason why nothing is known.
        message: One sentence for people.
        stored: Whether the answer is the ledger row of this key. A refusal counts only if so.
        retry_after_ms: What an overloaded participant asks for.
        duplicate: Whether the answer had been given before.
    """

    call_id: int
    verb: int
    saga_id: str
    step: str
    epoch: int
    attempt: int
    outcome: int
    result: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""
    stored: bool = False
    retry_after_ms: int = 0
    duplicate: bool = False


class Code(StrEnum):
    """Codes that participants and hosts give, beside a participant's own refusals."""

    CANCELLED_BEFORE_START = "CANCELLED_BEFORE_START"
    FENCED = "FENCED"
    EXPIRED = "EXPIRED"
    OVERLOADED = "OVERLOADED"
    TIMEOUT = "TIMEOUT"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    NO_SUCH_PARTICIPANT = "NO_SUCH_PARTICIPANT"
    """The engine was started without the participant, which says nothing about the saga."""
    INVALID_REQUEST = "INVALID_REQUEST"
    UNKNOWN_OPERATION = "UNKNOWN_OPERATION"
    STORAGE_FULL = "STORAGE_FULL"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    CONFLICT = "CONFLICT"
    PENDING = "PENDING"
    """An outside provider has not given its final answer yet."""
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    """Nobody will ever know: the provider cannot be asked, and must not act twice."""
    RELEASED = "RELEASED"
    """The saga is over and its row was settled; there is nothing to undo any more."""


def reply_to(
    call: StepCall,
    outcome: Outcome,
    *,
    result: Mapping[str, Any] | None = None,
    code: str = "",
    message: str = "",
    stored: bool = False,
    retry_after_ms: int = 0,
    duplicate: bool = False,
) -> StepReply:
    """Return a reply that echoes what identifies `call`."""
    return StepReply(
        call.call_id,
        call.verb,
        call.saga_id,
        call.step,
        call.epoch,
        call.attempt,
        int(outcome),
        result,
        code,
        message,
        stored,
        retry_after_ms,
        duplicate,
    )
