"""Messages between actors, in batches, with replies pushed back as they come.

A sender keeps at most a few exchanges open with a responder. What queued while
they were under way goes in the next one, so there is no timer and no added
latency when idle. A responder answers an exchange as soon as it has anything to
say to that sender, whatever exchange the question came with; so one slow call
delays nobody, and most of the time one Ray call carries many messages each way.
A newer exchange of the same sender releases the older one; one that comes after a
newer one was given up by its sender long ago, and takes no replies along.

Guarantees nothing about delivery: a lost exchange loses the replies in it.
Whoever asks must ask again, with the same key. But a loss is told: each answer
names the outbox that it comes from, so that a responder which has restarted
between two exchanges, or has thrown replies away, is noticed by the next answer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from raysaga.actors.clock import Clock
from raysaga.actors.settings import EngineSettings
from raysaga.actors.wire import BATCH_BYTES_MAX, pack_message, unpack_messages
from raysaga.statemachines.structure import Structure

BATCH_SHARES = 2
"""Batches into which a lane divides what is under way. All of it in one would go round in step:
everybody would stand still but the one that has it."""

SHARE_ITEMS_MIN = 32
"""Below this a batch costs more than a second core gains (measured)."""

_numbers = itertools.count(1)
"""Of exchanges, growing over all lanes of a process: a sender's name is of one process."""

Message = Sequence[Any] | Structure
"""Plain data; what it means is between the two ends."""


