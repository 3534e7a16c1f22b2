"""Hands calls to a ledger in batches, in one thread of its own.

What queues while a batch is being committed goes in the next one; there is no
timer and no added latency when idle. Replies come back in the event loop, only
after the commit. Where the disk is quick, a batch is committed in the event loop: the
thread would fight with it for the interpreter's lock, and take longer.

Guarantees: calls reach the ledger in the order in which they were put; nobody
is answered from a batch whose commit failed.
Refuses: to go on after such a failure; it tells `on_fatal` once and is dead.
Costs: on a slow disk one hop to the thread and back for each batch, about a tenth
of a millisecond. A process with such a thread calls `sys.setswitchinterval(0.0005)`,
or each commit waits for the interpreter lock for milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from raysaga.actors.clock import Clock
from raysaga.statemachines.calls import StepReply
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import Prepared

T = TypeVar("T")

Done = Callable[[StepReply], None]

_SMOOTHING = 0.1


class LedgerWriter:
    """One ledger's queue and thread.

    Attributes:
        call_count: Calls answered.
        batch_count: Batches committed.
        ms_per_call: Smoothed time of a batch, divided by its calls.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        batch_items_max: int,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        inline: bool = False,
    ) -> None:
        """Make a writer; with `inline` it commits in the event loop, for simulators."""
        self._ledger = ledger
        self._batch_items_max = batch_items_max
        self._clock = clock
        self._on_fatal = on_fatal
        self._executor = None if inline else ThreadPoolExecutor(1, "ledger")
        self._queue: deque[tuple[Prepared, Done]] = deque()
        self._is_writing = False
        self._runs = 0
        self._is_scheduled = False
        self._is_dead = False
        self._idle: list[asyncio.Future[None]] = []
        self.call_count = 0
        self.batch_count = 0
        self.ms_per_call = 0.0

    @property
    def queued_count(self) -> int:
        """Calls that are not in a batch yet."""
        return len(self._queue)

    def put(self, prepared: Prepared, done: Done) -> None:
        """Queue a call; `done` gets its reply in the event loop, or never if the commit failed."""
        self._queue.append((prepared, done))
        if not (self._is_writing or self._is_scheduled or self._is_dead):
            # At the end of this turn, so that what else arrives in it goes along.
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    async def run(self, body: Callable[[], T]) -> T:
        """Run `body` in the writer's thread, between batches."""
        if self._executor is None:
            return body()
        self._runs += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, body)
        finally:
            self._runs -= 1

    async def stop(self) -> None:
        """Return when everything queued was answered, and the thread has ended."""
        if not self._is_dead and (self._queue or self._is_writing):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        self.kill()

    def kill(self) -> None:
        """Drop what is queued, and answer nobody any more."""
        self._is_dead = True
        self._queue.clear()
        self._tell_idle()
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def _start(self) -> None:
        self._is_scheduled = False
        if self._is_dead or self._is_writing or not self._queue:
            return
        queue = self._queue
        batch = [queue.popleft() for _ in range(min(len(queue), self._batch_items_max))]
        self._is_writing = True
        started_at_ms = self._clock.monotonic_ms()
        calls = [prepared for prepared, _ in batch]
        if self._executor is None or self._is_quicker_here():
            written: Future[list[StepReply]] = Future()
            try:
                written.set_result(self._ledger.handle(calls))
            except Exception as error:  # noqa: BLE001 - handed on just below
                written.set_exception(error)
            self._written(written, batch, started_at_ms)
            return
        future = asyncio.get_running_loop().run_in_executor(
            self._executor, self._ledger.handle, calls
        )
        future.add_done_callback(lambda done: self._written(done, batch, started_at_ms))

    def _is_quicker_here(self) -> bool:
        return self._ledger.environment.flushes_quickly and not self._runs

    def _written(
        self,
        written: asyncio.Future[list[StepReply]] | Future[list[StepReply]],
        batch: list[tuple[Prepared, Done]],
        started_at_ms: float,
    ) -> None:
        self._is_writing = False
        if self._is_dead:
            return
        error = written.exception()
        if error is not None:
            # Stale, failed, or a broken assertion of ours: nobody may be answered.
            self.kill()
            self._on_fatal(error)
            return
        taken_ms = (self._clock.monotonic_ms() - started_at_ms) / len(batch)
        self.ms_per_call += (taken_ms - self.ms_per_call) * _SMOOTHING
        self.batch_count += 1
        self.call_count += len(batch)
        if self._queue and self._executor is not None and not self._is_quicker_here():
            # Begun first: the thread works while the replies are given.
            self._start()
        for (_, done), reply in zip(batch, written.result(), strict=True):
            done(reply)
        if self._queue and not self._is_writing and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)
        if not self._queue and not self._is_writing:
            self._tell_idle()

    def _tell_idle(self) -> None:
        for waiter in self._idle:
            if not waiter.done():
                waiter.set_result(None)
        self._idle.clear()
