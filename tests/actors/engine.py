"""One incarnation of a host with its desk and its reconciler, and the disk under it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from raysaga.actors.desk import Desk
from raysaga.actors.host import SagaHost
from raysaga.actors.reconciler import Reconciler
from raysaga.storage.journal import Entry, Journal

from .virtual_time import Life

if TYPE_CHECKING:
    from .world import World


class Disk:
    """A journal as one incarnation sees it: commits can be watched, delayed and made to fail.

    Attributes:
        journal: The real one.
        gate: Commits wait while it is not set.
        faults: Errors that the next commits raise, without writing.
        commits: The entries of each commit that was made.
        attempts: The same of each that was tried.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.gate = asyncio.Event()
        self.gate.set()
        self.faults: list[Exception] = []
        self.is_full: Callable[[Sequence[Entry], bool], Exception | None] = lambda _e, _r: None
        self.attempts: list[tuple[tuple[Entry, ...], bool]] = []
        self.commits: list[tuple[Entry, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def commit(
        self, scope: Any, epoch: Any, entries: Sequence[Entry], *, from_reserve: bool = False
    ) -> None:
        """Commit, unless the test wants something else."""
        self.attempts.append((tuple(entries), from_reserve))
        fault = self.faults.pop(0) if self.faults else self.is_full(entries, from_reserve)
        if fault is not None:
            raise fault
        self.journal.commit(scope, epoch, entries, from_reserve=from_reserve)
        self.commits.append(tuple(entries))


class Engine:
    """One incarnation: what one shard's process would hold.

    Attributes:
        life: Ends with `crash`.
        fatal: Why it stopped by itself, if it did.
    """

    def __init__(self, world: World, disk: Disk, number: int, scope: str) -> None:
        self._world = world
        self.disk = disk
        self.life = Life(f"host {number}")
        self.fatal: BaseException | None = None
        self._thread = asyncio.Lock()
        self.host = SagaHost(
            journal=disk,
            scope=scope,
            owner=f"test:{number}",
            connect=self._connect,
            clock=world.clock,
            settings=world.settings,
            chance=random.Random(number),
            run_blocking=self._run_blocking,
            fatal=self._stopped,
        )
        self.desk = Desk(self.host, launcher=world.launcher, stats=lambda: {"is": "on"})
        self.reconciler = Reconciler(
            self.host,
            clock=world.clock,
            run_blocking=self._run_blocking,
            launcher=world.launcher,
            watch=self.desk.adopted,
        )

    async def start(self) -> None:
        """Become the owner, and take up what an earlier one has left."""
        await self.life.ask(self.host.start())
        await self.life.ask(self.reconciler.start())

    async def stop(self) -> None:
        """Let go in good order."""
        await self.life.ask(self.reconciler.stop())
        await self.life.ask(self.host.stop())
        self.life.end()

    def kill(self) -> None:
        """Stop in the middle of everything."""
        self.life.end()

    async def exchange(self, batch: bytes) -> bytes:
        """Take a caller's exchange into this process."""
        answer: bytes = await self.life.ask(self.desk.landing.exchange(batch))
        return answer

    async def _run_blocking(self, call: Callable[[], Any]) -> Any:
        """Do as a thread would: later, in order, and whether or not anybody still waits."""
        task = self.life.task(self._in_order(call))
        # If nobody waits for it any more, nobody hears its error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _in_order(self, call: Callable[[], Any]) -> Any:
        async with self._thread:
            await asyncio.sleep(0.0005)
            await self.disk.gate.wait()
            await self._world.pass_moment("before disk", self)
            result = call()
            await self._world.pass_moment("after disk", self)
            return result

    def _stopped(self, error: BaseException) -> None:
        """Do as a process does that must stop: be gone at once."""
        self.fatal = error
        self._world.stopped(self, error)
        self.life.end()

    def _connect(self, name: str) -> Callable[[bytes], Awaitable[bytes]] | None:
        if name in self._world.unserved:
            return None

        async def exchange(batch: bytes) -> bytes:
            return await self._world.carry(self, name, batch)

        return exchange
