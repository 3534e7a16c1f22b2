"""An application behind a server that only knows ASGI is open from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from raysaga.api.http.lifespan import Opened


class Life:
    """A server's conversation with an application about its life."""

    def __init__(self, app: ASGIApp) -> None:
        self._said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        life = app({"type": "lifespan"}, self._said.get, self.heard.put)
        self.task = asyncio.ensure_future(life)  # type: ignore[arg-type]

    async def say(self, kind: str) -> dict[str, Any]:
        """Say something, and return the answer."""
        self._said.put_nowait({"type": f"lifespan.{kind}"})
        return dict(await asyncio.wait_for(self.heard.get(), 10))


async def test_requests_are_served_between_the_start_and_the_end() -> None:
    happened: list[str] = []

    @asynccontextmanager
    async def opening() -> AsyncIterator[ASGIApp]:
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            happened.append(scope["path"])

        happened.append("opened")
        yield served
        happened.append("closed")

    app = Opened(opening)
    life = Life(app)
    assert await life.say("startup") == {"type": "lifespan.startup.complete"}
    await app({"type": "http", "path": "/"}, None, None)  # type: ignore[arg-type]
    assert await life.say("shutdown") == {"type": "lifespan.shutdown.complete"}
    await life.task
    assert happened == ["opened", "/", "closed"]
    with pytest.raises(AssertionError, match="lifespan"):
        await app({"type": "http", "path": "/"}, None, None)  # type: ignore[arg-type]


async def test_what_cannot_be_opened_is_told_to_the_server() -> None:
    @asynccontextmanager
    async def opening() -> AsyncIterator[ASGIApp]:
        raise ConnectionError("no engine")
        yield

    life = Life(Opened(opening))
    told = await life.say("startup")
    assert told == {"type": "lifespan.startup.failed", "message": "no engine"}
    with pytest.raises(ConnectionError):
        await life.task
