"""Remembers which sagas hold events that no barrier waits for, and since when.

They go to the disk with the saga's next record, or from here once they have waited for
`lazy_flush_ms`: a saga that ends sooner costs no record of its own for them.

Guarantees: what is put is handed to `write` within that time, unless the saga's events were
written otherwise before.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from raysaga.actors.clock import Clock
from raysaga.actors.running import Running

GRAIN = 0.2
"""Share of the time by which an event may be written sooner, so that many share a wake-up."""


class WriteBehind:
    """What one host writes behind."""

    def __init__(self, *, clock: Clock, wait_ms: int, write: Callable[[Running], None]) -> None:
        """Make an empty one; `write` takes a saga whose events have waited for `wait_ms`."""
        self._clock = clock
        self._wait_ms = wait_ms
        self._write = write
        self._waiting: deque[tuple[float, Running]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, running: Running) -> None:
        """Have the events of `running` written, of which the first came just now."""
        running.held_since_ms = self._clock.monotonic_ms()
        self._waiting.append((running.held_since_ms, running))
        if self._timer is None:
            self._wake_in(self._wait_ms)

    def flush(self) -> None:
        """Write all of it now."""
        self.stop()
        self._write_until(math.inf)

    def stop(self) -> None:
        """Write nothing by itself any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake_in(self, wait_ms: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1_000, self._wake)

    def _wake(self) -> None:
        self._timer = None
        grain_ms = self._wait_ms * GRAIN
        now_ms = self._clock.monotonic_ms()
        self._write_until(now_ms - self._wait_ms + grain_ms)
        if self._waiting:
            self._wake_in(max(self._waiting[0][0] + self._wait_ms - now_ms, grain_ms))

    def _write_until(self, until_ms: float) -> None:
        while self._waiting and self._waiting[0][0] <= until_ms:
            since_ms, running = self._waiting.popleft()
            # What it held then may be on disk; what it holds now has a place further behind.
            if running.held and not running.barrier and running.held_since_ms == since_ms:
                self._write(running)
