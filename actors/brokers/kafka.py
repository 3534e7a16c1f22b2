"""Kafka, the one place that knows its client library (aiokafka).

A queue is a topic. What is published is keyed by its saga, so that a partition keeps each
saga's messages in order, by an idempotent producer that waits for all replicas in sync. A
topic is read by the consumer group of the same name. Messages that nobody can use go to the
topic of the same name with `.dead` behind it.

Replies to calls share one topic for each queue, under an address `topic#token`; who asked
takes those with his token, or with none, from the end of the topic on.

Guarantees: a delivery that was not acknowledged comes again; see `kafka_reading`.
Refuses: messages beyond what the topics it makes can hold (`ValidationError`).
Costs: about 150 microseconds of a core a message each way, most of it in pure Python.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.conn import create_conn
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    for_code,
)

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.broker import CONNECT_TIMEOUT_S, Broker, Take, is_own_cancellation
from raysaga.actors.brokers.envelope import Message
from raysaga.actors.brokers.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
    NotPublishedError,
)
from raysaga.actors.brokers.kafka_reading import AllToOne, Reading, message_of
from raysaga.actors.wire import MESSAGE_BYTES_MAX
from raysaga.statemachines.errors import ValidationError

PARTITIONS = 6
"""Of a topic that is made here: how many consumers can share it."""

REPLICAS_MAX = 3
"""Of a topic that is made here, if there are as many brokers; two of three must be in sync."""

RECORD_BYTES_MAX = MESSAGE_BYTES_MAX + (64 << 10)
"""Largest record: the largest body, and room for key and headers."""

REPLIES_KEPT_MS = 600_000
"""How long a topic of replies keeps them; the ledgers have the answers."""

SESSION_MS = 6_000
"""How long a consumer may be silent before its partitions go to another; Kafka's least."""

PUBLISH_TIMEOUT_S = 30.0
"""How long Kafka may take to have a message for good."""

CLOSE_TIMEOUT_S = 2.0
"""How long each part of a connection may take to say good-bye."""

TOPIC_WAIT_S = 2.0
"""How long a topic that is not known yet is looked for."""

_LOST = (KafkaError, OSError, TimeoutError, asyncio.CancelledError)
"""What the library raises when Kafka cannot be reached, or what waits for it is given up."""

