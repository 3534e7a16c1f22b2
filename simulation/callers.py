"""A caller of the engine, who asks again when an exchange was lost, and keeps what he is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raysaga.actors.clock import Clock
from raysaga.actors.lane import Lane
from raysaga.actors.settings import EngineSettings

RESENT = frozenset({"submit", "watch", "status", "history", "list", "define", "stats"})
"""Operations that may be asked twice; as the gateway has it."""


class Request:
    """One request, and all that was said to it.

    Attributes:
        operation: What was asked.
        body: With what.
        told: Kind and body of each message, in order; the same may come again after a resend.
        is_lost: Whether nobody will ever know what became of it.
    """

    def __init__(self, operation: str, body: Any) -> None:
        self.operation = operation
        self.body = body
        self.told: list[tuple[str, Any]] = []
        self.is_lost = False

    @property
    def watches(self) -> bool:
        """Whether it is told the end, after the answer."""
        if self.operation == "submit" and isinstance(self.body, list):
            return self.body[-1:] == [True]
        return self.operation == "watch"

    @property
    def is_answered(self) -> bool:
        """Whether there is nothing to wait for but an end."""
        return bool(self.told) or self.is_lost

    @property
    def ok(self) -> Any:
        """What it was answered, if it was granted; else None."""
        return next((body for kind, body in self.told if kind == "ok"), None)

    @property
    def error(self) -> str | None:
        """The code that it was refused with; else None."""
        return next((body[0] for kind, body in self.told if kind == "error"), None)

    @property
    def ended(self) -> Mapping[str, Any] | None:
        """The outcome that was told."""
        return next((body for kind, body in self.told if kind == "ended"), None)


def _hear_nothing(_request: Request, _kind: str, _body: Any) -> None:
    pass


class Caller:
    """One caller, with a lane to one shard.

    Attributes:
        requests: All that he asked, by number.
        failures: Exchanges that were lost.
    """

    def __init__(
        self,
        name: str,
        exchange: Callable[[bytes], Awaitable[bytes]],
        clock: Clock,
        settings: EngineSettings,
        heard: Callable[[Request, str, Any], None] = _hear_nothing,
    ) -> None:
        self.requests: dict[int, Request] = {}
        self.failures = 0
        self._heard = heard
        # In the order of asking.
        self._open: dict[int, None] = {}
        self._lane = Lane(
            sender=name,
            exchange=exchange,
            receive=self._received,
            failed=self._failed,
            defect=self._broken,
            expects=lambda: bool(self._open),
            clock=clock,
            settings=settings,
        )

    @property
    def open_requests(self) -> list[Request]:
        """Requests that something is still awaited for."""
        return [self.requests[number] for number in self._open]

    def _broken(self, error: BaseException) -> None:
        raise AssertionError("a caller cannot read its answers") from error

    def send(self, operation: str, body: Any) -> Request:
        """Ask, and return at once."""
        request = Request(operation, body)
        number = len(self.requests) + 1
        self.requests[number] = request
        self._open[number] = None
        self._lane.put((number, operation, body))
        return request

    def _received(self, replies: list[list[Any]]) -> None:
        for number, kind, body in replies:
            request = self.requests[number]
            request.told.append((kind, body))
            self._heard(request, kind, body)
            if kind != "ok" or not request.watches:
                self._open.pop(number, None)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self._lane.drop_queued()
        for number in list(self._open):
            request = self.requests[number]
            if request.operation in RESENT:
                self._lane.put((number, request.operation, request.body))
            else:
                request.is_lost = True
                del self._open[number]
                self._heard(request, "lost", type(error).__name__)
