"""Stands between clients and Kafka, knows its requests by number, and cuts where it is told.

A frame is its length, then for a request the number of what is asked; a response only has
the number of its request (Kafka protocol guide, "Protocol primitives").
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

LENGTH = struct.Struct(">i")
REQUEST = struct.Struct(">hhi")
RESPONSE = struct.Struct(">i")

REQUESTS = {
    0: "produce",
    1: "fetch",
    3: "metadata",
    8: "offset-commit",
    9: "offset-fetch",
    10: "find-coordinator",
    11: "join-group",
    14: "sync-group",
    18: "api-versions",
    19: "create-topics",
    22: "init-producer-id",
}


class KafkaProxy:
    """Listens where Kafka tells its clients to connect to.

    Attributes:
        cut_at: Request, `out` for itself and `in` for its response, and whether the frame still
            passes; None for never. It is done once.
        cuts: How often it has cut by itself.
        stalled: Set while frames pass; cleared, they wait.
    """

    def __init__(self, port: int, target_port: int) -> None:
        self.cut_at: tuple[str, str, bool] | None = None
        self.cuts = 0
        self.stalled = asyncio.Event()
        self.stalled.set()
        self._port = port
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"kafka://localhost:{self._port}"

    async def __aenter__(self) -> KafkaProxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
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
            outer, there = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            back.transport.abort()
            return
        self._ends |= {back, there}
        asked: dict[int, str] = {}
        with suppress(OSError, asyncio.IncompleteReadError):
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
        asked: dict[int, str],
    ) -> None:
        while True:
            head = await source.readexactly(LENGTH.size)
            rest = await source.readexactly(LENGTH.unpack(head)[0])
            await self.stalled.wait()
            if direction == "out":
                number, _, request = REQUEST.unpack_from(rest)
                name = asked[request] = REQUESTS.get(number, "")
            else:
                name = asked.pop(RESPONSE.unpack_from(rest)[0], "")
            if self.cut_at is not None and self.cut_at[:2] == (name, direction):
                passes, self.cut_at = self.cut_at[2], None
                if passes:
                    to.write(head + rest)
                    await to.drain()
                self.cuts += 1
                self.cut()
                raise ConnectionResetError
            to.write(head + rest)
            await to.drain()
