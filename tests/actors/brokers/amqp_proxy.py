"""Stands between a client and RabbitMQ, knows the frames of AMQP 0-9-1, and cuts where it is told.

What passes is read frame by frame (specification 0-9-1, section 2.3), so that a test can
say "cut before the third publish" and mean exactly that, run after run.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

HEADER = struct.Struct(">BHI")
METHOD_FRAME = 1

METHODS = {
    "connection.tune-ok": (10, 31),
    "connection.open": (10, 40),
    "channel.open": (20, 10),
    "queue.declare": (50, 10),
    "queue.declare-ok": (50, 11),
    "basic.consume": (60, 20),
    "basic.consume-ok": (60, 21),
    "basic.publish": (60, 40),
    "basic.deliver": (60, 60),
    "basic.ack": (60, 80),
}
_NAMES = {number: name for name, number in METHODS.items()}


class AmqpProxy:
    """Listens on a port of its own.

    Attributes:
        cut_at: Method, `in` or `out` as the client sees it, and whether the frame still passes;
            None for never. It is done once.
        cuts: How often it has cut by itself.
        seen: The methods that have passed, with their direction.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.cut_at: tuple[str, str, bool] | None = None
        self.cuts = 0
        self.stalled = asyncio.Event()
        self.stalled.set()
        self.seen: list[tuple[str, str]] = []

    async def __aenter__(self) -> AmqpProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
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
            outer, there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            back.transport.abort()
            return
        self._ends |= {back, there}
        with suppress(OSError, asyncio.IncompleteReadError):
            there.write(await inner.readexactly(8))
            await asyncio.gather(
                self._pass(inner, there, "out"),
                self._pass(outer, back, "in"),
            )
        for end in (back, there):
            end.transport.abort()
            self._ends.discard(end)

    async def _pass(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, direction: str
    ) -> None:
        while True:
            head = await source.readexactly(HEADER.size)
            kind, _, size = HEADER.unpack(head)
            rest = await source.readexactly(size + 1)
            await self.stalled.wait()
            name = ""
            if kind == METHOD_FRAME:
                name = _NAMES.get(struct.unpack_from(">HH", rest)[:2], "")
                self.seen.append((name, direction))
            is_here = self.cut_at is not None and self.cut_at[:2] == (name, direction)
            if is_here:
                assert self.cut_at is not None
                passes, self.cut_at = self.cut_at[2], None
                if passes:
                    to.write(head + rest)
                    await to.drain()
                self.cuts += 1
                self.cut()
                raise ConnectionResetError
            to.write(head + rest)
            await to.drain()
