"""One host and the four services of the order saga, some of them behind a broker."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import audit_folder, verify_folder
from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import Delivery, open_broker
from raysaga.actors.brokers.envelope import Message, Order
from raysaga.actors.brokers.runner import PREFETCH, ParticipantRunner
from raysaga.actors.brokers.station import open_station
from raysaga.actors.brokers.wire import BrokerWire
from raysaga.actors.clock import SystemClock
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Landing
from raysaga.actors.outcome import outcome_of
from raysaga.actors.participant import Participant
from raysaga.actors.participant_maker import make_participant
from raysaga.actors.participant_server import ParticipantServer, open_ledger
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.recovery import Unreadable, load
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.process import CommitThread
from raysaga.statemachines.calls import ACTION, StepCall
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import SagaId, saga_id_of
from raysaga.statemachines.inputs import Submitted
from raysaga.statemachines.order import order_saga
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.ledger_reader import LedgerReader

SERVICES = ("inventory", "payment", "shipping", "notification")
SETTINGS = {"inventory": {"stock": {"items": {"rare": 0}, "default": 100_000}}}
WAIT_S = 60.0
RUN = secrets.token_hex(3)


def impatient(**changes: Any) -> SagaDefinition:
    """Return the order saga with the patience of a test."""
    data = order_saga.to_data()
    for step in data["steps"]:
        step["timeout_ms"] = 2_000
        step["retry"] = {"attempts_max": 1_000, "delay_ms_first": 20, "delay_ms_max": 500}
        step["compensation_retry"] = {
            "attempts_max": 1_000,
            "delay_ms_first": 20,
            "delay_ms_max": 500,
        }
        step.update(changes)
    return SagaDefinition.from_data(data)


class AnyBroker(Protocol):
    """A broker that tests can use without knowing its kind."""

    @property
    def url(self) -> str:
        """Its address, without a path."""

    async def dead_letters(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the headers of `count` dead letters of a queue."""


class TheirBroker:
    """A broker that somebody else runs; each run of the tests has queues of its own there."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def dead_letters(self, name: str, count: int) -> list[dict[str, Any]]:
        pytest.skip("dead letters are looked for in brokers of our own only")


def queue(broker: AnyBroker, request: pytest.FixtureRequest) -> str:
    """Return the address of a queue that only this test uses."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return f"{broker.url}/?queue={RUN}-{name}"


async def put(address: str, *messages: Message) -> None:
    """Publish messages to the queue of `address`."""
    target = parse_address(address)
    link = await open_broker(target).connect()
    for message in messages:
        await link.publish(target.queue, message)
    await link.close()


@asynccontextmanager
async def hearing(address: str) -> AsyncIterator[list[Message]]:
    """Give what comes on the queue of `address`, which is acknowledged."""
    target = parse_address(address)
    link = await open_broker(target).connect()
    heard: list[Message] = []
    acks: set[asyncio.Task[None]] = set()

    def take(delivery: Delivery) -> None:
        heard.append(delivery.message)
        task = asyncio.get_running_loop().create_task(delivery.ack())
        acks.add(task)
        task.add_done_callback(acks.discard)

    await link.consume(target.queue, take, prefetch=100)
    yield heard
    await link.close()


async def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what `condition` gives once it is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while not (found := condition()):
        assert loop.time() < end, f"never: {what}"
        await asyncio.sleep(0.005)
    return found


def told(ledger: LedgerReader) -> list[tuple[str, str]]:
    """Return `(saga, kind)` of each effect, in order."""
    return [(line.key.saga_id, line.kind.value) for line in ledger.effects()]


