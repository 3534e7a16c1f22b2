"""Keeps stock, and reserves it for orders: all items of an order, or none.

Guarantees: stock is exact under every strategy: no piece is given twice, none is lost, and
what is released can be reserved again. When the saga completes, what was reserved is sold.
Refuses: `INSUFFICIENT_STOCK` and `UNKNOWN_SKU`, by the first item in the order of their ids.
Costs: two reads and one write for each item; beyond that see `inventory_strategies`.

Request: `{"order_id", "items": [{"item_id", "quantity"}]}`. Answer of `reserve` and of
`release`: `{"reservation_id", "taken": [[item_id, shelf, quantity]]}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from raysaga.actors.participant import Effects, LedgerRow, Operation, Refusal, View
from raysaga.actors.services.behaviour import SeededBehaviour
from raysaga.actors.services.inventory_stock import TABLES, OpenStockRoom, Stock, load_stock
from raysaga.actors.services.inventory_strategies import Strategy
from raysaga.actors.services.requests import id_from_key, key_of, name_in, quantities_in
from raysaga.actors.services.service import Service, change_tables
from raysaga.statemachines.calls import ACTION, LedgerStatus, StepCall
from raysaga.statemachines.tables import Phase
from raysaga.storage.ledger import Ledger

INSUFFICIENT_STOCK = "INSUFFICIENT_STOCK"
UNKNOWN_SKU = "UNKNOWN_SKU"


class Inventory(Service):
    """The inventory of the order saga."""

    name = "inventory"
    tables = TABLES
    refusals = (INSUFFICIENT_STOCK, UNKNOWN_SKU)
    refusal_by_chance = INSUFFICIENT_STOCK

    def __init__(
        self,
        strategy: Strategy,
        *,
        stock: Stock | None = None,
        trouble: SeededBehaviour | None = None,
    ) -> None:
        """Share the stock by `strategy`.

        Args:
            strategy: See `inventory_strategies`.
            stock: What there is at first; None: what the ledger holds already.
            trouble: See `Service`.
        """
        super().__init__(trouble)
        self.operations = {
            "reserve": Operation(apply=self.reserve, undo_name="release", undo=self.release)
        }
        self._strategy = strategy
        self._stock = stock

    def prepare(self, ledger: Ledger) -> None:
        """Load the stock, unless it was loaded before.

        Raises:
            StockConflictError: If the ledger holds another one.
        """
        if self._stock is not None:
            self.load(ledger, self._stock)

    def load(self, ledger: Ledger, stock: Stock, *, top_up: bool = False) -> bool:
        """Load a stock; see `load_stock`.

        Raises:
            StockConflictError: If the ledger holds another one.
        """
        return change_tables(ledger, 0, lambda room: load_stock(room, stock, top_up=top_up))

    def is_guarded(self, call: StepCall) -> bool:
        """Whether the strategy has anything to do before the transaction."""
        return call.verb == ACTION and self._strategy.is_guarding

    def guard(self, call: StepCall, view: View) -> AbstractAsyncContextManager[Any]:
        """Return the strategy's look at the stock."""
        if not self.is_guarded(call):
            return self.unguarded
        try:
            wanted = quantities_in(call.request)
        except Refusal:
            # Only the handler can refuse, and it will.
            return self.unguarded
        return self._strategy.look(key_of(call), wanted, view)

    def reserve(self, effects: Effects, call: StepCall, seen: Any) -> Mapping[str, Any]:
        """Take every item of the order from its shelves.

        Raises:
            Refusal: `INSUFFICIENT_STOCK`, `UNKNOWN_SKU` or `INVALID_REQUEST`.
            TryLater: `CONFLICT`, under the optimistic strategy.
        """
        name_in(call.request, "order_id")
        wanted = quantities_in(call.request)
        self.refuse_by_chance(call)
        room = OpenStockRoom(effects)
        key = key_of(call)
        if seen is not None:
            self._strategy.check(room, seen)
        taken: list[list[Any]] = []
        for item_id, quantity in wanted.items():
            from_shelves = self._strategy.take(room, key, item_id, quantity)
            if not from_shelves:
                if room.item(item_id) is None:
                    raise Refusal(UNKNOWN_SKU, f"{item_id} is not in the stock list")
                on_hand = room.on_hand(item_id)
                raise Refusal(
                    INSUFFICIENT_STOCK, f"{item_id}: {quantity} wanted, {on_hand} available"
                )
            taken.extend([item_id, shelf, pieces] for shelf, pieces in from_shelves)
        return {"reservation_id": id_from_key("rsv", key), "taken": taken}

    def release(
        self,
        effects: Effects,
        call: StepCall,  # noqa: ARG002 - what to give back is in the answer
        applied: Mapping[str, Any] | None,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Put everything back where it was taken."""
        assert applied is not None, "stock lies with nobody outside, so this is always known"
        room = OpenStockRoom(effects)
        for item_id, shelf, pieces in applied["taken"]:
            room.change(item_id, shelf, on_hand=pieces, reserved=-pieces)
        return applied

    def settle(self, effects: Effects, row: LedgerRow, outcome: str) -> None:
        """Count what a completed order holds as sold.

        What a saga holds that ended otherwise, because an operator skipped its undo, stays
        reserved: it is listed as remaining, and nobody knows here where the pieces are.
        """
        if row.status is not LedgerStatus.APPLIED or outcome != Phase.COMPLETED:
            return
        assert row.answer is not None
        room = OpenStockRoom(effects)
        for item_id, shelf, pieces in row.answer["taken"]:
            room.change(item_id, shelf, reserved=-pieces, sold=pieces)
