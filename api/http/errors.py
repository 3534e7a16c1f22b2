"""What only HTTP can be refused for, each with its code."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class KeyMissingError(SagaError):
    """A submission names no idempotency key, so that a repeat could not be told from a second."""

    code = "IDEMPOTENCY_KEY_MISSING"

    def __str__(self) -> str:
        return "give an Idempotency-Key header: 1 to 100 of A-Z a-z 0-9 . _ : -"


class RateLimitedError(SagaError):
    """The caller sends more requests than it may.

    Attributes:
        retry_after_ms: When the next one is taken.
    """

    code = "RATE_LIMITED"
    retryable = True

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(retry_after_ms)
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"too many requests; try again in {self.retry_after_ms} ms"


class StreamsFullError(SagaError):
    """As many event streams are open as may be.

    Attributes:
        streams_max: How many that is.
    """

    code = "STREAMS_FULL"
    retryable = True

    def __init__(self, streams_max: int) -> None:
        super().__init__(streams_max)
        self.streams_max = streams_max

    def __str__(self) -> str:
        return f"{self.streams_max} event streams are open already; try again later"


class UnauthenticatedError(SagaError):
    """The request carries no token that is known."""

    code = "UNAUTHENTICATED"

    def __str__(self) -> str:
        return "give a known token: Authorization: Bearer TOKEN"


class ForbiddenError(SagaError):
    """The token may not do this.

    Attributes:
        right: What it lacks.
    """

    code = "FORBIDDEN"

    def __init__(self, right: str) -> None:
        super().__init__(right)
        self.right = right

    def __str__(self) -> str:
        return f"this needs a token with the right {self.right!r}"


class ForeignOriginError(SagaError):
    """A page of another host asks for this."""

    code = "FOREIGN_ORIGIN"

    def __str__(self) -> str:
        return "pages of other hosts may not do this"


class ForeignHostError(SagaError):
    """The request was meant for another host: a name that leads here without our knowing."""

    code = "FOREIGN_HOST"

    def __str__(self) -> str:
        return "this server does not answer to that name; see --host and --allow-host"


class PayloadTooLargeError(SagaError):
    """The body is larger than may be.

    Attributes:
        body_bytes_max: The bound.
    """

    code = "PAYLOAD_TOO_LARGE"

    def __init__(self, body_bytes_max: int) -> None:
        super().__init__(body_bytes_max)
        self.body_bytes_max = body_bytes_max

    def __str__(self) -> str:
        return f"a body must not exceed {self.body_bytes_max} bytes"


class BodyTooSlowError(SagaError):
    """The body did not arrive in time; nothing was begun.

    Attributes:
        body_wait_s: The bound.
    """

    code = "BODY_TOO_SLOW"
    retryable = True

    def __init__(self, body_wait_s: float) -> None:
        super().__init__(body_wait_s)
        self.body_wait_s = body_wait_s

    def __str__(self) -> str:
        return f"the body did not arrive within {self.body_wait_s} s"


class MediaTypeError(SagaError):
    """The body is not said to be JSON.

    A form of a foreign page can be sent without its host being asked first; JSON cannot.
    """

    code = "UNSUPPORTED_MEDIA_TYPE"

    def __str__(self) -> str:
        return "send JSON, and say so: Content-Type: application/json"


class NotReadyError(SagaError):
    """The engine cannot take new sagas now.

    Attributes:
        reasons: Why, one sentence each.
    """

    code = "NOT_READY"
    retryable = True

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "; ".join(self.reasons)
