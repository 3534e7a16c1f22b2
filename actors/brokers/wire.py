"""A host's way to one participant through a broker, in the form of every other way.

A lane asks for exchanges: a batch of calls there, and whatever replies there are back.
Here the calls of a batch become messages, one each, and the replies that come on a
queue of our own wait in a landing, as they would at a participant. So the host, its
dispatchers and its lanes need not know.

Guarantees: a call whose message the broker did not take for good is answered at once
with "nothing is known"; when the connection is lost, so are all calls under way, and the
lane is told. The host then asks again, with the same key.
Refuses: to queue anything while there is no connection.
Costs: beside the broker's own work, packing and unpacking each message once more.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import structlog

from raysaga.actors.brokers.address import BrokerAddress
from raysaga.actors.brokers.broker import Keeper, Link, open_broker
from raysaga.actors.brokers.envelope import Message, call_message, read_reply
from raysaga.actors.brokers.errors import BrokerUnavailableError, EnvelopeError
from raysaga.actors.lane import Landing
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import Code, Outcome, StepCall, reply_to
from raysaga.statemachines.errors import SagaError, ValidationError

QUEUE_PREFIX = "raysaga."
"""Before a participant's name: the queue of its calls, if the address names none."""


def queue_of(address: BrokerAddress, participant: str) -> str:
    """Return the queue that the calls to a participant go to."""
    return address.queue or QUEUE_PREFIX + participant


class BrokerWire:
    """Carries exchanges to one participant. See the head of this module."""

    def __init__(self, participant: str, address: BrokerAddress, settings: EngineSettings) -> None:
        """Make a wire that connects when it is first used, in the event loop that uses it.

        Raises:
            BrokerAddressError: If the client library for the broker is not installed.
        """
        self._queue = queue_of(address, participant)
        self._address = address
        self._settings = settings
        self._log = structlog.get_logger().bind(participant=participant)
        self._keeper = Keeper(open_broker(address), self._set_up, self._log)
        self._landing: Landing | None = None
        self._replies_at = ""
        self._sender = ""
        self._publishing: set[asyncio.Task[None]] = set()

    async def __call__(self, batch: bytes) -> bytes:
        """Send the calls of `batch`, and return the replies that there are, once there are any.

        Raises:
            BrokerUnavailableError: If there is no connection, or it was lost meanwhile.
        """
        self._keeper.start()
        if self._keeper.link is None and not self._keeper.connected_count:
            await self._wait_for_link()
        link, landing = self._keeper.link, self._landing
        if link is None or landing is None:
            raise BrokerUnavailableError(str(self._address), "the connection is lost")
        exchange = asyncio.ensure_future(landing.exchange(batch))
        try:
            either: set[asyncio.Future[Any]] = {exchange, link.lost}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if exchange.done():
                return exchange.result()
            raise BrokerUnavailableError(str(self._address), str(link.lost.result()))
        finally:
            exchange.cancel()

    async def close(self) -> None:
        """Let go of the connection."""
        await self._keeper.stop()
        for task in list(self._publishing):
            task.cancel()

    async def _wait_for_link(self) -> None:
        try:
            async with asyncio.timeout(self._settings.exchange_hold_ms / 1_000):
                await self._keeper.up()
        except TimeoutError:
            error = self._keeper.error
            if error is not None:
                raise error from None
            raise BrokerUnavailableError(str(self._address), "it does not answer") from None

    async def _set_up(self, link: Link) -> None:
        # A new one for each connection: by its name the lane notices what was lost with the last.
        landing = self._landing = Landing(partial(self._send, link), self._settings)
        self._replies_at = await link.consume_replies(self._queue, partial(self._heard, landing))

    def _send(self, link: Link, sender: str, messages: list[list[Any]]) -> None:
        """Publish calls, each by itself: one that is refused must not hold up the others."""
        self._sender = sender
        for fields in messages:
            task = asyncio.get_running_loop().create_task(
                self._publish(link, StepCall._make(fields))
            )
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _publish(self, link: Link, call: StepCall) -> None:
        try:
            message = call_message(
                call, reply_to=self._replies_at, body_format=self._address.format
            )
            await link.publish(self._queue, message)
        except ValidationError as error:
            self._answer_here(call, Code.INVALID_REQUEST, error)
        except SagaError as error:
            self._log.warning("call_not_published", saga_id=call.saga_id, reason=str(error))
            self._answer_here(call, Code.SERVICE_UNAVAILABLE, error)

    def _answer_here(self, call: StepCall, code: Code, error: SagaError) -> None:
        assert self._landing is not None
        reply = reply_to(call, Outcome.UNKNOWN, code=code, message=str(error))
        self._landing.push(self._sender, reply)

    def _heard(self, landing: Landing, message: Message) -> None:
        try:
            landing.push(self._sender, read_reply(message))
        except (EnvelopeError, ValidationError) as error:
            # Nobody knows whose it is; its call will time out.
            self._log.warning("reply_unreadable", reason=str(error))
