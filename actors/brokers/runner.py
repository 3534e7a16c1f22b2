"""Runs one participant behind a broker, outside Ray, on the same ledger as within.

Takes calls from a queue, has a `ParticipantServer` answer them, publishes each reply, and
only then acknowledges the call. A runner that dies between the effect and the reply gets
the call again when it is back, or its stand-by does, and the ledger has the answer.

Guarantees: no reply leaves before its effect is durable; no call is forgotten before its
reply is with the broker, or nobody waits for it any more. What nobody can read goes to
the dead letters, with the reason.
Refuses: to serve from a ledger that another runner has; it stands by until that is gone.
All runners of one participant must have one ledger, and so be on one machine.
Costs: about one millisecond of a core a call, most of it the broker's client library.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from raysaga.actors.brokers.broker import Broker, Delivery, Keeper, Link
from raysaga.actors.brokers.envelope import read_call, reply_message
from raysaga.actors.brokers.errors import (
    BrokerUnavailableError,
    EnvelopeError,
    NotPublishedError,
)
from raysaga.actors.participant_server import ParticipantServer
from raysaga.statemachines.calls import StepCall, StepReply
from raysaga.statemachines.errors import SagaError, ValidationError

Mark = Callable[[StepCall], Callable[[StepReply], None]]
"""Marks a call that was taken; what it returns is told the answer."""

PREFETCH = 256
"""Calls taken and not answered: a batch of the ledger. A server has slots for four times as
many, so that nothing the broker hands over is turned away as an overload."""

UNANSWERED_MS = 5_000
"""How long beyond its time-out a call that got no answer is kept before it is dropped; its
sender has given that attempt up by then."""

STOP_WAIT_S = 10.0
"""How long a runner that stops waits for the answers to what it has taken."""


class ParticipantRunner:
    """One participant's calls from one queue.

    Attributes:
        server: Answers them.
        answered_count: Calls answered.
        dead_letter_count: Messages that were no calls.
    """

    def __init__(
        self,
        server: ParticipantServer,
        broker: Broker,
        queue: str,
        *,
        prefetch: int = PREFETCH,
        mark: Mark | None = None,
    ) -> None:
        """Make a runner that takes nothing before `start`.

        Args:
            server: Started; whoever made it stops it, after this.
            broker: Where the calls come from.
            queue: The queue that they come on; made if it is missing.
            prefetch: Calls taken and not answered at one time.
            mark: Marks each call in a trace; None for none.
        """
        self.server = server
        self._queue = queue
        self._prefetch = prefetch
        self._mark = mark
        self._log = structlog.get_logger().bind(participant=server.participant.name, queue=queue)
        self._keeper = Keeper(broker, self._set_up, self._log)
        self._answering: set[asyncio.Task[None]] = set()
        self._taken: set[_Taken] = set()
        self._is_open = True
        self.answered_count = 0
        self.dead_letter_count = 0

    def start(self) -> None:
        """Take calls from now on, through whatever connections it needs."""
        self._keeper.start()

    async def up(self) -> None:
        """Return once calls are taken."""
        await self._keeper.up()

    @property
    def error(self) -> SagaError | None:
        """Why there is no connection; None if there is one, or none was tried."""
        return self._keeper.error

    @property
    def unanswered_count(self) -> int:
        """Calls taken and not answered."""
        return len(self._taken)

    async def stop(self) -> None:
        """Take no more, answer what was taken, and let go."""
        self._is_open = False
        tasks = [taken.settled for taken in self._taken if not taken.link.lost.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_WAIT_S)
        await self._keeper.stop()

    async def _set_up(self, link: Link) -> None:
        # What the last link delivered comes again.
        for taken in list(self._taken):
            self._forget(taken)
        take = partial(self._take, link)
        await link.consume(self._queue, take, prefetch=self._prefetch, one_at_a_time=True)

    def _take(self, link: Link, delivery: Delivery) -> None:
        if not self._is_open:
            return
        try:
            call = read_call(delivery.message)
        except EnvelopeError as error:
            self._log.warning("dead_letter", reason=error.reason, detail=error.message)
            self.dead_letter_count += 1
            self._run(delivery.dead_letter(error.reason, error.message))
            return
        taken = _Taken(link, delivery)
        self._taken.add(taken)
        loop = asyncio.get_running_loop()
        limit_s = (min(call.timeout_ms, 3_600_000) + UNANSWERED_MS) / 1_000
        taken.timer = loop.call_later(limit_s, self._give_up, taken)
        if self._mark is not None:
            taken.marked = self._mark(call)
        self.server.deliver([call], lambda reply: self._answer(taken, call, reply))

    def _answer(self, taken: _Taken, call: StepCall, reply: StepReply) -> None:
        if taken.marked is not None:
            taken.marked(reply)
        if taken in self._taken:
            self._run(self._reply(taken, call, reply))

    async def _reply(self, taken: _Taken, call: StepCall, reply: StepReply) -> None:
        to = taken.delivery.message
        try:
            if to.reply_to:
                message = reply_message(call, reply, to=to)
                await taken.link.publish(to.reply_to, message)
        except NotPublishedError:
            # Whoever asked is gone, or has a new connection and asks again.
            pass
        except ValidationError as error:
            self._log.error("reply_not_sent", saga_id=call.saga_id, reason=str(error))
        except BrokerUnavailableError:
            # The call comes again, and the ledger has the answer.
            self._forget(taken)
            raise
        await taken.delivery.ack()
        self.answered_count += 1
        self._forget(taken)

    def _give_up(self, taken: _Taken) -> None:
        """Drop a call that will get no answer; its sender has given it up before."""
        self._run(taken.delivery.ack())
        self._forget(taken)

    def _forget(self, taken: _Taken) -> None:
        self._taken.discard(taken)
        if taken.timer is not None:
            taken.timer.cancel()
        if not taken.settled.done():
            taken.settled.set_result(None)

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(_until_lost(work))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)


class _Taken:
    """One call that was taken and not answered."""

    __slots__ = ("delivery", "link", "marked", "settled", "timer")

    def __init__(self, link: Link, delivery: Delivery) -> None:
        self.link = link
        self.delivery = delivery
        self.timer: asyncio.TimerHandle | None = None
        self.marked: Callable[[StepReply], None] | None = None
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()


async def _until_lost(work: Any) -> None:
    """Do `work`; what fails with the connection comes again, with its message."""
    try:
        await work
    except SagaError:
        structlog.get_logger().info("delivery_comes_again")
