"""Tells a broker how sagas end, and which are parked, from the outboxes of the journals.

Reads beside the engine, or without one, what is on disk (`storage/outbox.py`), and moves its
bookmark only over what the broker has confirmed.

Guarantees: each end and each parking is told at least once, whoever is killed and whenever. A
repeat has the same message id and body. A saga's outcomes come in their order, but
for repeats; `seq` tells which is the newest. A second teller of the same name stands by.
Refuses: to go on beyond an outcome that the broker does not take; it is tried again.
Costs: the engine nothing but disk: what is not told yet is not pruned. Some 200 microseconds
of a core a saga here, beside what a message costs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.broker import Broker, Keeper, Link, open_broker
from raysaga.actors.brokers.envelope import Message, outcome_message
from raysaga.actors.brokers.errors import BrokerUnavailableError, NotPublishedError
from raysaga.actors.brokers.station import lock_or_stand_by
from raysaga.actors.outcome import bare_outcome, outcome_of
from raysaga.actors.recovery import Definitions, events_in
from raysaga.statemachines.errors import SagaError, ValidationError
from raysaga.statemachines.machine import IllegalMove
from raysaga.statemachines.saga import replay
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.outbox import (
    PLACE_FIRST,
    End,
    bookmarks,
    end_place,
    ends_from,
    read_bookmark,
    remove_bookmark,
    write_bookmark,
    written_at_ms,
)

OUTCOMES_QUEUE = "raysaga.outcomes"
"""Where outcomes go, unless the address names another queue."""

NAME = "outcomes"
"""Of the bookmark, unless somebody wants several."""

ROWS_A_LOOK = 256
"""Records looked at in one read, and so the most outcomes under way at one time."""

POLL_S = 0.05
"""Pause before the journal is looked at again once all is told."""

AGAIN_S = 0.5
"""Pause before a broker that did not take an outcome is asked again."""

BOOKMARK_EVERY_S = 1.0
"""How often the bookmark is moved on disk; what was told since is told again after a crash."""


class OutcomeEgress:
    """The outcomes of some journals on their way to one queue.

    Attributes:
        told_count: Outcomes that the broker has confirmed, repeats included.
        failed: Set to an error when this cannot go on.
    """

    def __init__(
        self,
        broker: Broker,
        journals: Sequence[LmdbJournal],
        *,
        name: str = NAME,
        from_now: bool = False,
    ) -> None:
        """Make an egress that tells nothing before `start`.

        Args:
            broker: Where to tell; its address may name the queue.
            journals: Whose outcomes; reading them is enough.
            name: Of the bookmark, of which there is one for each journal.
            from_now: Whether a new bookmark passes over what has ended before.
        """
        self._queue = broker.address.queue or OUTCOMES_QUEUE
        self._log = structlog.get_logger().bind(queue=self._queue)
        self._keeper = Keeper(broker, self._set_up, self._log)
        self._outboxes = [
            _Outbox(journal, name, broker.address.format, from_now=from_now) for journal in journals
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self.told_count = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Tell from now on, through whatever connections it needs."""
        self._keeper.start()

    async def up(self) -> None:
        """Return once a broker listens."""
        await self._keeper.up()

    @property
    def error(self) -> SagaError | None:
        """Why there is no connection; None if there is one, or none was tried."""
        return self._keeper.error

    async def stop(self) -> None:
        """Tell no more, and move the bookmarks to where it stopped."""
        await self._keeper.stop()
        await self._halt()
        for outbox in self._outboxes:
            outbox.keep_bookmark()

    def is_all_told(self) -> bool:
        """Return whether everything that is on disk by now is told."""
        return all(o.place >= end_place(o.journal.environment) for o in self._outboxes)

    async def _halt(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set_up(self, link: Link) -> None:
        await self._halt()
        await link.ensure(self._queue)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._tell(link, outbox)) for outbox in self._outboxes]

    async def _tell(self, link: Link, outbox: _Outbox) -> None:
        """Tell what one journal has until the link is lost."""
        loop = asyncio.get_running_loop()
        bookmark_at = loop.time() + BOOKMARK_EVERY_S
        try:
            while not link.lost.done():
                messages, place = await asyncio.to_thread(outbox.look)
                is_idle = place == outbox.place
                if await self._publish(link, messages):
                    outbox.place = place
                if loop.time() >= bookmark_at:
                    await asyncio.to_thread(outbox.keep_bookmark)
                    bookmark_at = loop.time() + BOOKMARK_EVERY_S
                if is_idle:
                    await asyncio.sleep(POLL_S)
        except BrokerUnavailableError:
            # The next link begins again where the last page began.
            return
        except Exception as error:  # noqa: BLE001 - nothing may end here unnoticed
            if not self.failed.done():
                self.failed.set_exception(error)

    async def _publish(self, link: Link, messages: list[Message]) -> bool:
        """Return whether the broker has all of `messages`; of each saga one after the other.

        Raises:
            BrokerUnavailableError: If the link is lost.
        """
        by_saga: dict[str, list[Message]] = {}
        for message in messages:
            by_saga.setdefault(message.group, []).append(message)

        async def in_order(of_one: list[Message]) -> None:
            for message in of_one:
                await link.publish(self._queue, message)
                self.told_count += 1

        done = await asyncio.gather(*map(in_order, by_saga.values()), return_exceptions=True)
        errors = [error for error in done if error is not None]
        for error in errors:
            if not isinstance(error, NotPublishedError):
                raise error
        if errors:
            self._log.warning("outcome_waits", reason=str(errors[0]))
            await asyncio.sleep(AGAIN_S)
        return not errors


