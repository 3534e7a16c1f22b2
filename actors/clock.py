"""Time as an interface, so that a test or a simulator can own it."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two readings and a wait; instants in milliseconds."""

    def now_ms(self) -> int:
        """Return Unix time. It may jump; nothing that must be safe depends on it."""

    def monotonic_ms(self) -> float:
        """Return a reading that never goes back, for durations within one process."""

    async def sleep_ms(self, delay_ms: float) -> None:
        """Return after `delay_ms` of the monotonic reading."""


class SystemClock:
    """The machine's clock, and the event loop's timers."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        """Return the monotonic clock in milliseconds."""
        return time.monotonic() * 1_000.0

    async def sleep_ms(self, delay_ms: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(max(delay_ms, 0.0) / 1_000.0)
