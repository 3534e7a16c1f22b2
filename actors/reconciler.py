"""Finds what nobody drives, again and again: recovery as a loop, not as a start-up event.

A sweep takes up every saga of the host's scope that is neither in memory, nor
parked, nor over; asks for an actor for each dedicated saga that needs one; tells
participants to forget sagas that are over; and prunes what has been kept long
enough. Every part is safe to repeat, and to stop in the middle.

A saga that was under way in two crashes without progress is a suspect: suspects
go on few at a time, in the end one after the other, so that only the one that
kills the host is counted until it is parked, and not the bystanders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from raysaga.actors.clock import Clock
from raysaga.actors.committer import RunBlocking
from raysaga.actors.host import SagaHost
from raysaga.actors.releaser import Releaser
from raysaga.actors.running import Running
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, TERMINAL
from raysaga.storage.errors import StorageFullError
from raysaga.storage.journal import Head

SWEEP_SHARE = 20
"""A sweep is followed by a pause of at least this many times its own length."""

HEADS_A_TURN = 500
"""Index rows, or sagas, looked at before others get the event loop."""

PRUNE_EVERY_SWEEPS = 30
"""Sweeps between two prunings."""

SUSPECTS_TOGETHER = {1: 32, 2: 4}
"""Suspects that go on together, by the crashes that each was in without progress; else one."""

SUSPECT_MARGIN = 2
"""Who is so close to being parked as poison goes alone in any case."""


class Launcher(Protocol):
    """Starts actors for dedicated sagas, and passes orders on to them."""

    def ensure(self, saga_id: SagaId) -> None:
        """See to it that the saga's own actor runs, now or when there is room."""

    def tell(self, saga_id: SagaId, operation: str, body: Any) -> Awaitable[Any]:
        """Pass an order on to the saga's own actor, started if need be; return its answer."""


