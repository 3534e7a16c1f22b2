"""Hosts of a simulated world: what a shard's process holds, and a dedicated saga's.

A host that was killed leaves nothing but its journal; one that was paused wakes
beside its successor and does not know. Which one callers reach is up to the
world, and not always the newest.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from raysaga.actors.desk import ORDERS, Desk
from raysaga.actors.errors import (
    CancelTooLateError,
    EngineUnavailableError,
    OperatorRefusedError,
)
from raysaga.actors.host import SagaHost
from raysaga.actors.placement import saga_scope, shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.running import Running
from raysaga.simulation.disks import KEPT, LOST, JournalDisk
from raysaga.simulation.history import Committed, Granted
from raysaga.simulation.virtual_time import Life, VirtualClock
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import PARKED
from raysaga.storage.errors import StorageError
from raysaga.storage.journal import Entry, JournalIdentity
from raysaga.storage.memory_journal import MemoryJournal

if TYPE_CHECKING:
    from raysaga.simulation.world import World

UUID = "5a6a0000-0000-4000-8000-000000000001"

RESTART_MS = (20, 300, 900)
"""How long it takes until a dead host is replaced."""

COMMIT_MS, SLOW_COMMIT_MS = 0.5, 120.0
"""How long a disk takes."""


class House:
    """One shard: its journal on disk, its newest process, and earlier ones that are still about.

    Attributes:
        shard: Its number.
        journal: What is left when a process has died.
        full: 0: there is room; 1: for what is under way; 2: for nothing.
        host: The newest process, alive or not.
        front: The process that callers reach.
        own: Processes of dedicated sagas, by saga.
        processes: All that there ever were.
        clock: Of the machine that its processes are on.
    """

    def __init__(self, shard: int, world: World) -> None:
        self.shard = shard
        self.world = world
        self.journal = MemoryJournal(
            JournalIdentity(uuid=UUID, shard=shard, shard_count=world.recipe.shards)
        )
        self.full = 0
        self.clock = VirtualClock(world.loop)
        self.host: ShardHost | None = None
        self.front: ShardHost | None = None
        self.own: dict[SagaId, OwnHost] = {}
        self.processes: list[_Process] = []

    def end(self) -> None:
        """End every process for good."""
        for process in self.processes:
            process.life.end()

    def left_over(self) -> list[str]:
        """Return what is in the newest process's memory though there is nothing to do."""
        return [] if self.host is None else self.host.left_over()

    @property
    def is_up(self) -> bool:
        """Whether the newest process serves callers."""
        return self.host is not None and self.host.is_ready and not self.host.life.is_over

    async def start(self) -> None:
        """Start a process, beside one that may still be about."""
        number = len(self.processes) + 1
        host = self.host = ShardHost(self, f"shard-{self.shard}#{number}")
        self.processes.append(host)
        try:
            await host.start()
        except ConnectionError:
            # It died while it started; whoever killed it sees to the next one.
            return
        except StorageError as error:
            host.stopped(error)
            return
        if self.front is None or self.front.life.is_over or self.host is host:
            self.front = host

    def come_back(self, after_ms: float) -> None:
        """Replace the newest process after a while, if it is dead by then."""

        def replace() -> None:
            if self.host is None or self.host.life.is_over:
                self.world.spawn(self.start())

        self.world.later(after_ms, replace)

    def ensure(self, saga_id: SagaId) -> None:
        """See to it that a dedicated saga's own process runs, as a launcher does."""
        self._own(saga_id).drive()

    async def tell(self, saga_id: SagaId, operation: str, body: Any) -> str:
        """Pass an order on to a dedicated saga's own process; return its answer.

        Raises:
            SagaError: If it refuses, or dies meanwhile.
        """
        own = self._own(saga_id)
        try:
            answer = await own.life.ask(own.order(operation, body["by"], body.get("note", "")))
        except ConnectionError as error:
            raise EngineUnavailableError(type(error).__name__) from error
        if answer in (Answer.ACCEPTED, Answer.ALREADY):
            self.ensure(saga_id)
            return str(answer.value)
        if not own.is_driven:
            own.kill("done")
        if answer is Answer.CANCEL_TOO_LATE:
            raise CancelTooLateError(saga_id, "beyond")
        raise OperatorRefusedError(saga_id, answer.value)

    def _own(self, saga_id: SagaId) -> OwnHost:
        own = self.own.get(saga_id)
        if own is None or own.life.is_over:
            number = len(self.processes) + 1
            own = self.own[saga_id] = OwnHost(self, f"{saga_id}#{number}", saga_id)
            self.processes.append(own)
            own.start()
        return own


