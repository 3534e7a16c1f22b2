"""A caller of the engine, who asks again when an exchange was lost, and keeps what he is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raysaga.actors.lane import Lane
from raysaga.actors.settings import EngineSettings

from .virtual_time import VirtualClock

RESENT = frozenset({"submit", "watch", "status", "history", "list", "define", "stats"})


class Request:
    """One request, and all that was said to it.

    Attributes:
        told: Kind and body of each message, in order; the same may come again after a resend.
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


class Caller:
    """One caller, with a lane to the shard."""

    def __init__(
        self,
        name: str,
        exchange: Callable[[bytes], Awaitable[bytes]],
        clock: VirtualClock,
        settings: EngineSettings,
    ) -> None:
        self.requests: dict[int, Request] = {}
        self.failures = 0
        self._open: set[int] = set()
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

    def _broken(self, error: BaseException) -> None:
        raise AssertionError("a caller cannot read its answers") from error

    def send(self, operation: str, body: Any) -> Request:
        """Ask, and return at once."""
        request = Request(operation, body)
        number = len(self.requests) + 1
        self.requests[number] = request
        self._open.add(number)
        self._lane.put((number, operation, body))
        return request

    def _received(self, replies: list[list[Any]]) -> None:
        for number, kind, body in replies:
            request = self.requests[number]
            request.told.append((kind, body))
            if kind != "ok" or not request.watches:
                self._open.discard(number)

    def _failed(self, _error: BaseException) -> None:
        self.failures += 1
        self._lane.drop_queued()
        for number in sorted(self._open):
            request = self.requests[number]
            if request.operation in RESENT:
                self._lane.put((number, request.operation, request.body))
            else:
                request.is_lost = True
                self._open.discard(number)


async def answered(request: Request, within_s: float = 60.0) -> Request:
    """Return the request once something was said to it."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + within_s
    while not request.is_answered:
        assert loop.time() < limit, f"{request.operation} {request.body} was not answered"
        await asyncio.sleep(0.001)
    return request
