"""Traces while a server runs: those of sagas are sent, and those of requests go on.

Guarantees: a collector that does not answer delays the traces and nothing else; none is
dropped while the server runs, since what is to be sent is in the folder.
Refuses: nothing.
Costs: see `follower`; the folder is read in the server's one reading thread, a hundred
sagas at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

import structlog

from raysaga.actors.archive import Archive
from raysaga.api.traces.errors import TracesNotSentError
from raysaga.api.traces.follower import Follower
from raysaga.api.traces.otel import TraceSink, caller_of, otlp_sink, provide
from raysaga.api.traces.spans import Span

LOOK_EVERY_S = 1.0

SAGAS_MAX = 100
"""Sagas read and sent at once; ten to twenty milliseconds of the reading thread."""

LOOKED_BACK_MS = 600_000
"""What was accepted so long before the server began is sent as well, perhaps again: spans
keep their ids, and nobody sent what ended while no server ran."""

Read = Callable[[Callable[[Archive], Any]], Awaitable[Any]]


class Tracing:
    """Sends traces from `start` to `stop`.

    Attributes:
        caller_of: Goes on in the trace that a request's headers name.
    """

    def __init__(self, sink: TraceSink, share: float, *, end: Callable[[], None]) -> None:
        """Make one.

        Args:
            sink: Where the spans of sagas go; closed by `stop`.
            share: Of the sagas that complete, how many are told: 0 to 1.
            end: Sends what is left of the marks of requests.
        """
        self.caller_of = caller_of
        self._sink = sink
        self._share = share
        self._end = end
        self._task: asyncio.Task[None] | None = None

    def start(self, read: Read) -> None:
        """Begin; needs a running event loop.

        Args:
            read: Asks the archive in its own thread.
        """
        self._task = asyncio.get_running_loop().create_task(self._send_for_ever(read))
        self._task.add_done_callback(_tell_defect)

    async def stop(self) -> None:
        """Send no more; what has ended since is sent by the next that starts."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._sink.close)
        await asyncio.to_thread(self._end)

    async def _send_for_ever(self, read: Read) -> None:
        since_ms = time.time_ns() // 1_000_000 - LOOKED_BACK_MS
        follower = await read(
            lambda archive: Follower(archive, since_ms=since_ms, share=self._share)
        )
        while True:
            looking = follower.look()

            def traces(_archive: Archive) -> list[tuple[str, list[Span]]]:
                return [(one, follower.trace(one)) for one in islice(looking, SAGAS_MAX)]  # noqa: B023

            while batch := await read(traces):
                await self._send(batch)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _send(self, batch: Sequence[tuple[str, Sequence[Span]]]) -> None:
        is_told = False
        while True:
            try:
                await asyncio.to_thread(self._sink.send, batch)
                return
            except TracesNotSentError as error:
                if not is_told:
                    structlog.get_logger().warning("traces_not_sent", reason=error.detail)
                is_told = True
                await asyncio.sleep(LOOK_EVERY_S)


def _tell_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        structlog.get_logger().error("traces_stopped", exc_info=task.exception())


def otlp_tracing(journal_uuid: str, share: float) -> Tracing:
    """Return what sends to the collector that the environment names.

    Raises:
        TracingMissingError: If the packages are not installed.
    """
    return Tracing(otlp_sink(journal_uuid), share, end=provide())
