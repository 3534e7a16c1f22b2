"""What only a caller's process can raise: outcomes that are no success, and what is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from raysaga.statemachines.errors import SagaError


class MissingPackageError(SagaError):
    """What was asked for needs a package that is not installed.

    Attributes:
        package: Its name.
        extra: How to install it.
    """

    code = "PACKAGE_MISSING"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(package, extra)
        self.package = package
        self.extra = extra

    def __str__(self) -> str:
        return f"this needs {self.package}: {self.extra}"


class ParticipantNotServedError(SagaError):
    """An engine runs already, and does not serve a participant that was named.

    Attributes:
        participants: Those that it does not serve.
        served: Those that it does.
    """

    code = "PARTICIPANT_NOT_SERVED"

    def __init__(self, participants: Sequence[str], served: Sequence[str]) -> None:
        super().__init__(participants, served)
        self.participants = participants
        self.served = served

    def __str__(self) -> str:
        return (
            f"the engine that runs on this folder does not serve {', '.join(self.participants)}, "
            f"but {', '.join(self.served)}; participants count when an engine starts: end it, "
            "and start it with them"
        )


class NotCompletedError(SagaError):
    """The saga did not complete.

    Attributes:
        saga_id: The saga.
        reason_code: Why; a participant's code, or the engine's.
        message: The same for people.
        step: The step that it is about; empty if none.
        helps_under_new_key: Whether the same request can succeed later under another key.
            Under the same key the answer never changes.
    """

    code = "NOT_COMPLETED"
    helps_under_new_key: ClassVar[bool] = False

    def __init__(self, saga_id: str, reason_code: str, message: str, step: str) -> None:
        super().__init__(saga_id, reason_code, message, step)
        self.saga_id = saga_id
        self.reason_code = reason_code
        self.message = message
        self.step = step

    def __str__(self) -> str:
        at = f" at {self.step}" if self.step else ""
        return f"{self.saga_id}: {self.reason_code}{at}: {self.message}"


class RolledBackError(NotCompletedError):
    """The saga was undone. Its key is used up: a new try needs a new key."""

    code = "ROLLED_BACK"


class InsufficientStockError(RolledBackError):
    """There was not enough stock; nothing was charged."""

    code = "INSUFFICIENT_STOCK"


class PaymentDeclinedError(RolledBackError):
    """The payment was declined; the stock was released."""

    code = "PAYMENT_DECLINED"


class ServiceUnavailableError(RolledBackError):
    """A participant could not be reached for as long as its step may wait.

    Not `retryable`, for the same key is answered with this rollback for ever.
    """

    code = "STEP_UNAVAILABLE"
    helps_under_new_key = True

    def __str__(self) -> str:
        return f"{super().__str__()}; try again later under a new key"


class CancelledError(RolledBackError):
    """A caller cancelled the saga."""

    code = "CANCELLED"


class ParkedError(NotCompletedError):
    """The saga waits for an operator; it is neither done nor undone yet."""

    code = "PARKED"


ROLLED_BACK: Mapping[str, type[RolledBackError]] = {
    "INSUFFICIENT_STOCK": InsufficientStockError,
    "PAYMENT_DECLINED": PaymentDeclinedError,
    "SERVICE_UNAVAILABLE": ServiceUnavailableError,
    "TIMEOUT": ServiceUnavailableError,
    "OVERLOADED": ServiceUnavailableError,
    "CANCELLED": CancelledError,
}
"""Reason of a rollback to the error that tells it; all others are `RolledBackError`."""
