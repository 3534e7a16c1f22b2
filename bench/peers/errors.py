"""Errors of peers."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class PeerMissingError(SagaError):
    """A peer cannot be had on this machine; the others are measured without it.

    Attributes:
        peer: Which.
        message: Why.
    """

    code = "BENCH_PEER_MISSING"

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(peer, message)
        self.peer = peer
        self.message = message

    def __str__(self) -> str:
        return f"{self.peer}: {self.message}"


class PeerFailedError(SagaError):
    """A peer's run came to nothing, or its participants' counts do not add up: no figure.

    Attributes:
        peer: Which.
        message: What happened.
    """

    code = "BENCH_PEER_FAILED"

    def __init__(self, peer: str, message: str) -> None:
        super().__init__(peer, message)
        self.peer = peer
        self.message = message

    def __str__(self) -> str:
        return f"{self.peer}: {self.message}"