class _Outbox:
    """One journal's outcomes from a bookmark on.

    Attributes:
        journal: Whose.
        place: Where to look next; all before it is told.
    """

    def __init__(
        self, journal: LmdbJournal, name: str, body_format: str, *, from_now: bool
    ) -> None:
        self.journal = journal
        self._name = name
        self._format = body_format
        self._definitions = Definitions(journal)
        self._log = structlog.get_logger().bind(shard=journal.identity.shard)
        path, end = journal.environment.path, end_place(journal.environment)
        kept = read_bookmark(path, name)
        if kept is None:
            kept = end if from_now else PLACE_FIRST
        # One beyond the end is of another journal.
        self.place = kept if kept <= end else PLACE_FIRST
        self._kept = 0
        # Before anything is read: from now on, nothing that is not told is pruned.
        self.keep_bookmark()

    def keep_bookmark(self) -> None:
        """Move the bookmark on disk; if it cannot be, some will be told again."""
        if self.place == self._kept:
            return
        place = self.place
        try:
            write_bookmark(self.journal.environment.path, self._name, place)
        except OSError as error:
            self._log.warning("bookmark_not_moved", reason=str(error))
        else:
            self._kept = place

    def look(self) -> tuple[list[Message], int]:
        """Return the outcomes among the next records, and the place behind those."""
        found = ends_from(self.journal.environment, self.place, ROWS_A_LOOK)
        return [message for end in found.ends if (message := self._message(end))], found.place

    def _message(self, end: End) -> Message | None:
        head = end.head
        chain = head.chain
        try:
            outcome, chain = self._outcome_at(end)
        except (RecordCorruptError, IllegalMove, IndexError, KeyError, TypeError, ValueError):
            self._log.warning("outcome_unreadable", saga_id=head.saga_id, record=end.seq)
            if end.seq != head.seq:
                # It has gone on since; what came after will be told.
                return None
            outcome = {**bare_outcome(head), "at_ms": head.changed_at_ms}
        outcome["definition"] = head.definition_name
        uuid = self.journal.identity.uuid
        try:
            return outcome_message(uuid, end.seq, chain, outcome, body_format=self._format)
        except ValidationError as error:
            self._log.warning("results_not_told", saga_id=head.saga_id, reason=str(error))
            outcome["results"] = {}
            return outcome_message(uuid, end.seq, chain, outcome, body_format=self._format)

    def _outcome_at(self, end: End) -> tuple[dict[str, Any], bytes]:
        """Return how the saga stood at that record, which it may have left since, and its chain."""
        head = end.head
        records = self.journal.records(head.saga_id)[: end.seq + 1]
        events, chain = events_in(head.saga_id, records)
        definition = self._definitions.get(head.definition_hash)
        if definition is None:
            # Made since this was, or one that nobody can read.
            self._definitions = Definitions(self.journal)
            definition = self._definitions.get(head.definition_hash)
        if definition is None:
            raise KeyError(head.definition_hash)
        saga = replay(head.saga_id, definition, events, taken_over=True)
        return {**outcome_of(saga), "at_ms": events[-1].at_ms}, chain


@asynccontextmanager
async def open_egress(
    data: Path, address: BrokerAddress, *, name: str = NAME, from_now: bool = False
) -> AsyncIterator[OutcomeEgress]:
    """Give the egress of a data folder, started, and stop it in good order afterwards.

    Waits while another process has the same name.

    Raises:
        DataFolderError: If the folder is none, or cannot be used.
        BrokerAddressError: If the client library for the broker is not installed.
    """
    broker = open_broker(address)
    folder = DataFolder.open(data, shard_count=None, create=False)
    lock = await lock_or_stand_by(lambda: folder.lock_for_outbox(name), outbox=name)
    with ExitStack() as stack:
        stack.callback(lock.close)
        journals = []
        for shard in range(folder.shard_count):
            if not (folder.journal_path(shard) / "data.mdb").exists():
                # One that was never started is an empty one.
                folder.open_journal(shard).close()
            journals.append(folder.open_journal(shard, read_only=True))
            stack.callback(journals[-1].close)
        egress = OutcomeEgress(broker, journals, name=name, from_now=from_now)
        egress.start()
        try:
            yield egress
        finally:
            await egress.stop()


class Behind(NamedTuple):
    """How far a bookmark is behind, over all shards.

    Attributes:
        records: How many are not passed yet.
        since_ms: When the first of them was written, Unix time; None if there is none.
    """

    records: int
    since_ms: int | None


def outboxes_behind(data: Path) -> dict[str, Behind]:
    """Return how far each bookmark of a folder is behind, by name.

    Raises:
        DataFolderError: If the folder is none, or cannot be used.
    """
    folder = DataFolder.open(data, shard_count=None, create=False)
    behind: dict[str, Behind] = {}
    for shard in range(folder.shard_count):
        found = bookmarks(folder.journal_path(shard))
        if found:
            journal = folder.open_journal(shard, read_only=True)
            end = end_place(journal.environment)
            for name, place in found.items():
                before = behind.get(name, Behind(0, None))
                since_ms = written_at_ms(journal.environment, place)
                instants = [at_ms for at_ms in (before.since_ms, since_ms) if at_ms is not None]
                records = before.records + max(end - place, 0)
                behind[name] = Behind(records, min(instants, default=None))
            journal.close()
    return behind


def forget_outbox(data: Path, name: str) -> bool:
    """Remove a bookmark, so that nothing is kept for it; return whether there was one.

    Raises:
        DataFolderError: If the folder is none, or somebody tells from the bookmark now.
    """
    folder = DataFolder.open(data, shard_count=None, create=False)
    with folder.lock_for_outbox(name):
        shards = range(folder.shard_count)
        found = [remove_bookmark(folder.journal_path(shard), name) for shard in shards]
    return any(found)