class _Process:
    """A host in a process of its own; the base of both kinds."""

    def __init__(self, house: House, name: str, scope: Scope) -> None:
        world = house.world
        self.house = house
        self.name = name
        self.life = Life(name)
        self.disk = JournalDisk(
            house.journal,
            fault=self._fault,
            full=lambda: 0 if world.draws.is_calm else house.full,
            granted=self._granted,
            committed=self._committed,
        )
        self._thread = asyncio.Lock()
        self.host = SagaHost(
            journal=self.disk,
            scope=scope,
            owner=name,
            connect=self._connect,
            clock=house.clock,
            settings=world.settings,
            chance=random.Random(f"{world.recipe.seed} {name}"),
            run_blocking=self.run_blocking,
            fatal=self.stopped,
        )

    def kill(self, what: str = "crash") -> None:
        """Stop in the middle of everything."""
        if not self.life.is_over:
            self.life.end()
            self.house.world.note(what, self.name)
            self._gone()

    def _gone(self) -> None:
        """Have it replaced; a dedicated one is by the shard's next sweep."""

    def stopped(self, error: BaseException) -> None:
        """Do as a process does that must stop: be gone at once."""
        if not self.life.is_over:
            self.house.world.stopped(self.life, error)
            self._gone()

    async def run_blocking(self, call: Callable[[], Any]) -> Any:
        """Do as a thread would: later, in order, and whether or not anybody still waits."""
        task = self.life.task(self._in_order(call))
        # If nobody waits for it any more, nobody hears its error.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _in_order(self, call: Callable[[], Any]) -> Any:
        draws = self.house.world.draws
        async with self._thread:
            slow = draws.strikes_anew("commit_slow", self.name)
            await asyncio.sleep((SLOW_COMMIT_MS if slow else COMMIT_MS) / 1_000)
            await self._may_die("crash_before_commit")
            result = call()
            await self._may_die("crash_after_commit")
            return result

    async def _may_die(self, fault: str) -> None:
        """Die by chance, and never return then."""
        if self.house.world.draws.strikes_anew(fault, self.name):
            self.kill(fault)
            await asyncio.get_running_loop().create_future()

    def _fault(self, what: str) -> str | None:
        draws = self.house.world.draws
        if draws.strikes_anew(f"{what}_kept", self.name):
            return KEPT
        return LOST if draws.strikes_anew(f"{what}_lost", self.name) else None

    def _granted(self, scope: Scope, epoch: Epoch) -> None:
        world = self.house.world
        world.lines.append(Granted(world.now_ms(), self.name, scope, epoch))

    def _committed(self, scope: Scope, epoch: Epoch, entries: Sequence[Entry]) -> None:
        world = self.house.world
        rows = tuple((entry.saga_id, entry.seq, entry.phase.value) for entry in entries)
        world.lines.append(Committed(world.now_ms(), self.name, scope, epoch, rows))

    def _connect(self, participant: str) -> Callable[[bytes], Awaitable[bytes]]:
        async def exchange(batch: bytes) -> bytes:
            world = self.house.world
            if world.wires.sent(self.name, participant, batch):
                self.kill("poisoned")
                await asyncio.get_running_loop().create_future()
            await self._may_die("crash_at_send")
            station = world.stations[participant]
            return await world.wires.carry(self.name, participant, batch, station.exchange)

        return exchange


