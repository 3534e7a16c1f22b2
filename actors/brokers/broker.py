"""What every broker must do for us, in the words of neither RabbitMQ nor Kafka.

A `Link` is one connection: when it is lost it is over, with everything that was taken
through it and not acknowledged, and a new one is made. So nobody has to guess what a
connection that mended itself may have dropped.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.envelope import Message
from raysaga.actors.brokers.errors import BrokerAddressError
from raysaga.statemachines.errors import SagaError

CONNECT_TIMEOUT_S = 10.0
"""How long making a connection may take, and any single request on it."""

BACKOFF_MS_FIRST, BACKOFF_MS_MAX = 50, 2_000
"""Ceilings of the wait before a connection is tried again, with full jitter."""

DELIVERIES_MAX = 20
"""Times that a message may come and not be acknowledged before it is taken for poison."""


class Delivery(Protocol):
    """A message that the broker keeps until it is told what became of it."""

    message: Message

    async def ack(self) -> None:
        """Have the broker forget the message; a repeat, or a lost link, does nothing."""

    async def dead_letter(self, reason: str, detail: str) -> None:
        """Put it where messages go that nobody can use, with why; then have it forgotten.

        Raises:
            BrokerUnavailableError: If the link is lost; the message will come again.
            NotPublishedError: If the broker does not take it; it will come again.
        """


Take = Callable[[Delivery], None]
"""Takes a delivery, in the event loop, without blocking."""


class Link(Protocol):
    """One live connection.

    Attributes:
        lost: Set to why, when the connection is gone.
    """

    lost: asyncio.Future[BaseException]

    async def publish(self, queue: str, message: Message) -> None:
        """Return once the broker has the message for good.

        Raises:
            BrokerUnavailableError: If the link is lost; the message may have been taken.
            NotPublishedError: If the broker does not take it.
        """

    async def consume(
        self, queue: str, take: Take, *, prefetch: int, one_at_a_time: bool = False
    ) -> None:
        """Give each message of `queue` to `take`, at most `prefetch` not acknowledged.

        The queue is made if it is missing, with the place for its dead letters. With
        `one_at_a_time`, one consumer is served, and others stand by until it is gone.

        Raises:
            BrokerUnavailableError: If the link is lost, or the queue exists as another kind.
        """

    async def ensure(self, queue: str, *, one_at_a_time: bool = False) -> None:
        """Make `queue` if it is missing; errors as in `consume`."""

    async def consume_replies(self, queue: str, take: Callable[[Message], None]) -> str:
        """Give replies to calls on `queue` to `take`; return the address to have them sent to.

        Replies may be lost with the link: whoever asked asks again.
        """

    async def close(self) -> None:
        """Let go; what was not acknowledged comes again, to this or another."""


class Broker(Protocol):
    """A broker that can be connected to."""

    address: BrokerAddress

    async def connect(self) -> Link:
        """Return a new connection.

        Raises:
            BrokerUnavailableError: If it cannot be reached; later it may be.
            BrokerRefusedError: If it says no.
        """


def is_own_cancellation(error: BaseException) -> bool:
    """Return whether `error` is the running task's own cancellation.

    Client libraries also cancel what waits for an answer that will not come.
    """
    task = asyncio.current_task()
    cancelled = isinstance(error, asyncio.CancelledError)
    return cancelled and task is not None and task.cancelling() > 0


def open_broker(address: BrokerAddress) -> Broker:
    """Return the broker at an address, not connected yet.

    Raises:
        BrokerAddressError: If the client library for it is not installed.
    """
    driver = "rabbitmq" if address.scheme.startswith("amqp") else "kafka"
    try:
        module = importlib.import_module(f"raysaga.actors.brokers.{driver}")
    except ModuleNotFoundError as error:
        raise BrokerAddressError(
            address.shown, f"needs {error.name}; install raysaga with its extra `brokers`"
        ) from error
    broker: Broker = module.connectable(address)
    return broker


class Keeper:
    """Keeps one link to a broker up, and makes a new one when it is lost.

    Attributes:
        link: The link that is up; None while there is none.
    """

    def __init__(self, broker: Broker, set_up: Callable[[Link], Awaitable[None]], log: Any) -> None:
        """Make a keeper that keeps nothing before `start`.

        Args:
            broker: What to connect to.
            set_up: Called with each new link; until it returns, the link is not up.
            log: A structlog logger.
        """
        self._broker = broker
        self._set_up = set_up
        self._log = log.bind(broker=str(broker.address))
        self._task: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self.link: Link | None = None
        self.error: SagaError | None = None
        self.connected_count = 0

    def start(self) -> None:
        """Keep a link up from now on; may be repeated."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def up(self) -> Link:
        """Return the link, once there is one."""
        while self.link is None:
            await self._is_up.wait()
        return self.link

    async def stop(self) -> None:
        """Let go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            up_since = loop.time()
            try:
                link = await self._broker.connect()
                try:
                    await self._set_up(link)
                    self.connected_count += 1
                    self.link, self.error = link, None
                    self._is_up.set()
                    self._log.info("broker_connected")
                    why = await asyncio.shield(link.lost)
                    self._log.warning("broker_lost", reason=str(why))
                finally:
                    self.link = None
                    self._is_up.clear()
                    await link.close()
            except SagaError as error:
                self.error = error
                self._log.warning("broker_not_connected", code=error.code, reason=str(error))
            except (Exception, asyncio.CancelledError) as error:
                # Nobody else would make the next link, and libraries cancel what is not theirs.
                if is_own_cancellation(error):
                    raise
                self._log.error("broker_link_failed", exc_info=error)
            if loop.time() - up_since > BACKOFF_MS_MAX / 1_000:
                # One that is lost as soon as it is made is as good as none.
                failures = 0
            ceiling_ms = min(BACKOFF_MS_FIRST << min(failures, 16), BACKOFF_MS_MAX)
            failures += 1
            await asyncio.sleep(ceiling_ms * random.random() / 1_000)