class Reconciler:
    """The standing loop of one host."""

    def __init__(
        self,
        host: SagaHost,
        *,
        clock: Clock,
        run_blocking: RunBlocking,
        launcher: Launcher | None,
        watch: Callable[[Running], None],
    ) -> None:
        self._host = host
        self._clock = clock
        self._run_blocking = run_blocking
        self._launcher = launcher
        self._watch = watch
        self._suspects: list[SagaId] = []
        self._releaser = Releaser(host, clock=clock, run_blocking=run_blocking)
        # Parked sagas of a restored journal that cannot be read, so nobody can be asked.
        self._unreadable: set[SagaId] = set()
        self._is_reconciled = False
        self._tasks: list[asyncio.Task[None]] = []
        self._trial: asyncio.Task[None] | None = None
        self.recovered_count = 0
        self.first_sweep_ms = 0.0

    async def start(self) -> None:
        """Take up everything that an earlier owner left; then keep looking."""
        began_at = self._clock.monotonic_ms()
        await self.sweep()
        self.first_sweep_ms = self._clock.monotonic_ms() - began_at
        loop = asyncio.get_running_loop()
        self._tasks += [
            loop.create_task(self._for_ever()),
            loop.create_task(self._release_for_ever()),
        ]

    async def stop(self) -> None:
        """Stop looking."""
        tasks = [*self._tasks, *([self._trial] if self._trial is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _for_ever(self) -> None:
        settings = self._host.settings
        count = 0
        try:
            while True:
                began_at = self._clock.monotonic_ms()
                await self.sweep()
                took_ms = self._clock.monotonic_ms() - began_at
                count += 1
                await self._fold_those_that_wait()
                try:
                    await self._end_restore()
                    if count % PRUNE_EVERY_SWEEPS == 0:
                        await self._prune()
                except StorageFullError as full:
                    self._tell_no_room(full)
                await self._clock.sleep_ms(max(settings.reconcile_ms, SWEEP_SHARE * took_ms))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may die here unnoticed
            self._host.stop_at_once(error)

    async def _fold_those_that_wait(self) -> None:
        """Keep the data of sagas that wait as bytes; there may be a hundred thousand."""
        for count, running in enumerate(list(self._host.sagas.values()), 1):
            running.rest()
            if count % HEADS_A_TURN == 0:
                await self._clock.sleep_ms(0)

    async def _release_for_ever(self) -> None:
        """Release often and few at a time, while there are any: many at once hold up calls."""
        settings = self._host.settings
        try:
            while True:
                try:
                    # What was confirmed first, or it would stand in the way of what is next.
                    await self._releaser.note_released()
                    self._release_some()
                except StorageFullError as full:
                    self._tell_no_room(full)
                is_busy = self._releaser.is_busy
                await self._clock.sleep_ms(
                    settings.release_every_ms if is_busy else settings.reconcile_ms
                )
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - nothing may die here unnoticed
            self._host.stop_at_once(error)

    def _tell_no_room(self, full: StorageFullError) -> None:
        # Forgetting can wait; what is under way is written from the head-room.
        self._host.log.warning("no_room_to_forget", code=full.code, detail=full.detail)

    async def sweep(self) -> None:
        """Take up what nobody drives."""
        host = self._host
        if self._nothing_is_under_way():
            return
        looked_at = 0
        for head in host.journal.active():
            looked_at += 1
            if looked_at % HEADS_A_TURN == 0:
                await self._clock.sleep_ms(0)
            if head.saga_id in host.sagas or not self._needs_an_owner(head):
                continue
            self._take_up(head.saga_id)
        if self._suspects and (self._trial is None or self._trial.done()):
            self._trial = asyncio.get_running_loop().create_task(self._try_suspects())

    def _nothing_is_under_way(self) -> bool:
        """Return whether the journal has no saga that would need an owner; cheap to tell."""
        idle = TERMINAL if self._host.journal.restored_at_ms() is not None else PARKED | TERMINAL
        counts = self._host.journal.counts()
        return not any(count for phase, count in counts.items() if phase not in idle)

    def _needs_an_owner(self, head: Head) -> bool:
        """Return whether somebody must drive the saga; a parked one once after a restore."""
        if head.phase in PARKED:
            restored_at_ms = self._host.journal.restored_at_ms()
            return restored_at_ms is not None and head.changed_at_ms < restored_at_ms
        return head.phase not in TERMINAL

    def _take_up(self, saga_id: SagaId) -> None:
        host = self._host
        # Read again: it may have ended since the sweep began.
        head = host.journal.head(saga_id)
        if head is None or not self._needs_an_owner(head):
            return
        if head.scope != host.scope:
            if self._launcher is not None:
                self._launcher.ensure(saga_id)
            return
        if saga_id in self._unreadable:
            return
        running = host.activate(head)
        if running is None:
            if head.phase in PARKED:
                self._unreadable.add(saga_id)
            return
        self.recovered_count += 1
        self._watch(running)
        if running.saga.recoveries >= 1:
            self._suspects.append(saga_id)
        else:
            host.restart(running)

    async def _try_suspects(self) -> None:
        """Send suspects on, few at a time, those first that were seen in the fewest crashes.

        The more crashes, the fewer go together: in the end the culprit goes alone, and no
        bystander has been counted as often as it takes to be parked.
        """
        host = self._host
        host.log.warning("suspects_found", count=len(self._suspects))
        while self._suspects:
            found = [host.sagas[saga_id] for saga_id in self._suspects if saga_id in host.sagas]
            if not found:
                self._suspects.clear()
                return
            fewest = min(running.saga.recoveries for running in found)
            count = self._together(fewest)
            group = [running for running in found if running.saga.recoveries == fewest][:count]
            for running in group:
                self._suspects.remove(running.saga.saga_id)
                host.restart(running)
            await self._watch_closely(group)

    def _together(self, recoveries: int) -> int:
        """Return how many suspects of that many recoveries may go together."""
        if recoveries + SUSPECT_MARGIN >= self._host.settings.recoveries_max:
            return 1
        return SUSPECTS_TOGETHER.get(recoveries, 1)

    async def _watch_closely(self, group: list[Running]) -> None:
        """Return when each has made progress that is on disk, or when their time is up."""
        host = self._host
        until_ms = self._clock.monotonic_ms() + host.settings.suspect_wait_ms
        # Number of the record that tells of its progress, once there is any.
        progress: dict[SagaId, int] = {}
        while self._clock.monotonic_ms() < until_ms:
            waiting = False
            for running in group:
                saga = running.saga
                if saga.recoveries == 0 and saga.saga_id not in progress:
                    if running.held and not running.barrier:
                        host.flush()
                    progress[saga.saga_id] = running.seq
                on_disk = running.seq - running.writes
                if on_disk < progress.get(saga.saga_id, on_disk + 1) and not running.is_at_rest:
                    waiting = True
            if not waiting:
                return
            await self._clock.sleep_ms(5)

    async def _end_restore(self) -> None:
        """Note that a restored journal is reconciled, once every saga has been asked about.

        What cannot be read cannot be asked about, so it keeps the note open: should an
        operator make it readable and send it on, its participants are asked then.
        """
        host = self._host
        restored_at_ms = host.journal.restored_at_ms()
        if restored_at_ms is None or self._suspects:
            return
        if any(running.saga.must_ask or running.asked for running in host.sagas.values()):
            return
        for head in host.journal.active():
            is_asked = head.changed_at_ms >= restored_at_ms or head.saga_id in host.sagas
            if not is_asked and head.saga_id not in self._unreadable:
                return
        self._is_reconciled = True
        if not self._unreadable:
            await self._run_blocking(host.journal.clear_restored)
            host.log.info("restore_reconciled")

    # -- forgetting ----------------------------------------------------------

    def _release_some(self) -> None:
        """Let participants forget, unless their rows may still have to be asked about."""
        if self._host.journal.restored_at_ms() is None or self._is_reconciled:
            self._releaser.release_some()

    async def _prune(self) -> None:
        settings = self._host.settings
        now_ms = self._clock.now_ms()
        journal = self._host.journal
        await self._run_blocking(lambda: journal.prune(now_ms - settings.retention_ms, 1_000))
        await self._run_blocking(
            lambda: journal.prune_keys(now_ms - settings.key_retention_ms, 1_000)
        )
