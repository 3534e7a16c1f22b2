"""Instants at which sagas must be looked at, in one heap with one wake-up.

A timer is advice: who is woken checks what is really due, so a stale or a
repeated wake-up does no harm. Nothing here has to survive a restart, since the
instants are in the journal's events.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from raysaga.actors.clock import Clock
from raysaga.statemachines.ids import SagaId

GRAIN_MS = 5
"""Wake-ups closer together than this become one."""

STALE_MAX = 1_024
"""Instants that are kept though they were overtaken, beside as many as sagas wait."""


class Timers:
    """The next look at each saga of a host."""

    def __init__(self, clock: Clock, wake: Callable[[SagaId], None]) -> None:
        self._clock = clock
        self._wake = wake
        # The heap may hold instants that were overtaken; these are the ones that count.
        self._due: dict[SagaId, int] = {}
        self._heap: list[tuple[int, SagaId]] = []
        self._handle: asyncio.TimerHandle | None = None
        self._handle_due_ms = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, saga_id: SagaId, due_at_ms: int) -> None:
        """Wake `saga_id` at `due_at_ms` (Unix time) or soon after, not before.

        An earlier instant that was set stays, and this one is forgotten: who is woken says
        when he wants to be woken again.
        """
        known_ms = self._due.get(saga_id)
        if known_ms is not None and known_ms <= due_at_ms:
            return
        self._due[saga_id] = due_at_ms
        if len(self._heap) > 2 * len(self._due) + STALE_MAX:
            self._heap = [(due_ms, other) for other, due_ms in self._due.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due_at_ms, saga_id))
        if self._handle is None or due_at_ms < self._handle_due_ms:
            self._arm()

    def forget(self, saga_id: SagaId) -> None:
        """Wake `saga_id` no more."""
        self._due.pop(saga_id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._due.clear()
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._handle_due_ms = self._heap[0][0]
            # Bounded, so that a wall clock that jumps is noticed within a second.
            wait_ms = min(max(self._handle_due_ms - self._clock.now_ms(), GRAIN_MS), 1_000)
            self._handle = asyncio.get_running_loop().call_later(wait_ms / 1_000, self._ring)

    def _ring(self) -> None:
        self._handle = None
        now_ms = self._clock.now_ms()
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, saga_id = heapq.heappop(self._heap)
            if self._due.get(saga_id) == due_ms:
                del self._due[saga_id]
                self._wake(saga_id)
        self._arm()