class ShardHost(_Process):
    """A shard's process: host, desk and reconciler.

    Attributes:
        is_ready: Whether it has taken up what an earlier one left.
    """

    def __init__(self, house: House, name: str) -> None:
        super().__init__(house, name, shard_scope(UUID, house.shard))
        self.is_ready = False
        self.desk = Desk(self.host, launcher=house, stats=self._stats)
        self.reconciler = Reconciler(
            self.host,
            clock=house.clock,
            run_blocking=self.run_blocking,
            launcher=house,
            watch=self.desk.adopted,
        )

    async def start(self) -> None:
        """Become the owner, and take up what an earlier one has left."""
        await self.life.ask(self.host.start())
        await self.life.ask(self.reconciler.start())
        self.is_ready = True

    async def stop(self) -> None:
        """Let go in good order, and be replaced."""
        self.is_ready = False
        try:
            await self.life.ask(self.reconciler.stop())
            await self.life.ask(self.host.stop())
        except ConnectionError:
            # It was killed meanwhile.
            return
        self.kill("stop")

    async def exchange(self, batch: bytes) -> bytes:
        """Take a caller's exchange into this process.

        Raises:
            ConnectionError: If it does not serve.
        """
        if not self.is_ready:
            raise ConnectionError(f"{self.name} is not ready")
        answer: bytes = await self.life.ask(self.desk.landing.exchange(batch))
        return answer

    def _stats(self) -> dict[str, Any]:
        counts = self.host.journal.counts()
        return {"phases": {phase.value: count for phase, count in counts.items() if count}}

    def _gone(self) -> None:
        world = self.house.world
        if self is self.house.host:
            choice = int(world.draws.draw("restart", self.name) * len(RESTART_MS))
            self.house.come_back(RESTART_MS[choice])

    def left_over(self) -> list[str]:
        """Return what is in memory though there is nothing to do."""
        found = [f"{self.name} keeps {saga_id}" for saga_id in self.host.sagas]
        for name, dispatcher in self.host.dispatchers.items():
            if dispatcher.in_flight_count or dispatcher.queued_count:
                found.append(f"{self.name} waits for {name}")
        assert self.host.committer is not None
        if self.host.committer.queued_count:
            found.append(f"{self.name} has records that are not on disk")
        return found


class OwnHost(_Process):
    """The process of one dedicated saga: made for it, and gone after it.

    Attributes:
        is_driven: Whether it stays until its saga is over or parked.
    """

    def __init__(self, house: House, name: str, saga_id: SagaId) -> None:
        super().__init__(house, name, saga_scope(UUID, saga_id))
        self.is_driven = False
        self._saga_id = saga_id
        self._over = asyncio.Event()
        self._ready: asyncio.Task[Running | None] | None = None

    def start(self) -> None:
        """Begin to take the saga up."""
        self._ready = self.life.task(self._take_up())

    def drive(self) -> None:
        """Stay until the saga is over or parked."""
        if not self.is_driven:
            self.is_driven = True
            self.life.task(self._run())

    async def order(self, operation: str, by: str, note: str) -> Answer:
        """Give the saga an order; return the answer to it."""
        running = await self._running()
        if running is None:
            return Answer.NOT_PARKED
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._over.clear()
        self.host.give(running, ORDERS[operation](by, note), answer.set_result)
        return await answer

    async def _running(self) -> Running | None:
        assert self._ready is not None
        return await asyncio.shield(self._ready)

    async def _take_up(self) -> Running | None:
        host, journal = self.host, self.house.journal
        # A process needs some time to start.
        await asyncio.sleep(0.02)
        head = journal.head(self._saga_id)
        assert head is not None
        try:
            await host.start()
        except StorageError as error:
            self.stopped(error)
            return None
        running = host.activate(head, taken_over=host.epoch > 1)
        if running is None:
            return None
        host.ended = self._ended
        if head.phase not in PARKED or journal.restored_at_ms() is not None:
            if host.epoch > 1:
                host.restart(running)
            else:
                host.begin(running)
        return running

    def _ended(self, _saga: Saga) -> None:
        self._over.set()

    async def _run(self) -> None:
        running = await self._running()
        if running is not None and not running.saga.is_parked:
            await self._over.wait()
        await self.host.stop()
        self.kill("done")
