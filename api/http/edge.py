"""What every request passes first: whom it was meant for, where it comes from, what goes back.

Guarantees: a page of another host can neither change anything here nor read an answer
(no CORS header is ever sent), and a foreign name that was made to lead to this machine
(DNS rebinding) is not answered at all. Every answer forbids its content to load, to be
framed or to be guessed at.
Costs: a few comparisons; bodies pass untouched.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raysaga.api.http.errors import ForeignHostError, ForeignOriginError
from raysaga.api.http.problems import problem_of
from raysaga.statemachines.errors import SagaError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""With each answer. Scripts and styles come from this server's own files only."""

OVERRIDING = (b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
"""With these a client could tell Ray Serve how long to work for it; they are taken off."""


class WithoutOverrides:
    """An ASGI application around another one, which never sees `OVERRIDING`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in OVERRIDING]
        await self._app(scope, receive, send)


class Edge:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None) -> None:
        """Make one.

        Args:
            app: What is behind it.
            names: The host names it answers to; None for all, where tokens guard it.
        """
        self._app = WithoutOverrides(app)
        self._names = None if names is None else frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await problem_of(scope["path"], refusal)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> SagaError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._names is not None and _name_of(f"//{host}") not in self._names:
            return ForeignHostError()
        origin = headers.get("origin")
        if scope["method"] in SAFE_METHODS or origin is None:
            return None
        # Compared without the scheme: a proxy in front of us may have ended the TLS.
        return None if origin.partition("://")[2] == host else ForeignOriginError()


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
