"""What can go wrong between us and a broker, as facts; no sentence holds a password."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class BrokerAddressError(SagaError):
    """An address names no broker that can be talked to; nothing was connected.

    Attributes:
        address: What was given, without its password.
        message: What is wrong with it.
    """

    code = "BROKER_ADDRESS_INVALID"

    def __init__(self, address: str, message: str) -> None:
        super().__init__(address, message)
        self.address = address
        self.message = message

    def __str__(self) -> str:
        return f"{self.address}: {self.message}"


class BrokerUnavailableError(SagaError):
    """The broker cannot be reached, or the connection is gone; a message may have been taken.

    Attributes:
        address: The broker, without its password.
        reason: What the client library said.
    """

    code = "BROKER_UNAVAILABLE"
    retryable = True

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.address} cannot be reached ({self.reason})"


class BrokerRefusedError(SagaError):
    """The broker answers and says no: wrong credentials, a wrong certificate, no permission.

    Attributes:
        address: The broker, without its password.
        reason: What it said.
    """

    code = "BROKER_REFUSED"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.address} refuses us ({self.reason}); check the credentials and certificates"


class NotPublishedError(SagaError):
    """The broker has not taken a message: its queue is missing, or full.

    Attributes:
        queue: Where it was to go.
        reason: What the broker said.
    """

    code = "NOT_PUBLISHED"
    retryable = True

    def __init__(self, queue: str, reason: str) -> None:
        super().__init__(queue, reason)
        self.queue = queue
        self.reason = reason

    def __str__(self) -> str:
        return f"the broker has not taken a message for {self.queue!r} ({self.reason})"


class EnvelopeError(SagaError):
    """A message is none of ours, and will not become one by being delivered again.

    Attributes:
        reason: Stable code, as dead letters carry it.
        message: What is wrong, in one sentence, without the offending value.
    """

    code = "ENVELOPE_INVALID"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"
