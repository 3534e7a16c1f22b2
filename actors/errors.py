"""What a caller of the engine can be told, with codes to act on."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class IdempotencyConflictError(SagaError):
    """The key is in use for a request with another body; nothing was changed.

    Attributes:
        saga_id: The saga that has the key.
    """

    code = "IDEMPOTENCY_CONFLICT"

    def __init__(self, saga_id: str) -> None:
        super().__init__(saga_id)
        self.saga_id = saga_id

    def __str__(self) -> str:
        return f"{self.saga_id} exists with another body; use a new key for a new request"


class OverloadedError(SagaError):
    """The engine admits no more for now; nothing was written.

    Attributes:
        retry_after_ms: When to try again.
    """

    code = "OVERLOADED"
    retryable = True

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(retry_after_ms)
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"too many sagas are under way; try again in {self.retry_after_ms} ms"


class SagaNotFoundError(SagaError):
    """No saga has this id.

    Attributes:
        saga_id: What was asked for.
    """

    code = "NOT_FOUND"

    def __init__(self, saga_id: str) -> None:
        super().__init__(saga_id)
        self.saga_id = saga_id

    def __str__(self) -> str:
        return f"there is no saga {self.saga_id!r}"


class CancelTooLateError(SagaError):
    """The saga has passed the point from which it can be undone.

    Attributes:
        saga_id: The saga.
        phase: Where it stands.
    """

    code = "CANCEL_TOO_LATE"

    def __init__(self, saga_id: str, phase: str) -> None:
        super().__init__(saga_id, phase)
        self.saga_id = saga_id
        self.phase = phase

    def __str__(self) -> str:
        return f"{self.saga_id} is {self.phase} and can no longer be cancelled"


class OperatorRefusedError(SagaError):
    """An operator's order does not fit where the saga stands; nothing was changed.

    Attributes:
        saga_id: The saga.
        answer: Why: the name of an `Answer`.
    """

    code = "ORDER_REFUSED"

    def __init__(self, saga_id: str, answer: str) -> None:
        super().__init__(saga_id, answer)
        self.saga_id = saga_id
        self.answer = answer

    def __str__(self) -> str:
        reasons = {
            "not_parked": "it is not parked",
            "is_parked": "it is parked; an operator can force it back",
            "skip_breaks_uses": "a later step needs the result of the step to skip",
            "nothing_to_skip": "no step of it has given up",
            "ledgers_not_asked": "its journal was restored and its participants are still being "
            "asked what they hold; try again shortly",
        }
        return f"{self.saga_id}: {reasons.get(self.answer, self.answer)}"


class EngineUnavailableError(SagaError):
    """The engine did not answer; what was asked may or may not have happened.

    Asking again with the same key is safe.

    Attributes:
        detail: What was tried.
    """

    code = "SERVICE_UNAVAILABLE"
    retryable = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"the engine does not answer ({self.detail}); the same request can be repeated"


class ResultTimeoutError(SagaError):
    """The saga has not ended in the time the caller would wait; it goes on.

    Attributes:
        saga_id: The saga.
        timeout_ms: How long was waited.
    """

    code = "TIMEOUT"
    retryable = True

    def __init__(self, saga_id: str, timeout_ms: int) -> None:
        super().__init__(saga_id, timeout_ms)
        self.saga_id = saga_id
        self.timeout_ms = timeout_ms

    def __str__(self) -> str:
        return f"{self.saga_id} has not ended within {self.timeout_ms} ms; it goes on"


class ParticipantNotFoundError(SagaError):
    """A participant cannot be made: what its function was called leads nowhere.

    Attributes:
        participant: The participant.
        target: What was to make it, as `module:function`.
        detail: What was not found.
    """

    code = "PARTICIPANT_NOT_FOUND"

    def __init__(self, participant: str, target: str, detail: str) -> None:
        super().__init__(participant, target, detail)
        self.participant = participant
        self.target = target
        self.detail = detail

    def __str__(self) -> str:
        return (
            f"participant {self.participant!r} cannot be made by {self.target!r}: {self.detail}; "
            "name a MODULE:FUNCTION that every process of the engine can import: install the "
            "module, or put its folder on PYTHONPATH"
        )
