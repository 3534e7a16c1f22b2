"""Turns rows of order lines into orders as JSON lines, and a stock file to match.

Guarantees: every order written is valid (`raysaga.api.order_schema`); every row read is in
an order, or in the rejects with its line and the reason; the same file and settings give
the same bytes; the three files appear whole and together (`raysaga.api.orders_output`).
Refuses: a file it cannot read, and places it cannot write (`OrdersFileError`).
Costs: two readings of the file. In memory: the id and last line of every order, some 150
bytes each; the demand for every item, as much; and the orders that have begun and not
ended, which is one where an order's lines stand together.

The rules:

- Rows with the same order id are one order, wherever they stand. It is written at its last
  row. Rows of the same item are summed.
- A bad row is rejected alone, and its order goes on without it. An order of which no row is
  left is rejected too (`ORDER_EMPTY`), and one that breaks a rule as a whole (`ORDER_INVALID`:
  more than 500 items, more than 10,000 of one, an amount above 10**12).
- The customer is the one of the order's first good row; a good row with another is rejected.
- Amounts are summed exactly and rounded once, at the end, to the minor unit, half to even.
- The payment token is made from the customer id: the same customer pays with the same one.
- Demand counts the units in the orders written. The most wanted `shortage` of all items,
  rounded to a whole number of them and at least one, have 80 % of their demand in stock,
  rounded down; all others have all of it. Where demand is even, the smaller id comes first.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from pathlib import Path
from typing import Final, TextIO

from raysaga.api.order_schema import ORDER_ITEMS_MAX, Order, OrderInvalid, parse_order
from raysaga.api.orders_output import StagedFiles, check_places
from raysaga.api.orders_sources import OrdersFileError, OrderSource, SourceRow
from raysaga.api.orders_values import (
    MONEY,
    CellRejected,
    decimals_of,
    read_id,
    read_price,
    read_quantity,
)

# With it, about one in twelve of the first thousand orders of completejourney is refused.
SHORTAGE_USUAL: Final = Decimal("0.005")
STOCK_PERCENT_SHORT: Final = 80
# What the stock file says of items that it does not name; it names all that are ordered.
STOCK_DEFAULT: Final = 0

_ROWS_BETWEEN_REPORTS: Final = 4096
_TOKEN_BYTES: Final = 10
# Letters only: some tokens in hexadecimal would pass for card numbers.
_HEX_TO_LETTERS: Final = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


class PriceUnit(StrEnum):
    """What a price counts: dollars (major) or cents (minor)."""

    MAJOR = "major"
    MINOR = "minor"


class PriceIs(StrEnum):
    """What a price is for: the whole line, or each unit of it."""

    LINE = "line"
    EACH = "each"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSettings:
    """How rows become orders and stock.

    Attributes:
        currency: Three capital letters, as in ISO 4217, for all orders.
        price_unit: What the price column counts.
        price_is: What the price column is for.
        orders_max: Stop after this many orders were written; None for no bound. Orders
            that have begun and not ended by then are left out, and not rejected.
        shortage: The share of items that are short, 0 to 1.
    """

    currency: str = "USD"
    price_unit: PriceUnit = PriceUnit.MAJOR
    price_is: PriceIs = PriceIs.LINE
    orders_max: int | None = None
    shortage: Decimal = SHORTAGE_USUAL

    def __post_init__(self) -> None:
        assert self.orders_max is None or self.orders_max >= 1
        assert 0 <= self.shortage <= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlaces:
    """Where the results go; what is there is replaced.

    Attributes:
        orders: Orders as JSON lines, in the order in which they end in the file.
        rejects: JSON lines of `line`, `order_id` (null where it is not a valid id),
            `code` and `reason`.
        stock: One JSON object: `items`, from item id to units, and `default`, the units
            of all other items.
    """

    orders: Path
    rejects: Path
    stock: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What an import did.

    Attributes:
        lines_read: Rows read; fewer than the file has if `orders_max` ended the import.
        orders_written: Orders in the result.
        lines_rejected: Rows rejected alone.
        orders_rejected: Orders rejected as a whole.
        rejects: Number of rejects by code.
        items: Different items in the orders written.
        items_short: Those of them that are short in stock.
        units: Units in the orders written.
        amount_minor: Sum of the orders written, in the currency's minor unit.
        currency: Their currency.
    """

    lines_read: int
    orders_written: int
    lines_rejected: int
    orders_rejected: int
    rejects: dict[str, int]
    items: int
    items_short: int
    units: int
    amount_minor: int
    currency: str