class Shop:
    """See the head of this module.

    Attributes:
        folder: The data folder.
        runners: Of the services behind a broker, those that run in here.
        wires: The host's ways to those.
    """

    def __init__(
        self,
        folder: Path,
        *,
        brokered: Mapping[str, str],
        definition: SagaDefinition | None = None,
        settings: EngineSettings | None = None,
        services: Mapping[str, Any] | None = None,
        prefetch: int = PREFETCH,
        has_all_ledgers: bool = True,
    ) -> None:
        """Make a shop that is closed.

        Args:
            folder: The data folder.
            brokered: Service to address of its broker; the others are in this process.
            definition: Of its sagas.
            settings: Of its host.
            services: Settings of the services.
            prefetch: Of those behind a broker.
            has_all_ledgers: Whether the ledgers of all four are ours, so that books can balance.
        """
        self.folder = DataFolder.open(folder, shard_count=1, create=True)
        self.definition = definition or impatient()
        self.settings = settings or EngineSettings(
            reconcile_ms=50, breaker_open_ms_max=400, retry_budget_per_s=1_000.0
        )
        self.brokered = dict(brokered)
        self._services = {**SETTINGS, **(services or {})}
        self._prefetch = prefetch
        self._has_all_ledgers = has_all_ledgers
        self._stack = AsyncExitStack()
        self._landings: dict[str, Landing] = {}
        self.wires: dict[str, BrokerWire] = {}
        self.runners: dict[str, ParticipantRunner] = {}
        self._stations: dict[str, AsyncExitStack] = {}
        self.fatal: list[BaseException] = []
        self._numbers = itertools.count(1)

    async def open(self, *, runs: tuple[str, ...] = SERVICES) -> Shop:
        """Start the host and the services named in `runs`."""
        for name in SERVICES:
            if name not in self.brokered:
                await self._serve_here(name)
            elif name in runs:
                await self.run(name)
        await self.open_host()
        return self

    async def open_host(self) -> None:
        """Start the host, on what its predecessor left."""
        self.journal = self.folder.open_journal(0)
        self._run_blocking = CommitThread("commit", self.journal.environment)
        scope = shard_scope(self.journal.identity.uuid, 0)
        self.host = SagaHost(
            journal=self.journal,
            scope=scope,
            owner="shop",
            connect=self._connect,
            clock=SystemClock(),
            settings=self.settings,
            chance=random.Random(7),
            run_blocking=self._run_blocking.commit,
            fatal=self.fatal.append,
        )
        self.reconciler = Reconciler(
            self.host,
            clock=self.host.clock,
            run_blocking=self._run_blocking,
            launcher=None,
            watch=lambda running: None,
        )
        await self.host.start()
        await self.reconciler.start()
        self.host.definitions.add(self.definition)

    async def close_host(self) -> None:
        """Stop the host and close its journal."""
        await self.reconciler.stop()
        await self.host.stop()
        for wire in self.wires.values():
            await wire.close()
        self.wires.clear()
        self._run_blocking.close()
        self.journal.close()

    async def close(self) -> None:
        """Stop everything."""
        await self.close_host()
        for name in list(self._stations):
            await self.stop_runner(name)
        await self._stack.aclose()
        assert not self.fatal

    def make(self, name: str) -> Participant:
        """Return a new service."""
        maker = "raysaga.actors.services.serve:serve"
        return make_participant(maker, name, self.folder.path, self._services)

    async def run(self, name: str, participant: Participant | None = None) -> ParticipantRunner:
        """Run a service behind its broker, in this process."""
        stack = self._stations[name] = AsyncExitStack()
        address = parse_address(self.brokered[name])
        station = open_station(
            participant or self.make(name),
            data=self.folder.path,
            address=address,
            on_fatal=self.fatal.append,
            prefetch=self._prefetch,
        )
        runner = self.runners[name] = await stack.enter_async_context(station)
        await asyncio.wait_for(runner.up(), WAIT_S)
        return runner

    async def stop_runner(self, name: str) -> None:
        """Stop a service behind its broker."""
        await self._stations.pop(name).aclose()
        del self.runners[name]

    def leave_runner(self, name: str) -> AsyncExitStack:
        """Let a service run on; return what stops it."""
        del self.runners[name]
        return self._stations.pop(name)

    async def order(self, *, item: str = "common", customer: str = "customer-1") -> dict[str, Any]:
        """Submit an order; return its outcome."""
        return await asyncio.wait_for(self.submit(item=item, customer=customer), WAIT_S)

    def submit(self, *, item: str = "common", customer: str = "customer-1") -> Awaitable[Any]:
        """Submit an order; return what its outcome can be awaited of."""
        key = f"o-{next(self._numbers)}"
        order = self.plain_order(key, item=item, customer=customer)
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        saga_id = saga_id_of(self.definition.name, key)
        self.host.submit(
            saga_id=saga_id,
            definition=self.definition,
            given=Submitted(key, key, self.host.scope, order, None),
            accepted=lambda _answer: None,
            refused=ended.set_exception,
        )
        self.host.sagas[saga_id].watch(
            lambda saga: ended.done() or ended.set_result(outcome_of(saga))
        )
        return ended

    def effects(self, name: str) -> list[tuple[str, str]]:
        """Return `(saga, kind)` of each effect of a service behind a broker, in order."""
        runner = self.runners.get(name)
        if runner is not None:
            return told(runner.server.ledger)
        ledger = LedgerReader.open(self.folder.service_path(name))
        try:
            return told(ledger)
        finally:
            ledger.close()

    @staticmethod
    def plain_order(
        key: str, *, item: str = "common", customer: str = "customer-1"
    ) -> dict[str, Any]:
        """Return an order as plain data."""
        return {
            "order_id": key,
            "customer_id": customer,
            "items": [{"item_id": item, "quantity": 2}],
            "payment": {"token": "tok_fine", "amount_minor": 1_250, "currency": "USD"},
        }

    async def submit_order(self, definition: SagaDefinition, order: Order) -> None:
        """Return once the saga of `order` is on disk; a repeat finds it there."""
        saga_id = saga_id_of(definition.name, order.key)
        if saga_id in self.host.sagas or self.journal.key_record(saga_id) is not None:
            await until(lambda: self.journal.head(saga_id), "its birth is on disk")
            return
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.host.submit(
            saga_id=saga_id,
            definition=definition,
            given=Submitted(order.key, order.key, self.host.scope, order.input, None),
            accepted=lambda _answer: accepted.set_result(None),
            refused=accepted.set_exception,
        )
        await accepted

    def recorded_call(self, name: str, saga_id: str = "order:o-1") -> StepCall:
        """Return the action that a saga has sent to a service, as it would be sent again."""
        head = self.journal.head(SagaId(saga_id))
        assert head is not None
        saga = load(self.journal, self.host.definitions, head, taken_over=True)
        assert not isinstance(saga, Unreadable)
        steps = self.definition.steps
        i = next(i for i, step in enumerate(steps) if step.participant == name)
        call = self.host.make_call(saga, i, ACTION, steps[i].action, 1)
        assert call is not None
        return call

    def phase(self, saga_id: str) -> str:
        """Return where a saga stands, on disk."""
        head = self.journal.head(SagaId(saga_id))
        return "" if head is None else head.phase.value

    def check_books(self) -> None:
        """Fail if journal or ledgers are not sound, or contradict each other."""
        with Archive.open(self.folder.path) as archive:
            verified = verify_folder(archive)
            assert verified["is_sound"], verified
            if self._has_all_ledgers:
                report = audit_folder(archive)
                assert report.is_clean, str(report)

    def _connect(self, name: str) -> Callable[[bytes], Awaitable[bytes]]:
        if name not in self.brokered:
            return self._landings[name].exchange
        address = parse_address(self.brokered[name])
        wire = self.wires[name] = BrokerWire(name, address, self.settings)
        return wire

    async def _serve_here(self, name: str) -> None:
        participant = self.make(name)
        clock = SystemClock()
        ledger = open_ledger(participant, self.folder.service_path(name), clock=clock)
        self._stack.callback(ledger.close)
        participant.prepare(ledger)
        server = ParticipantServer(
            participant=participant, ledger=ledger, clock=clock, on_fatal=self.fatal.append
        )
        await server.start()
        self._stack.push_async_callback(server.stop)

        def received(sender: str, messages: list[list[Any]]) -> None:
            calls = [StepCall._make(fields) for fields in messages]
            server.deliver(calls, lambda reply: landing.push(sender, reply))

        landing = self._landings[name] = Landing(received, self.settings)
