"""Takes orders from a broker's queue: each becomes a saga, and is acknowledged once it is one.

Guarantees: a message is acknowledged only after its saga is durably accepted; one that
comes again, for whatever reason, names the same saga. What can never become a saga goes to
the dead letters with the code of the error: what is unreadable, invalid, of a definition
that nobody knows, or under a key that another body has.
Refuses: nothing for want of room. What the engine does not admit now is offered to it again,
and meanwhile the broker hands over no more than `prefetch` messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog

from raysaga.actors.brokers.broker import Broker, Delivery, Keeper, Link
from raysaga.actors.brokers.envelope import Order, read_order
from raysaga.actors.brokers.errors import EnvelopeError
from raysaga.actors.errors import IdempotencyConflictError, OverloadedError
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import DefinitionError, SagaError, ValidationError

ORDERS_QUEUE = "raysaga.orders"
"""Where orders come from, unless the address names another queue."""

PREFETCH = 64
"""Orders taken and not acknowledged; a shard admits three hundred times as many."""

AGAIN_MS = 500
"""How long to wait before an order is offered again to an engine that cannot take it now."""

FINAL = (ValidationError, DefinitionError, IdempotencyConflictError)
"""Errors that are the order's own fault."""

Submit = Callable[[SagaDefinition, Order], Awaitable[None]]
"""Returns once the saga is durably accepted, now or before."""


class OrderIngress:
    """One queue of orders.

    Attributes:
        accepted_count: Orders acknowledged.
        dead_letter_count: Messages that can never become sagas.
    """

    def __init__(
        self,
        broker: Broker,
        definitions: Mapping[str, SagaDefinition],
        submit: Submit,
        *,
        prefetch: int = PREFETCH,
    ) -> None:
        """Make an ingress that takes nothing before `start`.

        Args:
            broker: Where the orders come from; its address may name the queue.
            definitions: Those that can be ordered, by name.
            submit: Gives an order to the engine.
            prefetch: Orders taken and not acknowledged at one time.
        """
        self._definitions = definitions
        self._submit = submit
        self._prefetch = prefetch
        self._queue = broker.address.queue or ORDERS_QUEUE
        self._log = structlog.get_logger().bind(queue=self._queue)
        self._keeper = Keeper(broker, self._set_up, self._log)
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted_count = 0
        self.dead_letter_count = 0

    def start(self) -> None:
        """Take orders from now on, through whatever connections it needs."""
        self._keeper.start()

    async def up(self) -> None:
        """Return once orders are taken."""
        await self._keeper.up()

    @property
    def error(self) -> SagaError | None:
        """Why there is no connection; None if there is one, or none was tried."""
        return self._keeper.error

    async def stop(self) -> None:
        """Take no more; what is not acknowledged by now comes again, to this or another."""
        await self._keeper.stop()
        self._drop()

    def _drop(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def _set_up(self, link: Link) -> None:
        # What the last link delivered comes again, and is the same saga.
        self._drop()
        await link.consume(self._queue, self._take, prefetch=self._prefetch)

    def _take(self, delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(self._order(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its message comes again with the next link.
            self._log.error("order_not_taken", exc_info=error)

    async def _order(self, delivery: Delivery) -> None:
        try:
            order = read_order(delivery.message)
            definition = self._definitions.get(order.definition)
            if definition is None:
                raise EnvelopeError("UNKNOWN_DEFINITION", "no definition of that name is served")
            await self._accepted(partial(self._submit, definition, order))
        except EnvelopeError as error:
            await self._bury(delivery, error.reason, error.message)
        except FINAL as error:
            await self._bury(delivery, error.code, str(error))
        else:
            await delivery.ack()
            self.accepted_count += 1

    async def _accepted(self, submit: Callable[[], Awaitable[None]]) -> None:
        """Return once the engine has the order.

        Raises:
            SagaError: One of `FINAL`, if it never will.
        """
        while True:
            try:
                await submit()
            except FINAL:
                raise
            except SagaError as error:
                # The engine's trouble and not the order's, however long it lasts.
                wait_ms = AGAIN_MS
                if isinstance(error, OverloadedError):
                    wait_ms = error.retry_after_ms
                self._log.info("order_waits", code=error.code, wait_ms=wait_ms)
                await asyncio.sleep(wait_ms / 1_000)
            else:
                return

    async def _bury(self, delivery: Delivery, reason: str, detail: str) -> None:
        self._log.warning("dead_letter", reason=reason, detail=detail)
        await delivery.dead_letter(reason, detail)
        self.dead_letter_count += 1
