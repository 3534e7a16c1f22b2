"""RabbitMQ, the one place that knows its client library (aio-pika).

Queues are quorum queues; a message is published persistent and mandatory, and counts as
taken when the broker has confirmed it. A queue's messages that nobody can use go through
the exchange `raysaga.dead-letters` to the queue of the same name with `.dead` behind it:
by us, with the reason in a header, or by the broker, when a message was delivered
`DELIVERIES_MAX` times and killed each time whoever took it.

Replies to calls come on a queue that lives and dies with its connection: the participant's
ledger keeps the answer, and whoever has lost it asks again.

Guarantees: a delivery that was not acknowledged comes again.
Refuses: to make a queue that exists with other arguments; the broker says so.
Costs: about 300 microseconds of a core a message each way, most of it in pure Python.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.exceptions import (
    AuthenticationError,
    ChannelInvalidStateError,
    ConnectionClosed,
    ConnectionNotAllowed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from pamqp.exceptions import PAMQPException

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.broker import (
    CONNECT_TIMEOUT_S,
    DELIVERIES_MAX,
    Broker,
    Take,
    is_own_cancellation,
)
from raysaga.actors.brokers.envelope import Message
from raysaga.actors.brokers.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    NotPublishedError,
)

DEAD_LETTERS = "raysaga.dead-letters"
"""Exchange that dead letters go through; bind more queues to it to see them elsewhere."""

HEARTBEAT_S = 10
"""A broker that is silent for two of these is taken for dead."""

CONFIRM_TIMEOUT_S = 30.0
"""How long a confirmation may take; a quorum queue without a majority gives none."""

CLOSE_TIMEOUT_S = 2.0
"""How long a broker may take to say good-bye; what it has not heard of is not acknowledged."""

REPLIES_PREFETCH = 1_000

_LOST = (
    aio_pika.exceptions.AMQPError,
    ChannelInvalidStateError,
    OSError,
    PAMQPException,
    RuntimeError,
    TimeoutError,
    asyncio.CancelledError,
)
"""What the library raises when a connection is going or gone."""


class RabbitBroker:
    """One RabbitMQ. See `Broker`."""

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address

    async def connect(self) -> RabbitLink:
        """See `Broker`."""
        context = None
        try:
            if self.address.is_secure:
                context = ssl.create_default_context(cafile=self.address.cafile or None)
            url = f"{self.address.url}?heartbeat={HEARTBEAT_S}&name=raysaga"
            connection = await aio_pika.connect(url, ssl_context=context, timeout=CONNECT_TIMEOUT_S)
        except (AuthenticationError, ProbableAuthenticationError) as error:
            raise BrokerRefusedError(self.address.shown, type(error).__name__) from None
        except _LOST as error:
            if is_own_cancellation(error):
                raise
            refused = _refusal_in(error)
            if refused:
                raise BrokerRefusedError(self.address.shown, refused) from None
            raise BrokerUnavailableError(self.address.shown, type(error).__name__) from None
        link = RabbitLink(connection, self.address.shown)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link


class RabbitLink:
    """One connection. See `Link`."""

    def __init__(self, connection: AbstractConnection, shown: str) -> None:
        self.lost: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self._shown = shown
        self._out: UnderlayChannel
        # The library closes a channel that nobody holds.
        self._channels: list[AbstractChannel] = []
        connection.close_callbacks.add(self._closed)

    async def open(self) -> None:
        """Open the channel that is published on."""
        channel = await self._channel(on_return_raises=True)
        self._out = await channel.get_underlay_channel()

    async def publish(self, queue: str, message: Message) -> None:
        """See `Link`."""
        await self._publish("", queue, message, {})

    async def consume(
        self, queue: str, take: Take, *, prefetch: int, one_at_a_time: bool = False
    ) -> None:
        """See `Link`."""
        await self.ensure(queue, one_at_a_time=one_at_a_time)
        with self._errors_told():
            channel = await self._channel()
            await channel.set_qos(prefetch_count=prefetch, timeout=CONNECT_TIMEOUT_S)
            found = await channel.get_queue(queue, ensure=False)

            async def arrived(incoming: AbstractIncomingMessage) -> None:
                take(RabbitDelivery(self, queue, incoming))

            await found.consume(arrived, timeout=CONNECT_TIMEOUT_S)

    async def ensure(self, queue: str, *, one_at_a_time: bool = False) -> None:
        """See `Link`."""
        with self._errors_told():
            channel = await self._channel(lasts=False)
            exchange = await channel.declare_exchange(DEAD_LETTERS, durable=True)
            dead = await channel.declare_queue(
                f"{queue}.dead", durable=True, arguments={"x-queue-type": "quorum"}
            )
            await dead.bind(exchange, routing_key=queue)
            arguments: dict[str, Any] = {
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERIES_MAX,
                "x-dead-letter-exchange": DEAD_LETTERS,
                "x-dead-letter-routing-key": queue,
                # So that a dead letter is only forgotten here once it is safe there.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            if one_at_a_time:
                arguments["x-single-active-consumer"] = True
            await channel.declare_queue(queue, durable=True, arguments=arguments)
            await channel.close()

    async def consume_replies(self, queue: str, take: Callable[[Message], None]) -> str:
        """See `Link`."""
        name = f"{queue}.replies.{secrets.token_hex(8)}"
        with self._errors_told():
            channel = await self._channel()
            await channel.set_qos(prefetch_count=REPLIES_PREFETCH)
            found = await channel.declare_queue(name, exclusive=True, auto_delete=True)

            async def arrived(incoming: AbstractIncomingMessage) -> None:
                take(_message_of(incoming))

            await found.consume(arrived, no_ack=True, timeout=CONNECT_TIMEOUT_S)
        return name

    async def dead_letter(self, queue: str, message: Message, reason: str, detail: str) -> None:
        """Publish a copy of `message` of `queue` as a dead letter.

        Raises:
            BrokerUnavailableError: Like the other, as in `publish`.
        """
        headers = {"raysaga-reason": reason, "raysaga-detail": detail[:500]}
        await self._publish(DEAD_LETTERS, queue, message, headers)

    async def ack(self, incoming: AbstractIncomingMessage) -> None:
        """Acknowledge a delivery, unless the connection is gone, and the delivery with it."""
        with suppress(BrokerUnavailableError), self._errors_told():
            await incoming.ack()

    async def close(self) -> None:
        """See `Link`."""
        self._lose(ConnectionError("closed"))
        closing = asyncio.get_running_loop().create_task(self._connection.close())
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Not awaited for longer, cancelled or not: a broken connection may take its time.
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        closing.cancel()

    async def _publish(
        self, exchange: str, key: str, message: Message, headers: dict[str, Any]
    ) -> None:
        if self.lost.done():
            raise BrokerUnavailableError(self._shown, "the connection is gone")
        if message.traceparent:
            headers["traceparent"] = message.traceparent
        properties = aio_pika.Message(
            message.body,
            headers=headers,
            content_type=message.content_type,
            type=message.type,
            message_id=message.message_id,
            correlation_id=message.correlation_id or None,
            reply_to=message.reply_to or None,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        ).properties
        try:
            with self._errors_told():
                await self._out.basic_publish(
                    message.body,
                    exchange=exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=CONFIRM_TIMEOUT_S,
                )
        except PublishError:
            raise NotPublishedError(key, "there is no such queue") from None
        except DeliveryError:
            raise NotPublishedError(key, "the broker declined it") from None

    async def _channel(
        self, *, on_return_raises: bool = False, lasts: bool = True
    ) -> AbstractChannel:
        with self._errors_told():
            channel = self._connection.channel(on_return_raises=on_return_raises)
            await channel.initialize(timeout=CONNECT_TIMEOUT_S)
        if lasts:
            # One that the broker closes takes its consumers with it, so it ends the link.
            channel.close_callbacks.add(self._channel_closed)
            self._channels.append(channel)
        return channel

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Turn what the library raises when a connection is going or gone into our error."""
        try:
            yield
        except DeliveryError:
            raise
        except _LOST as error:
            if is_own_cancellation(error):
                raise
            what = f"{type(error).__name__} {error}".strip()
            raise BrokerUnavailableError(self._shown, what) from None

    def _channel_closed(self, _channel: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._lose(error)

    def _closed(self, _connection: Any, error: BaseException | None) -> None:
        self._lose(error or ConnectionError("closed"))

    def _lose(self, error: BaseException) -> None:
        if not self.lost.done():
            self.lost.set_result(error)


class RabbitDelivery:
    """One message that was delivered. See `Delivery`."""

    __slots__ = ("_incoming", "_is_settled", "_link", "_queue", "message")

    def __init__(self, link: RabbitLink, queue: str, incoming: AbstractIncomingMessage) -> None:
        self.message = _message_of(incoming)
        self._link = link
        self._queue = queue
        self._incoming = incoming
        self._is_settled = False

    async def ack(self) -> None:
        """See `Delivery`."""
        if self._is_settled or self._link.lost.done():
            return
        self._is_settled = True
        await self._link.ack(self._incoming)

    async def dead_letter(self, reason: str, detail: str) -> None:
        """See `Delivery`."""
        await self._link.dead_letter(self._queue, self.message, reason, detail)
        await self.ack()


def _refusal_in(error: BaseException | None) -> str:
    """Return why a broker, or our own check of its certificate, said no; empty if none did."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        if isinstance(error, ConnectionNotAllowed | ConnectionClosed | InvalidFrameError):
            return "it has closed the connection; is there such a virtual host"
        error = error.__cause__ or error.__context__
    return ""


def _message_of(incoming: AbstractIncomingMessage) -> Message:
    traceparent = (incoming.headers or {}).get("traceparent", "")
    return Message(
        incoming.body,
        incoming.content_type or "",
        incoming.type or "",
        incoming.message_id or "",
        "",
        incoming.correlation_id or "",
        incoming.reply_to or "",
        traceparent if isinstance(traceparent, str) else "",
    )


def connectable(address: BrokerAddress) -> Broker:
    """Return the broker at an address."""
    return RabbitBroker(address)
