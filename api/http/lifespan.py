"""Opens an application when its server starts, and closes it when the server ends (ASGI lifespan).

For servers that are given an application and not what opens one, such as Ray Serve's.
Guarantees: no request reaches it before it is open, nor after it was closed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send


class Opened:
    """An ASGI application that opens another one."""

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[ASGIApp]]) -> None:
        self._opening = opening
        self._stack = AsyncExitStack()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or one life of the server."""
        if scope["type"] != "lifespan":
            assert self._app is not None, "the server has not started its lifespan"
            await self._app(scope, receive, send)
            return
        await receive()
        try:
            self._app = await self._stack.enter_async_context(self._opening())
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._app = None
        await self._stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})
