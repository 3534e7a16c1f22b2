"""Knows the frames of AMQP 0-9-1 (specification, section 2.3), for a proxy before RabbitMQ."""

from __future__ import annotations

import asyncio
import struct

from .cutting_proxy import Asked, CuttingProxy

GREETING_BYTES = 8
HEADER = struct.Struct(">BHI")
METHOD = struct.Struct(">HH")
METHOD_FRAME = 1

METHODS = {
    (10, 31): "connection.tune-ok",
    (10, 40): "connection.open",
    (20, 10): "channel.open",
    (50, 10): "queue.declare",
    (50, 11): "queue.declare-ok",
    (60, 20): "basic.consume",
    (60, 21): "basic.consume-ok",
    (60, 40): "basic.publish",
    (60, 60): "basic.deliver",
    (60, 80): "basic.ack",
}


class AmqpProxy(CuttingProxy):
    """Listens on a port of its own; frames are named by their methods."""

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    async def greet(self, inner: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        there.write(await inner.readexactly(GREETING_BYTES))

    async def read(
        self, source: asyncio.StreamReader, direction: str, asked: Asked
    ) -> tuple[bytes, str]:
        head = await source.readexactly(HEADER.size)
        kind, _, size = HEADER.unpack(head)
        # One byte more: each frame has an end of its own.
        rest = await source.readexactly(size + 1)
        name = METHODS.get(METHOD.unpack_from(rest), "") if kind == METHOD_FRAME else ""
        return head + rest, name
