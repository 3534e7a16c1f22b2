"""Knows Kafka's requests by number, for a proxy before it.

A frame is its length, then for a request the number of what is asked; a response only has
the number of its request (Kafka protocol guide, "Protocol primitives").
"""

from __future__ import annotations

import asyncio
import struct

from .cutting_proxy import Asked, CuttingProxy

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


class KafkaProxy(CuttingProxy):
    """Listens where Kafka tells its clients to connect to; a response is named by its request."""

    @property
    def url(self) -> str:
        return f"kafka://localhost:{self.port}"

    async def read(
        self, source: asyncio.StreamReader, direction: str, asked: Asked
    ) -> tuple[bytes, str]:
        head = await source.readexactly(LENGTH.size)
        rest = await source.readexactly(LENGTH.unpack(head)[0])
        if direction == "in":
            return head + rest, asked.pop(RESPONSE.unpack_from(rest)[0], "")
        number, _, request = REQUEST.unpack_from(rest)
        name = asked[request] = REQUESTS.get(number, "")
        return head + rest, name