# Told the stage, "finding orders" or "writing orders", and how much of it is done, 0 to 1.
Progress = Callable[[str, float], None]


def import_orders(
    source: OrderSource,
    places: ImportPlaces,
    settings: ImportSettings,
    progress: Progress | None = None,
) -> ImportSummary:
    """Import a file; on return its orders, rejects and stock are on disk.

    Args:
        source: The file, from `open_source`.
        places: Where the results go.
        settings: How rows become orders.
        progress: Called now and then, from the same thread.

    Raises:
        OrdersFileError: A place cannot be written, or the file is damaged or changed
            while it was read. Nothing has been written.
        OSError: The disk is full or failing. See `StagedFiles.commit`.
    """
    check_places([places.orders, places.rejects, places.stock], source.path)
    with StagedFiles() as files:
        # The orders come last, so that who finds them finds the other two as well.
        rejects = files.open(places.rejects)
        stock = files.open(places.stock)
        orders = files.open(places.orders)
        run = _Import(source, settings, progress, orders=orders, rejects=rejects)
        run.read()
        levels, items_short = stock_levels(run.demand, settings.shortage)
        json.dump({"items": levels, "default": STOCK_DEFAULT}, stock, indent=1)
        stock.write("\n")
        files.commit()
    return run.summary(items_short)


def stock_levels(demand: Mapping[str, int], shortage: Decimal) -> tuple[dict[str, int], int]:
    """Return the stock of each item, by id, and how many of them are short.

    Args:
        demand: Units wanted of each item.
        shortage: The share of items to be short, 0 to 1.
    """
    share = (shortage * len(demand)).to_integral_value(ROUND_HALF_EVEN)
    short_count = max(1, int(share)) if shortage > 0 and demand else 0
    by_demand = sorted(demand, key=lambda item_id: (-demand[item_id], item_id))
    short = set(by_demand[:short_count])
    levels = {
        item_id: demand[item_id] * STOCK_PERCENT_SHORT // 100
        if item_id in short
        else demand[item_id]
        for item_id in sorted(demand)
    }
    return levels, short_count


def payment_token(customer_id: str) -> str:
    """Return a stand-in for the customer's means of payment, the same each time."""
    digest = hashlib.blake2b(customer_id.encode(), digest_size=_TOKEN_BYTES).hexdigest()
    return "tok_" + digest.translate(_HEX_TO_LETTERS)


@dataclass(slots=True, kw_only=True)
class _OpenOrder:
    """An order that has begun and not ended."""

    customer_id: str
    first_line: int
    price_total: Decimal
    quantities: dict[str, int]


