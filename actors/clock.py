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


class JumpGuard:
    """Notices a wall clock that jumped forward, and grants deadlines one grace period.

    A clock that is set, or a machine that was suspended, must not expire every
    saga at once. Retries and safety do not depend on it.

    Attributes:
        jump_count: Jumps noticed so far.
    """

    def __init__(self, clock: Clock, *, jump_ms: int, grace_ms: int) -> None:
        self._clock = clock
        self._jump_ms = jump_ms
        self._grace_ms = grace_ms
        self._offset_ms = clock.now_ms() - clock.monotonic_ms()
        self._until_ms = 0.0
        self.jump_count = 0

    def grace_left_ms(self) -> int:
        """Return for how long deadlines are still put off; 0 if they are not."""
        monotonic_ms = self._clock.monotonic_ms()
        offset_ms = self._clock.now_ms() - monotonic_ms
        if offset_ms - self._offset_ms > self._jump_ms:
            self.jump_count += 1
            self._until_ms = monotonic_ms + self._grace_ms
        self._offset_ms = offset_ms
        return max(int(self._until_ms - monotonic_ms), 0)
