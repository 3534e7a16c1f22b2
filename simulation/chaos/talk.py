"""The other end of `child`: what a process of a run does with the lines that it is given."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from raysaga.simulation.chaos.child import LINE_BYTES_MAX

Answer = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class Talk:
    """Lines of JSON from standard input, and to what was standard output.

    What else writes to standard output in this process, Ray for one, goes to standard error.
    """

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)
        self._in: asyncio.StreamReader | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def begin(self) -> dict[str, Any]:
        """Return what this process is told first."""
        self._in = asyncio.StreamReader(limit=LINE_BYTES_MAX)
        protocol = asyncio.StreamReaderProtocol(self._in)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        told: dict[str, Any] = json.loads(await self._in.readline())
        return told

    def say(self, **facts: Any) -> None:
        """Tell something."""
        line = json.dumps(facts, separators=(",", ":"), default=str).encode() + b"\n"
        while line:
            line = line[os.write(self._out, line) :]

    async def listen(self, answer: Answer) -> None:
        """Answer orders until the order to stop, or until the conductor is gone."""
        assert self._in is not None
        while line := await self._in.readline():
            order = json.loads(line)
            if order["verb"] == "stop":
                return
            task = asyncio.create_task(self._answer(answer, order))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, answer: Answer, order: dict[str, Any]) -> None:
        number, verb = order.pop("id"), order.pop("verb")
        try:
            self.say(id=number, ok=await answer(verb, order))
        except Exception as error:  # noqa: BLE001 - the conductor must not wait for an answer
            self.say(id=number, error=f"{type(error).__name__}: {error}")
