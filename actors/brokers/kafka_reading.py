"""How a Kafka topic is read: what is delivered, acknowledged and committed.

Kafka keeps an offset for each partition and no mark for each message, so a partition's offset
stands at its first message that is not acknowledged, however many after it are. With it
stands how often that message was begun with: one that killed whoever took it, `DELIVERIES_MAX`
times, is poison; from `CAUTIOUS_FROM` times on, its partition is read one by one for a while,
until the culprit stands first.

Guarantees: an offset is committed only over messages that were acknowledged; when partitions
are taken from this consumer, nothing of theirs is acknowledged through it any more.
Costs: two requests for each partition that is assigned, and ten commits a second at most.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from raysaga.actors.brokers.broker import DELIVERIES_MAX, Take
from raysaga.actors.brokers.envelope import Message

CAUTIOUS_FROM = 3
"""Times that a message was begun with before its partition is read one by one."""

SPAN_MAX = 10_000
"""Offsets of a partition beyond its first message that is not acknowledged; bounds memory."""

COMMIT_PAUSE_S = 0.1
"""Between two commits of offsets; what was acknowledged since comes again after a crash."""

OffsetOf = Callable[[TopicPartition, str], Awaitable[tuple[int, str]]]
"""Gives the offset that a group has committed, with what stands beside it; -1 if none."""

Bury = Callable[[str, Message, str, str], Awaitable[None]]
"""Publishes a dead letter of a topic, with reason and detail."""


class Progress:
    """How far one partition was read and acknowledged since it was assigned.

    Attributes:
        pending: Offsets that were delivered and not acknowledged, in order.
        next_offset: Of the record after the last one that was delivered.
        committed: What was committed last.
        begun: How often the first record was begun with, this time included; 0 until it is known.
        cautious_until: Offset before which records are delivered one by one.
        is_paused: Whether it is not read for now.
        poison_at: Offset of a message that was begun with too often; -1 if there is none.
    """

    __slots__ = (
        "begun",
        "cautious_until",
        "committed",
        "is_paused",
        "next_offset",
        "pending",
        "poison_at",
    )

    def __init__(self) -> None:
        self.pending: OrderedDict[int, None] = OrderedDict()
        self.next_offset = -1
        self.committed = -1
        self.begun = 0
        self.cautious_until = 0
        self.is_paused = False
        self.poison_at = -1

    @property
    def span(self) -> int:
        """How far delivering is ahead of what may be committed."""
        return self.next_offset - self.offset

    @property
    def offset(self) -> int:
        """What may be committed: all before it is acknowledged."""
        return next(iter(self.pending), self.next_offset)


class Reading(ConsumerRebalanceListener):  # type: ignore[misc]
    """One topic on its way to who takes its messages."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        take: Take,
        *,
        prefetch: int,
        offset_of: OffsetOf,
        bury: Bury,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._take = take
        self._prefetch = prefetch
        self._offset_of = offset_of
        self._bury = bury
        self._partitions: dict[TopicPartition, Progress] = {}
        self._acknowledged = asyncio.Event()
        self._has_room = asyncio.Event()

    # -- reading -------------------------------------------------------------

    async def read_for_ever(self) -> None:
        """Deliver records while there is room for them."""
        while True:
            room = self._prefetch - sum(len(p.pending) for p in self._partitions.values())
            if room <= 0:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            found = await self._consumer.getmany(timeout_ms=500, max_records=room)
            for partition, records in found.items():
                await self._deliver(partition, records)

    async def _deliver(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        progress = self._partitions.setdefault(partition, Progress())
        if not progress.begun:
            await self._begin(partition, progress, records[0].offset)
        if self._partitions.get(partition) is not progress:
            # Taken away meanwhile; whoever has it now reads them again.
            return
        if records[0].offset < progress.cautious_until:
            records = records[:1]
            self._consumer.seek(partition, records[0].offset + 1)
            self._pause(partition, progress)
        for record in records:
            progress.pending[record.offset] = None
            progress.next_offset = record.offset + 1
        if progress.span > SPAN_MAX:
            self._pause(partition, progress)
        if records[0].offset == progress.poison_at:
            delivery = KafkaDelivery(self, partition, progress, records[0])
            what = f"was taken {DELIVERIES_MAX} times, and never acknowledged"
            await delivery.dead_letter("DELIVERY_LIMIT", what)
            return
        for record in records:
            self._take(KafkaDelivery(self, partition, progress, record))

    def _pause(self, partition: TopicPartition, progress: Progress) -> None:
        self._consumer.pause(partition)
        progress.is_paused = True

    async def _begin(self, partition: TopicPartition, progress: Progress, offset: int) -> None:
        """Count, beside the committed offset, that its message is begun with once more."""
        committed, note = await self._offset_of(partition, self._topic)
        before = int(note) if committed == offset and note.isdigit() else 0
        with suppress(CommitFailedError, IllegalStateError):
            await self._consumer.commit({partition: (offset, str(before + 1))})
        progress.committed = offset
        progress.begun = before + 1
        if progress.begun >= CAUTIOUS_FROM:
            # The culprit is among those that were taken together.
            progress.cautious_until = offset + self._prefetch
        if progress.begun > DELIVERIES_MAX:
            progress.poison_at = offset

    # -- acknowledging -------------------------------------------------------

    def acknowledge(self, partition: TopicPartition, progress: Progress, offset: int) -> None:
        """Note that a record is done with, unless its partition was taken away meanwhile."""
        if self._partitions.get(partition) is not progress:
            return
        progress.pending.pop(offset, None)
        is_cautious = progress.next_offset <= progress.cautious_until
        if progress.is_paused and progress.span <= (0 if is_cautious else SPAN_MAX):
            progress.is_paused = False
            with suppress(IllegalStateError):
                self._consumer.resume(partition)
        self._has_room.set()
        self._acknowledged.set()

    async def dead_letter(self, message: Message, reason: str, detail: str) -> None:
        """Publish a dead letter of this topic; raises as `Link.publish`."""
        await self._bury(self._topic, message, reason, detail)

    async def commit_for_ever(self) -> None:
        """Commit what is acknowledged, soon after it is."""
        while True:
            await self._acknowledged.wait()
            self._acknowledged.clear()
            await self.commit()
            await asyncio.sleep(COMMIT_PAUSE_S)

    async def commit(self) -> None:
        """Commit over what is acknowledged."""
        moved = {
            partition: progress
            for partition, progress in self._partitions.items()
            if progress.offset > progress.committed
        }
        if not moved:
            return
        offsets = {partition: progress.offset for partition, progress in moved.items()}
        try:
            await self._consumer.commit({p: (offset, "") for p, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError):
            # The partitions go to another, or come back; what is not committed comes again.
            return
        for partition, progress in moved.items():
            progress.committed = offsets[partition]

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commit what is acknowledged, and let go of the rest."""
        with suppress(KafkaError):
            await self.commit()
        for partition in revoked:
            self._partitions.pop(partition, None)
        self._has_room.set()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin with them when their first records come."""


class KafkaDelivery:
    """One record that was delivered. See `Delivery`."""

    __slots__ = ("_offset", "_partition", "_progress", "_reading", "message")

    def __init__(
        self,
        reading: Reading,
        partition: TopicPartition,
        progress: Progress,
        record: ConsumerRecord,
    ) -> None:
        self.message = message_of(record)
        self._reading = reading
        self._partition = partition
        self._progress = progress
        self._offset = record.offset

    async def ack(self) -> None:
        """See `Delivery`."""
        self._reading.acknowledge(self._partition, self._progress, self._offset)

    async def dead_letter(self, reason: str, detail: str) -> None:
        """See `Delivery`."""
        await self._reading.dead_letter(self.message, reason, detail)
        await self.ack()


class AllToOne(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Gives all partitions to one consumer of the group; the others stand by."""

    name = "raysaga-all-to-one"

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, Any]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return what each member reads."""
        first = min(members)
        found = super().assign(cluster, {first: members[first]})
        nothing = {m: ConsumerProtocolMemberAssignment(cls.version, [], b"") for m in members}
        return {**nothing, **found}


def message_of(record: ConsumerRecord) -> Message:
    """Return the message that a record is; what its headers lack is empty."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers if value}
    return Message(
        record.value or b"",
        headers.get("content-type", ""),
        headers.get("type", ""),
        headers.get("message-id", ""),
        (record.key or b"").decode(errors="replace"),
        headers.get("correlation-id", ""),
        headers.get("reply-to", ""),
        headers.get("traceparent", ""),
    )