# What matters is told by who keeps the link; the library tells each try of its own.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class KafkaBroker:
    """One Kafka cluster. See `Broker`."""

    def __init__(self, address: BrokerAddress) -> None:
        self.address = address

    async def connect(self) -> KafkaLink:
        """See `Broker`."""
        options = self._options()
        producer = AIOKafkaProducer(
            **options, enable_idempotence=True, max_request_size=RECORD_BYTES_MAX
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await producer.start()
        except _LOST as error:
            await _stop(producer)
            if is_own_cancellation(error):
                raise
            refused = await self._refusal(options)
            if refused:
                raise BrokerRefusedError(self.address.shown, refused) from None
            raise BrokerUnavailableError(self.address.shown, type(error).__name__) from None
        except BaseException:
            await _stop(producer)
            raise
        return KafkaLink(producer, options, self.address.shown)

    def _options(self) -> dict[str, Any]:
        """Return what producers, consumers and admins are made with.

        Raises:
            BrokerRefusedError: If the certificates to trust cannot be read.
        """
        parts = urlsplit(self.address.url)
        context = None
        if self.address.is_secure:
            try:
                context = ssl.create_default_context(cafile=self.address.cafile or None)
            except OSError as error:
                what = f"cafile cannot be read: {error.strerror}"
                raise BrokerRefusedError(self.address.shown, what) from None
        security = "SSL" if context is not None else "PLAINTEXT"
        options: dict[str, Any] = {
            "bootstrap_servers": f"{parts.hostname}:{parts.port or 9092}",
            "client_id": "raysaga",
            "request_timeout_ms": int(CONNECT_TIMEOUT_S * 1_000),
            "security_protocol": security,
            "ssl_context": context,
        }
        if parts.username:
            options["security_protocol"] = f"SASL_{security}"
            options["sasl_plain_username"] = unquote(parts.username)
            options["sasl_plain_password"] = unquote(parts.password or "")
        return options

    async def _refusal(self, options: Mapping[str, Any]) -> str:
        """Return why the cluster, or our check of its certificate, says no; empty if none does.

        The library only says that it has no connection, so one is made to see.
        """
        host, _, port = options["bootstrap_servers"].rpartition(":")
        shared = {name: value for name, value in options.items() if name != "bootstrap_servers"}
        try:
            connection = await create_conn(host, int(port), **shared)
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except (SaslAuthenticationFailed, UnsupportedSaslMechanismError) as error:
            return type(error).__name__
        except KafkaConnectionError:
            # It was there, and hung up: so it says no to a password.
            return "it has closed the connection" if "sasl_plain_username" in options else ""
        except _LOST as error:
            if is_own_cancellation(error):
                raise
            return ""
        connection.close()
        return ""


class KafkaLink:
    """One connection, or rather all that one needs. See `Link`.

    The library mends lost connections, and nothing is lost by that: what was published is
    sent again under its number, and replies are kept. So a link is over only when Kafka has
    been away for too long for a message or for a consumer's session.
    """

    def __init__(self, producer: AIOKafkaProducer, options: Mapping[str, Any], shown: str) -> None:
        self.lost: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._producer = producer
        self._options = options
        self._shown = shown
        self._known_topics: set[str] = set()
        self._admin: AIOKafkaAdminClient | None = None
        self._closing: list[Any] = [producer]
        self._readings: list[Reading] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def publish(self, queue: str, message: Message) -> None:
        """See `Link`."""
        await self._publish(queue, message, [])

    async def _bury(self, queue: str, message: Message, reason: str, detail: str) -> None:
        headers = [("raysaga-reason", reason.encode()), ("raysaga-detail", detail[:500].encode())]
        await self._publish(f"{queue}.dead", message, headers)

    async def consume(
        self, queue: str, take: Take, *, prefetch: int, one_at_a_time: bool = False
    ) -> None:
        """See `Link`."""
        await self.ensure(queue, one_at_a_time=one_at_a_time)
        consumer = self._consumer(
            group_id=queue,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 3,
            partition_assignment_strategy=[
                AllToOne if one_at_a_time else RoundRobinPartitionAssignor
            ],
        )
        reading = Reading(
            consumer, queue, take, prefetch=prefetch, offset_of=self._offset_of, bury=self._bury
        )
        consumer.subscribe([queue], listener=reading)
        with self._errors_told():
            await consumer.start()
        self._readings.append(reading)
        self._watch(reading.read_for_ever(), reading.commit_for_ever())

    async def ensure(self, queue: str, *, one_at_a_time: bool = False) -> None:
        """See `Link`. A topic that is served one at a time has one partition."""
        await self._make(queue, 1 if one_at_a_time else PARTITIONS)
        await self._make(f"{queue}.dead", 1)

    async def consume_replies(self, queue: str, take: Callable[[Message], None]) -> str:
        """See `Link`."""
        topic, token = f"{queue}.replies", secrets.token_hex(8)
        await self._make(topic, 1, {"retention.ms": str(REPLIES_KEPT_MS)})
        consumer = self._consumer(group_id=None, auto_offset_reset="latest")
        with self._errors_told():
            await consumer.start()
            partitions = await self._producer.partitions_for(topic)
            consumer.assign([TopicPartition(topic, number) for number in partitions])
            await consumer.seek_to_end()
            for partition in consumer.assignment():
                # Found out now, or a reply could be passed over.
                await consumer.position(partition)

        async def hear() -> None:
            while True:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    for record in records:
                        if dict(record.headers).get("to", token.encode()) == token.encode():
                            take(message_of(record))

        self._watch(hear())
        return f"{topic}#{token}"

    async def _offset_of(self, partition: TopicPartition, group: str) -> tuple[int, str]:
        with self._errors_told():
            admin = await self._administer()
            found = await admin.list_consumer_group_offsets(group, partitions=[partition])
            return found[partition].offset, found[partition].metadata

    async def close(self) -> None:
        """See `Link`."""
        self.lose(ConnectionError("closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for reading in self._readings:
            committing = asyncio.get_running_loop().create_task(reading.commit())
            committing.add_done_callback(_left)
            await asyncio.wait({committing}, timeout=CLOSE_TIMEOUT_S)
        await asyncio.gather(*(_stop(client) for client in self._closing))

    def lose(self, error: BaseException) -> None:
        """End the link, for this reason unless it has one."""
        if not self.lost.done():
            self.lost.set_result(error)

    async def _publish(
        self, address: str, message: Message, headers: list[tuple[str, bytes]]
    ) -> None:
        if self.lost.done():
            raise BrokerUnavailableError(self._shown, "the connection is gone")
        topic, _, token = address.partition("#")
        if token:
            headers = [*headers, ("to", token.encode())]
        headers += [(name, text.encode()) for name, text in _headers_of(message) if text]
        await self._find(topic)
        key = message.group.encode() or None
        try:
            with self._errors_told():
                async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                    await self._producer.send_and_wait(
                        topic, message.body, key=key, headers=headers
                    )
        except MessageSizeTooLargeError:
            raise ValidationError(f"{len(message.body)} bytes are too many for {topic}") from None
        except BrokerUnavailableError as error:
            # An idempotent producer that has given up a message must not go on.
            self.lose(error)
            raise

    async def _find(self, topic: str) -> None:
        """Look for a topic before it is first published to.

        Raises:
            NotPublishedError: If there is none.
        """
        if topic in self._known_topics:
            return
        try:
            async with asyncio.timeout(TOPIC_WAIT_S):
                await self._producer.partitions_for(topic)
        except (TimeoutError, UnknownTopicOrPartitionError):
            raise NotPublishedError(topic, "there is no such topic") from None
        except KafkaError as error:
            raise NotPublishedError(topic, type(error).__name__) from None
        self._known_topics.add(topic)

    async def _make(
        self, topic: str, partitions: int, configs: Mapping[str, str] | None = None
    ) -> None:
        """Make a topic if it is missing; that of somebody else is taken as it is."""
        if topic in self._known_topics:
            return
        with self._errors_told():
            admin = await self._administer()
            if topic not in await admin.list_topics():
                replicas = min(len((await admin.describe_cluster())["brokers"]), REPLICAS_MAX)
                settings = {
                    "max.message.bytes": str(RECORD_BYTES_MAX),
                    "min.insync.replicas": str(max(1, replicas - 1)),
                    **(configs or {}),
                }
                made = NewTopic(topic, partitions, replicas, topic_configs=settings)
                answer = await admin.create_topics([made])
                for _, code, *_ in answer.topic_errors:
                    error = for_code(code)
                    if code and error is not TopicAlreadyExistsError:
                        raise error(f"{topic} cannot be made")
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._producer.partitions_for(topic)
        self._known_topics.add(topic)

    async def _administer(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            admin = AIOKafkaAdminClient(**self._options)
            self._closing.append(admin)
            await admin.start()
            self._admin = admin
        return self._admin

    def _consumer(self, **options: Any) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **self._options,
            **options,
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_partition_fetch_bytes=2 * RECORD_BYTES_MAX,
        )
        self._closing.append(consumer)
        return consumer

    def _watch(self, *works: Any) -> None:
        """Run each of `works` until the link is closed; it is lost when one of them ends."""
        for work in works:
            task = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.lose(task.exception() or ConnectionError("ended"))

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Turn what the library raises when Kafka cannot be reached into our error."""
        try:
            yield
        except MessageSizeTooLargeError:
            raise
        except _LOST as error:
            if is_own_cancellation(error):
                raise
            what = f"{type(error).__name__} {error}".strip()
            raise BrokerUnavailableError(self._shown, what) from None


def _headers_of(message: Message) -> tuple[tuple[str, str], ...]:
    return (
        ("content-type", message.content_type),
        ("type", message.type),
        ("message-id", message.message_id),
        ("correlation-id", message.correlation_id),
        ("reply-to", message.reply_to),
        ("traceparent", message.traceparent),
    )


async def _stop(client: Any) -> None:
    """Let a client of the library go, whatever state it is in.

    One whose Kafka is away goes on trying, and ends by itself when that is back.
    """
    stop = client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
    task = asyncio.get_running_loop().create_task(stop())
    _leaving.add(task)
    task.add_done_callback(_left)
    await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)


def _left(task: asyncio.Task[None]) -> None:
    _leaving.discard(task)
    if not task.cancelled():
        task.exception()


_leaving: set[asyncio.Task[None]] = set()
"""Clients that are being let go; nobody else holds them."""


def connectable(address: BrokerAddress) -> Broker:
    """Return the broker at an address."""
    return KafkaBroker(address)
