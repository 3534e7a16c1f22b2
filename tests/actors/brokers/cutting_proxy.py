"""Stands between clients and a broker, passes frame by frame, and cuts where it is told.

So a test can say "cut before the third publish" and mean exactly that, run after run. What a
frame is, and what it is called, the proxy for each protocol knows.
"""

from __future__ import annotations

import abc
import asyncio
from contextlib import suppress
from typing import Self

Asked = dict[int, str]
"""What was asked for on one connection and not answered yet, by its number."""


class CuttingProxy(abc.ABC):
    """Listens for clients, and connects each of them to the broker.

    Attributes:
        cut_at: Name of a frame, `in` or `out` as the client sees it, and whether the frame still
            passes; None for never. It is done once.
        cuts: How often it has cut by itself.
        stalled: Set while frames pass; cleared, they wait.
        port: Where it listens, once it does.
    """

    def __init__(self, broker_port: int, port: int = 0) -> None:
        """Make a proxy for the broker at `broker_port` that will listen at `port`, 0 for any."""
        self.cut_at: tuple[str, str, bool] | None = None
        self.cuts = 0
        self.stalled = asyncio.Event()
        self.stalled.set()
        self.port = port
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @abc.abstractmethod
    async def read(
        self, source: asyncio.StreamReader, direction: str, asked: Asked
    ) -> tuple[bytes, str]:
        """Return the next frame, and its name; empty if it is none that a test asks for."""

    async def greet(  # noqa: B027 - optional
        self, inner: asyncio.StreamReader, there: asyncio.StreamWriter
    ) -> None:
        """Pass what a client sends before its first frame."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.stalled.set()
        self.cut()

    def cut(self) -> None:
        """Cut every connection, as when a cable is pulled and a firewall resets."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def _connected(self, inner: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            outer, there = await asyncio.open_connection("127.0.0.1", self._broker_port)
        except OSError:
            back.transport.abort()
            return
        self._ends |= {back, there}
        asked: Asked = {}
        with suppress(OSError, asyncio.IncompleteReadError):
            await self.greet(inner, there)
            await asyncio.gather(
                self._pass(inner, there, "out", asked), self._pass(outer, back, "in", asked)
            )
        for end in (back, there):
            end.transport.abort()
            self._ends.discard(end)

    async def _pass(
        self,
        source: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        direction: str,
        asked: Asked,
    ) -> None:
        while True:
            frame, name = await self.read(source, direction, asked)
            await self.stalled.wait()
            is_here = self.cut_at is not None and self.cut_at[:2] == (name, direction)
            if not is_here:
                to.write(frame)
                await to.drain()
                continue
            assert self.cut_at is not None
            passes, self.cut_at = self.cut_at[2], None
            if passes:
                to.write(frame)
                await to.drain()
            self.cuts += 1
            self.cut()
            raise ConnectionResetError