class _Import:
    """One run; keeps what the rows seen so far have come to."""

    def __init__(
        self,
        source: OrderSource,
        settings: ImportSettings,
        progress: Progress | None,
        *,
        orders: TextIO,
        rejects: TextIO,
    ) -> None:
        self.demand: Counter[str] = Counter()
        self._lines_read = 0
        self._lines_rejected = 0
        self._orders_written = 0
        self._orders_rejected = 0
        self._amount_minor = 0
        self._rejects_by_code: Counter[str] = Counter()
        self._source = source
        self._settings = settings
        self._progress = progress
        self._orders = orders
        self._rejects = rejects
        self._open: dict[str, _OpenOrder] = {}
        decimals = decimals_of(settings.currency) if settings.price_unit is PriceUnit.MAJOR else 0
        self._minor_per_price = 10**decimals

    def read(self) -> None:
        """Read the file twice: where each order ends, then the orders."""
        last_line_by_order = self._find_ends()
        for row in self._source.rows(self._source.columns.names()):
            self._lines_read += 1
            order_id = self._take(row)
            if order_id is not None and row.line == last_line_by_order.get(order_id):
                self._end(order_id, row.line)
                if self._orders_written == self._settings.orders_max:
                    break
            if self._lines_read % _ROWS_BETWEEN_REPORTS == 0:
                self._report("writing orders", self._share_written())
        self._source.check_unchanged()
        self._report("writing orders", 1.0)

    def summary(self, items_short: int) -> ImportSummary:
        """Return what has been counted."""
        return ImportSummary(
            lines_read=self._lines_read,
            orders_written=self._orders_written,
            lines_rejected=self._lines_rejected,
            orders_rejected=self._orders_rejected,
            rejects=dict(sorted(self._rejects_by_code.items())),
            items=len(self.demand),
            items_short=items_short,
            units=self.demand.total(),
            amount_minor=self._amount_minor,
            currency=self._settings.currency,
        )

    def _find_ends(self) -> dict[str, int]:
        last_line_by_order: dict[str, int] = {}
        for count, row in enumerate(self._source.rows([self._source.columns.order_id]), 1):
            if row.fault is None:
                # The second reading rejects what is no id, with the reason.
                with suppress(CellRejected):
                    last_line_by_order[read_id(row.values[0], "order id")] = row.line
            if count % _ROWS_BETWEEN_REPORTS == 0:
                self._report("finding orders", self._source.read_share())
        self._report("finding orders", 1.0)
        return last_line_by_order

    def _take(self, row: SourceRow) -> str | None:
        """Add a row to its order or reject it; return the order's id if it has one."""
        order_id: str | None = None
        try:
            if row.fault is not None:
                raise CellRejected("ROW_UNREADABLE", f"the row {row.fault}")
            raw_order, raw_customer, raw_item, raw_quantity, raw_price = row.values
            order_id = read_id(raw_order, "order id")
            customer_id = read_id(raw_customer, "customer id")
            item_id = read_id(raw_item, "item id")
            quantity = read_quantity(raw_quantity)
            price = read_price(raw_price)
            self._add(order_id, customer_id, item_id, quantity, price, row.line)
        except CellRejected as fault:
            self._reject(row.line, order_id, fault.code, fault.reason)
            self._lines_rejected += 1
        return order_id

    def _add(
        self,
        order_id: str,
        customer_id: str,
        item_id: str,
        quantity: int,
        price: Decimal,
        line: int,
    ) -> None:
        order = self._open.get(order_id)
        if order is None:
            order = self._open[order_id] = _OpenOrder(
                customer_id=customer_id, first_line=line, price_total=Decimal(), quantities={}
            )
        if customer_id != order.customer_id:
            raise CellRejected("CUSTOMER_DIFFERS", "an earlier row names another customer")
        if self._settings.price_is is PriceIs.EACH:
            price = MONEY.multiply(price, quantity)
        order.price_total = MONEY.add(order.price_total, price)
        # One item too many is enough to have the order refused, and bounds its memory.
        if item_id in order.quantities or len(order.quantities) <= ORDER_ITEMS_MAX:
            order.quantities[item_id] = order.quantities.get(item_id, 0) + quantity

    def _end(self, order_id: str, line: int) -> None:
        """Write an order whose last row was read, or reject it."""
        open_order = self._open.pop(order_id, None)
        try:
            if open_order is None:
                raise CellRejected("ORDER_EMPTY", "none of the order's rows is valid")
            self._write(self._order(order_id, open_order))
        except OrderInvalid as error:
            assert open_order is not None
            self._reject(open_order.first_line, order_id, "ORDER_INVALID", str(error))
            self._orders_rejected += 1
        except CellRejected as fault:
            self._reject(line, order_id, fault.code, fault.reason)
            self._orders_rejected += 1

    def _order(self, order_id: str, open_order: _OpenOrder) -> Order:
        amount = MONEY.multiply(open_order.price_total, self._minor_per_price)
        return parse_order(
            {
                "order_id": order_id,
                "customer_id": open_order.customer_id,
                "items": [
                    {"item_id": item_id, "quantity": quantity}
                    for item_id, quantity in open_order.quantities.items()
                ],
                "payment": {
                    "token": payment_token(open_order.customer_id),
                    "amount_minor": int(amount.to_integral_value(context=MONEY)),
                    "currency": self._settings.currency,
                },
            }
        )

    def _write(self, order: Order) -> None:
        json.dump(order.to_request(), self._orders, separators=(",", ":"))
        self._orders.write("\n")
        self._orders_written += 1
        self._amount_minor += order.payment.amount_minor
        for item in order.items:
            self.demand[item.item_id] += item.quantity

    def _reject(self, line: int, order_id: str | None, code: str, reason: str) -> None:
        record = {"line": line, "order_id": order_id, "code": code, "reason": reason}
        json.dump(record, self._rejects)
        self._rejects.write("\n")
        self._rejects_by_code[code] += 1

    def _share_written(self) -> float:
        share = self._source.read_share()
        if self._settings.orders_max is not None:
            share = max(share, self._orders_written / self._settings.orders_max)
        return min(1.0, share)

    def _report(self, stage: str, share: float) -> None:
        if self._progress is not None:
            self._progress(stage, share)


__all__ = [
    "ImportPlaces",
    "ImportSettings",
    "ImportSummary",
    "OrdersFileError",
    "PriceIs",
    "PriceUnit",
    "import_orders",
    "payment_token",
    "stock_levels",
]
