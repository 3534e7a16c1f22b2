"""Group commit: the records of many sagas, in order, with one wait for the disk.

What queues while a commit is under way goes into the next one. There is one
writer for each scope; entries are encoded before they come here, so that one bad
object cannot void a batch.

Guarantees: `done` of an entry is called only after the commit that wrote it has
returned, in the order of `append`.
When the journal is full, only births that nobody was told of are dropped, with
their sagas; the rest is tried again first, in order, from the head-room, before
anything newer.
Any other failure leaves the outcome unknown: `fatal` is called, and nobody is
answered any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from raysaga.actors.clock import Clock
from raysaga.actors.measures import BOUNDS_ENTRIES, Histogram
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.storage.errors import StorageFullError
from raysaga.storage.journal import Entry, Journal

BATCH_ENTRIES_MAX = 2_048
"""Entries of one commit; above this a batch takes longer without costing less an entry."""

FULL_RETRY_MS = 200
"""Pause before what must not be dropped is tried again on a full journal."""


class RunBlocking(Protocol):
    """Runs a blocking call beside the event loop, or in it if that is quicker or time simulated."""

    def __call__(self, call: Callable[[], Any]) -> Awaitable[Any]:
        """Return the call's result, or raise its error."""


class _Waiting(NamedTuple):
    entry: Entry
    done: Callable[[], None] | None
    dropped: Callable[[StorageFullError], None] | None


class GroupCommitter:
    """Writes the entries of one owner of one scope."""

    def __init__(
        self,
        *,
        journal: Journal,
        scope: Scope,
        epoch: Epoch,
        clock: Clock,
        run_blocking: RunBlocking,
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._journal = journal
        self._scope = scope
        self._epoch = epoch
        self._clock = clock
        self._run_blocking = run_blocking
        self._fatal = fatal
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.is_full = False
        self.checked_at_ms = clock.now_ms()
        self.commit_count = 0
        self.entry_count = 0
        self.full_count = 0
        self.times = Histogram()
        self.sizes = Histogram(BOUNDS_ENTRIES)

    def start(self) -> None:
        """Begin to write; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._write_for_ever())

    @property
    def queued_count(self) -> int:
        """Entries that are not on disk yet and not in the commit under way."""
        return len(self._queue)

    def append(
        self,
        entry: Entry,
        done: Callable[[], None] | None = None,
        dropped: Callable[[StorageFullError], None] | None = None,
    ) -> None:
        """Queue `entry`.

        Args:
            entry: What to write.
            done: Called in the event loop once it is on disk.
            dropped: For a birth that nobody knows of yet: called instead, if the journal has
                no room for it. A birth without it is kept like anything else.
        """
        assert (dropped is None) or entry.birth is not None
        self._queue.append(_Waiting(entry, done, dropped))
        self._idle.clear()
        self._wake.set()

    async def flushed(self) -> None:
        """Return when everything queued so far, and all that follows from it, is on disk."""
        await self._idle.wait()

    async def stop(self) -> None:
        """Stop writing; what is queued stays unwritten and unanswered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _write_for_ever(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    count = min(len(self._queue), BATCH_ENTRIES_MAX)
                    await self._write([self._queue.popleft() for _ in range(count)])
                self._idle.set()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - unknown outcome: the process must stop
            self._fatal(error)

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            await self._commit(batch, from_reserve=False)
        except StorageFullError as full:
            self.is_full = True
            self.full_count += 1
            batch = self._drop_births(batch, full)
            while batch:
                try:
                    await self._commit(batch, from_reserve=True)
                    break
                except StorageFullError:
                    await self._clock.sleep_ms(FULL_RETRY_MS)
        else:
            self.is_full = False
        for waiting in batch:
            if waiting.done is not None:
                waiting.done()

    async def _commit(self, batch: list[_Waiting], *, from_reserve: bool) -> None:
        entries = [waiting.entry for waiting in batch]
        checked_at_ms = self._clock.now_ms()
        began_ms = self._clock.monotonic_ms()
        await self._run_blocking(
            lambda: self._journal.commit(
                self._scope, self._epoch, entries, from_reserve=from_reserve
            )
        )
        # The commit compared the epoch, so the ownership held at its beginning.
        self.checked_at_ms = checked_at_ms
        self.commit_count += 1
        self.entry_count += len(entries)
        self.times.note(self._clock.monotonic_ms() - began_ms)
        self.sizes.note(len(entries))

    def _drop_births(self, batch: list[_Waiting], full: StorageFullError) -> list[_Waiting]:
        """Tell the callers of sagas that do not exist yet; return what must be kept."""
        dropped: set[SagaId] = {w.entry.saga_id for w in batch if w.dropped is not None}
        for waiting in batch:
            if waiting.dropped is not None:
                waiting.dropped(full)
        # A saga whose birth is void has no later records either, in the batch or behind it.
        self._queue = deque(w for w in self._queue if w.entry.saga_id not in dropped)
        return [w for w in batch if w.entry.saga_id not in dropped]
