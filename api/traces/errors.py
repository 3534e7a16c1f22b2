"""Why traces could not be sent."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class TracesNotSentError(SagaError):
    """The collector did not take what it was sent; sending again is safe, by the ids.

    Attributes:
        detail: What is known of it, in one sentence.
    """

    code = "TRACES_NOT_SENT"
    retryable = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"traces were not sent: {self.detail}"


class TracingMissingError(SagaError):
    """The packages that send traces are not installed."""

    code = "TRACING_MISSING"

    def __str__(self) -> str:
        return "to send traces, install them: pip install 'raysaga[tracing]'"