class Landing:
    """The responder's end: hands batches over and keeps replies for each sender."""

    def __init__(
        self,
        receive: Callable[[str, list[list[Any]]], None],
        settings: EngineSettings,
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._outboxes: dict[str, _Outbox] = {}
        self._open: dict[str, asyncio.Future[None]] = {}
        self._last_seen_at: dict[str, float] = {}

    async def exchange(self, batch: bytes) -> bytes:
        """Take a batch, and return what there is to say to its sender.

        Raises:
            ValidationError: If the batch cannot be read; nothing was handed over.
        """
        messages = unpack_messages(batch)
        sender, number = _sender_of(messages.pop(0)) if messages else ("", None)
        loop = asyncio.get_running_loop()
        self._forget_the_silent(loop.time())
        self._last_seen_at[sender] = loop.time()
        outbox = self._outboxes.get(sender)
        if outbox is None:
            outbox = self._outboxes[sender] = _Outbox()
        if number is not None and number <= outbox.newest:
            if messages:
                self._receive(sender, messages)
            return outbox.name
        outbox.newest = number or 0
        older = self._open.pop(sender, None)
        if older is not None and not older.done():
            older.set_result(None)
        if messages:
            self._receive(sender, messages)
        if not outbox.messages:
            waiter: asyncio.Future[None] = loop.create_future()
            self._open[sender] = waiter
            timer = loop.call_later(self._settings.exchange_hold_ms / 1_000, _release, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                if self._open.get(sender) is waiter:
                    del self._open[sender]
        return outbox.name + _take(outbox.messages, 8 * self._settings.batch_items_max)

    def push(self, sender: str, message: Message) -> None:
        """Keep `message` for `sender`, and answer its open exchange after this turn.

        Raises:
            ValidationError: If the message is no plain data, or too large.
        """
        outbox = self._outboxes.get(sender)
        if outbox is None:
            outbox = self._outboxes[sender] = _Outbox()
            self._last_seen_at[sender] = asyncio.get_running_loop().time()
        packed = pack_message(message)
        if len(outbox.messages) >= self._settings.outbox_messages_max:
            # A sender that does not fetch must ask again; memory is bounded.
            outbox.messages.popleft()
            outbox.rename()
        outbox.messages.append(packed)
        waiter = self._open.get(sender)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _forget_the_silent(self, now: float) -> None:
        """Drop what is kept for senders that have not fetched for ten holds."""
        limit = now - 10 * self._settings.exchange_hold_ms / 1_000
        silent = [
            sender
            for sender, seen_at in self._last_seen_at.items()
            if seen_at < limit and sender not in self._open
        ]
        for sender in silent:
            del self._last_seen_at[sender]
            self._outboxes.pop(sender, None)


class _Outbox:
    """What waits for one sender.

    Attributes:
        name: Of no other outbox, past or elsewhere; changed when something was thrown away.
        newest: Number of the newest exchange of the sender; 0 if they have none.
    """

    __slots__ = ("messages", "name", "newest")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.newest = 0
        self.rename()

    def rename(self) -> None:
        """Let the sender know that not everything is here any more."""
        self.name = pack_message(os.urandom(8))


def _sender_of(first: Any) -> tuple[str, int | None]:
    """Return who sends a batch, and the number of its exchange, if it has one."""
    match first:
        case [name, int(number)]:
            return str(name), number
        case _:
            return str(first), None


def _take(queue: deque[bytes], items_max: int) -> bytes:
    """Return the next messages of `queue` as one batch; at least one, if there is any."""
    taken: list[bytes] = []
    # Never more than the bound, since the sender's name still goes in front.
    room = BATCH_BYTES_MAX
    while queue and len(taken) < items_max and len(queue[0]) <= room:
        taken.append(queue.popleft())
        room -= len(taken[-1])
    return b"".join(taken)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Lane:
    """The sender's end: gathers messages, keeps exchanges open, hands replies over."""

    def __init__(
        self,
        *,
        sender: str,
        exchange: Callable[[bytes], Awaitable[bytes]],
        receive: Callable[[list[list[Any]]], None],
        failed: Callable[[BaseException], None],
        expects: Callable[[], bool],
        defect: Callable[[BaseException], None],
        clock: Clock,
        settings: EngineSettings,
        under_way: Callable[[], int] | None = None,
    ) -> None:
        """Make a lane; it is idle until something is put.

        Args:
            sender: Name of this end, unique among the responder's senders.
            exchange: Carries one batch to the responder and its answer back.
            receive: Called with each batch of replies.
            failed: Called when an exchange was lost; its replies will not come.
            expects: Whether replies are still awaited, so that an exchange must stay open.
            defect: Called when `receive` raised, which it must not; replies were lost.
            clock: Time.
            settings: Bounds.
            under_way: How many sagas the sender has under way; see `BATCH_SHARES`. None if batches
                need no shares.
        """
        self._sender = sender
        self._exchange = exchange
        self._receive = receive
        self._failed = failed
        self._expects = expects
        self._defect = defect
        self._clock = clock
        self._settings = settings
        self._under_way = under_way
        self._queue: deque[bytes] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_count = 0
        self._pump_is_due = False
        self._blocked = False
        self._closed = False
        self._failures = 0
        # The outbox that is answered from; None while nothing is awaited of any.
        self._outbox: bytes | None = None
        self.exchange_count = 0

    def put(self, message: Message) -> None:
        """Queue `message`; it leaves after this turn of the loop, or with the next batch.

        Raises:
            ValidationError: If the message is no plain data, or too large.
        """
        self._queue.append(pack_message(message))
        self._pump_soon()

    @property
    def queued_count(self) -> int:
        """Messages that have not left."""
        return len(self._queue)

    def drop_queued(self) -> None:
        """Forget the messages that have not left."""
        self._queue.clear()

    async def close(self) -> None:
        """Abandon open exchanges and send nothing more."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump_soon(self) -> None:
        if not self._pump_is_due and not self._closed:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        if self._closed or self._blocked:
            return
        while self._queue and self._open_count < self._settings.exchanges_open_max:
            self._start(_take(self._queue, self._batch_items_max()))
        if not self._open_count:
            if self._expects():
                self._start(b"")
            else:
                self._outbox = None

    def _batch_items_max(self) -> int:
        most = self._settings.batch_items_max
        if self._under_way is None:
            return most
        share = -(-self._under_way() // BATCH_SHARES)
        return min(most, max(share, SHARE_ITEMS_MIN))

    def _start(self, messages: bytes) -> None:
        self._open_count += 1
        # Numbered as they leave, since they may overtake each other.
        head = pack_message((self._sender, next(_numbers)))
        task = asyncio.get_running_loop().create_task(self._run(head + messages))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: bytes) -> None:
        limit_s = (self._settings.exchange_hold_ms + self._settings.exchange_grace_ms) / 1_000
        self.exchange_count += 1
        try:
            answer = await asyncio.wait_for(self._exchange(batch), limit_s)
            outbox, *replies = unpack_messages(answer)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever broke, the exchange is lost
            await self._lost(error)
        else:
            self._failures = 0
            is_another = outbox != (self._outbox or outbox)
            self._outbox = outbox
            self._hand_over(replies)
            if is_another:
                self._tell_lost(ConnectionError("the other end has restarted, or thrown away"))
        finally:
            self._open_count -= 1
            self._pump_soon()

    def _hand_over(self, replies: list[list[Any]]) -> None:
        try:
            if replies:
                self._receive(replies)
        except Exception as error:  # noqa: BLE001 - the rest of the replies is lost with it
            self._defect(error)

    def _tell_lost(self, error: BaseException) -> None:
        try:
            self._failed(error)
        except Exception as bug:  # noqa: BLE001 - as in `_hand_over`
            self._defect(bug)

    async def _lost(self, error: BaseException) -> None:
        """Tell the owner, and wait a little before the next exchange."""
        self._failures += 1
        # All that was awaited is given up now, from whatever outbox.
        self._outbox = None
        self._tell_lost(error)
        self._blocked = True
        await self._clock.sleep_ms(min(20 * 2 ** min(self._failures, 6), 500))
        self._blocked = False
