"""Looks at the engine again and again, once for all who watch it, and remembers a while.

Guarantees: a look is never older than the pause between two; who comes new is given what
the last minutes were like at once. An engine that does not answer is told as such.
Costs: one question to each shard and one row of each journal a second.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import structlog

from raysaga.actors.archive import Archive
from raysaga.api.client import Sagas
from raysaga.api.engine_rows import AnswerTimes, told_times
from raysaga.api.http.quantiles import Counts, grown, summed
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.tables import PARKED, TERMINAL

LOOKS_KEPT = 300
"""Looks that are remembered: five minutes of them, as much as a chart shows."""

_log = structlog.get_logger()

Read = Callable[[Callable[[Archive], Any]], Awaitable[Any]]


class Pulse:
    """The engine's last minutes; see the head of this module.

    Attributes:
        answer_times: Of participants.
    """

    def __init__(self, sagas: Sagas, read: Read, settings: HttpSettings) -> None:
        self._sagas = sagas
        self._read = read
        self._settings = settings
        self._looks: deque[dict[str, Any]] = deque(maxlen=LOOKS_KEPT)
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._ends: dict[str, Counts] = {}
        self.answer_times = AnswerTimes()

    def start(self) -> None:
        """Begin to look; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._look_for_ever())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def shards(self) -> list[Mapping[str, Any]]:
        """Return what each shard says of itself.

        Raises:
            TimeoutError: If the engine does not answer in time.
        """
        async with asyncio.timeout(self._settings.ready_wait_s):
            return list(await self._sagas.stats())

    async def participants(self) -> Mapping[str, Mapping[str, Any]]:
        """Return what each participant says of itself, by name; none if one does not answer."""
        try:
            async with asyncio.timeout(self._settings.ready_wait_s):
                return await self._sagas.participant_stats()
        except (TimeoutError, SagaError):
            return {}

    async def follow(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the looks there are, and then each new one."""
        seen_at_ms = 0
        while True:
            new = [look for look in self._looks if look["at_ms"] > seen_at_ms]
            if new:
                seen_at_ms = new[-1]["at_ms"]
                yield new
            async with self._looked:
                await self._looked.wait()

    def _times(self, shards: list[Mapping[str, Any]]) -> dict[str, float | None]:
        """Return how long those took that have ended since the look before."""
        rows = [row for shard in shards for row in shard["measures"]["sagas"]]
        ends = summed((row for row in rows if row["outcome"] != "parked"), "outcome")
        self.answer_times.add(shards)
        new, self._ends = grown(ends, self._ends), ends
        bounds_ms = shards[0]["measures"]["bounds_ms"] if shards else []
        return told_times(bounds_ms, [sum(one) for one in zip(*new.values(), strict=True)])

    async def _look_for_ever(self) -> None:
        while True:
            try:
                look = await self._look()
            except SagaError as error:
                # The folder cannot be read now; what is wrong with it, whoever asks is told.
                _log.warning("look_failed", code=error.code)
            else:
                self._looks.append(look)
                async with self._looked:
                    self._looked.notify_all()
            await asyncio.sleep(self._settings.look_every_s)

    async def _look(self) -> dict[str, Any]:
        """Return one look; its rates are since the look before."""
        counts: dict[str, int] = await self._read(lambda archive: archive.counts())
        try:
            times = self._times(await self.shards())
        except (TimeoutError, SagaError):
            times = None
        now_ms = time.time_ns() // 1_000_000
        look = {
            "at_ms": now_ms,
            "engine_running": times is not None,
            **(times or {"p50_ms": None, "p95_ms": None}),
            "counts": counts,
            "open": sum(n for phase, n in counts.items() if phase not in TERMINAL),
            "parked": sum(n for phase, n in counts.items() if phase in PARKED),
            "begun": sum(counts.values()),
            **{f"{name}_per_s": 0.0 for name in ("begun", *TERMINAL)},
        }
        if self._looks:
            before = self._looks[-1]
            elapsed_s = max(now_ms - before["at_ms"], 1) / 1_000
            for name, now, then in (
                ("begun", look["begun"], before["begun"]),
                *((phase, counts[phase], before["counts"][phase]) for phase in TERMINAL),
            ):
                # Pruning makes counts smaller; that is no negative throughput.
                look[f"{name}_per_s"] = round(max(0, now - then) / elapsed_s, 2)
        return look
