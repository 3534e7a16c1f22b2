"""Four ways to let many orders take from the same stock, of which one is chosen by a setting.

Guarantees: whichever is chosen, stock is exact. Whether there is enough is decided inside
the transaction that takes it, under every strategy; they differ in what an order holds, and
what it risks, while it thinks: between looking at the stock and taking from it.
Refuses: nothing of its own, but for `CONFLICT` of the optimistic one, which is tried again.
Costs: pessimistic, one order at a time for each item; optimistic, work done again when items
are contended; escrow, nothing; buckets, as many orders at a time as an item has shelves.

Fairness. Pessimistic: first come, first served for each item, since the locks queue. Buckets:
the same for each bucket, so that one who came later may find a shorter queue. Escrow: in the
order in which calls reach the transaction. Optimistic: none; who thinks longest loses most
often, gives up after the server's own retries, and comes back later as the host's retries do.

Giving back takes no lock and checks no version under any strategy: an addition commutes with
everything, and a compensation must never wait for the orders that it makes room for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import Any

from raysaga.actors.clock import Clock
from raysaga.actors.participant import TryLater, View
from raysaga.actors.services.inventory_stock import OpenStockRoom, StockRoom
from raysaga.statemachines.calls import Code
from raysaga.statemachines.ids import StepKey


class StrategyName(StrEnum):
    """Which strategy an inventory uses."""

    PESSIMISTIC = "pessimistic"
    OPTIMISTIC = "optimistic"
    ESCROW = "escrow"
    BUCKETS = "buckets"


class Strategy:
    """What an order does before it takes from the stock, and where it takes first.

    Attributes:
        think_ms: Simulated time between looking and taking, in milliseconds.
    """

    def __init__(self, clock: Clock, think_ms: float) -> None:
        self.think_ms = think_ms
        self._clock = clock

    @property
    def is_guarding(self) -> bool:
        """Whether `look` does anything at all."""
        return True

    @asynccontextmanager
    async def look(
        self,
        key: StepKey,  # noqa: ARG002 - for the others
        wanted: Mapping[str, int],  # noqa: ARG002
        view: View,  # noqa: ARG002
    ) -> AsyncIterator[Any]:
        """Look at the stock and think; what is yielded comes back in `check`."""
        await self._think()
        yield None

    def check(self, room: OpenStockRoom, seen: Any) -> None:
        """Compare the stock with what was seen, inside the transaction.

        Raises:
            TryLater: `CONFLICT`, if it was changed meanwhile.
        """

    def take(
        self,
        room: OpenStockRoom,
        key: StepKey,  # noqa: ARG002 - for the others
        item_id: str,
        quantity: int,
    ) -> list[tuple[int, int]]:
        """Take from the shelves; return shelf and pieces, or nothing if there is too little."""
        return room.take(item_id, quantity, home=0)

    async def _think(self) -> None:
        if self.think_ms > 0:
            await self._clock.sleep_ms(self.think_ms)


class Escrow(Strategy):
    """Holds nothing, and decrements if there is enough (O'Neil, TODS 11:4, 1986).

    What the order takes is set aside for it in the same instant in which it is found to be
    there: `reserved` is the escrow. Nobody waits for anybody, and nobody works in vain.
    """

    @property
    def is_guarding(self) -> bool:
        """Whether there is anything to think about."""
        return self.think_ms > 0


class Pessimistic(Strategy):
    """Locks every item of the order, in the order of their ids, until the order has them.

    One order everywhere keeps two orders from waiting for each other (Havender, 1968).
    """

    def __init__(self, clock: Clock, think_ms: float) -> None:
        super().__init__(clock, think_ms)
        self._locks = LockTable()

    @asynccontextmanager
    async def look(
        self,
        key: StepKey,  # noqa: ARG002 - locks do not depend on it
        wanted: Mapping[str, int],
        view: View,  # noqa: ARG002 - under the lock nothing changes
    ) -> AsyncIterator[Any]:
        """Hold the locks from before the thought until the answer is on disk."""
        async with self._locks.held(wanted):
            await self._think()
            yield None


class Optimistic(Strategy):
    """Remembers versions, and begins again if one has changed (Kung & Robinson, TODS 6:2, 1981)."""

    @asynccontextmanager
    async def look(
        self,
        key: StepKey,  # noqa: ARG002 - versions do not depend on it
        wanted: Mapping[str, int],
        view: View,
    ) -> AsyncIterator[Any]:
        """Read the versions first, then think."""
        room = StockRoom(view)
        versions = {item_id: room.version(item_id) for item_id in wanted}
        await self._think()
        yield versions

    def check(self, room: OpenStockRoom, seen: Any) -> None:
        """Compare the versions.

        Raises:
            TryLater: `CONFLICT`, with the item's id.
        """
        for item_id, version in seen.items():
            if room.version(item_id) != version:
                raise TryLater(
                    Code.CONFLICT,
                    f"the stock of {item_id} changed while the order looked at it",
                    retry_after_ms=int(self.think_ms),
                )


class Buckets(Strategy):
    """Spreads an item over shelves, so that one lock becomes many.

    An order has a home shelf for each item by the hash of its key, and waits for that one
    only. When it has too little, the other shelves are drawn upon inside the transaction,
    without their locks, before the order is refused.
    """

    def __init__(
        self,
        clock: Clock,
        think_ms: float,
        *,
        bucket_count: int,
        hot_items: Iterable[str] | None = None,
    ) -> None:
        """Spread `hot_items`, or every item if None, over `bucket_count` shelves."""
        super().__init__(clock, think_ms)
        assert bucket_count >= 1
        self._bucket_count = bucket_count
        self._hot_items = None if hot_items is None else frozenset(hot_items)
        self._locks = LockTable()

    @asynccontextmanager
    async def look(
        self,
        key: StepKey,
        wanted: Mapping[str, int],
        view: View,  # noqa: ARG002 - under the lock nobody else begins at this shelf
    ) -> AsyncIterator[Any]:
        """Hold the lock of one bucket of each item."""
        names = [f"{item_id}/{self._home(key, item_id)}" for item_id in wanted]
        async with self._locks.held(names):
            await self._think()
            yield None

    def take(
        self, room: OpenStockRoom, key: StepKey, item_id: str, quantity: int
    ) -> list[tuple[int, int]]:
        """Take from the home shelf first, then from the others around it."""
        if self._is_hot(item_id):
            room.spread(item_id, self._bucket_count)
        return room.take(item_id, quantity, home=self._home(key, item_id))

    def _is_hot(self, item_id: str) -> bool:
        return self._hot_items is None or item_id in self._hot_items

    def _home(self, key: StepKey, item_id: str) -> int:
        if not self._is_hot(item_id):
            return 0
        digest = hashlib.blake2b(f"{key}/{item_id}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % self._bucket_count


class LockTable:
    """Locks by name, first come, first served; a name that nobody uses takes no memory."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def held(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of all `names`, taken in their order; safe to cancel at any point."""
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                lock = self._locks.setdefault(name, asyncio.Lock())
                self._users[name] = self._users.get(name, 0) + 1
                stack.callback(self._leave, name)
                await stack.enter_async_context(lock)
            yield

    def _leave(self, name: str) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name], self._locks[name]
