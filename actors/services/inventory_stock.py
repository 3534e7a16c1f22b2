"""Counts stock: how many pieces of an item there are, and where.

Guarantees: what is taken leaves `on_hand` and enters `reserved` of the same shelf, and comes
back or is sold from there; so `initial = on_hand + reserved + sold` for each item, and no
number is ever negative. A stock that is loaded again is not added again.
Refuses: another stock than the one that was loaded (`StockConflictError`).

An item lies on one or more shelves. The row of the item is its first shelf; a hot item has
more of them, so that orders can take from different ones at the same time. Shelves are
added and never removed, since reservations name them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

from msgspec.structs import astuple
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.structure import Structure
from raysaga.storage.effects import Effects, View

STOCK, SHELVES, LOADS = "stock", "shelves", "loads"
"""Tables: an item with its first shelf, further shelves, and what was loaded."""

TABLES: Final = (STOCK, SHELVES, LOADS)

QUANTITY_MAX: Final = 10**12
"""Pieces of one item; sums over all items stay far below the 64 bits of a row."""

SHELVES_MAX: Final = 1_000
"""Shelves of one item; looking for the last piece visits all of them."""

_LOAD: Final = "load"

Quantity = Annotated[int, Field(strict=True, ge=0, le=QUANTITY_MAX)]
ItemId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]


class Stock(BaseModel):
    """What an inventory begins with: `{"items": {"milk": 40}, "default": 100}`.

    Attributes:
        items: Pieces of each item.
        default: Pieces of every item that is not named; None: such items are unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: Mapping[ItemId, Quantity] = Field(default_factory=dict)
    default: Quantity | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the content, whatever the order of the items."""
        canonical = json.dumps([sorted(self.items.items()), self.default])
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


class StockConflictError(SagaError):
    """The inventory holds another stock than the one it is given; nothing was changed.

    Attributes:
        message: What differs, and what to do.
    """

    code = "STOCK_CONFLICT"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Shelf(Structure, frozen=True):
    """One place where pieces of an item lie.

    Attributes:
        on_hand: Free to be taken.
        reserved: Taken by orders that are not over.
        sold: Taken by orders that were completed.
        version: Grows with each change of `on_hand`.
    """

    on_hand: int = 0
    reserved: int = 0
    sold: int = 0
    version: int = 0

    @property
    def total(self) -> int:
        """All pieces that the shelf answers for."""
        return self.on_hand + self.reserved + self.sold

    def changed(self, *, on_hand: int = 0, reserved: int = 0, sold: int = 0) -> Shelf:
        """Return the shelf with these many more; a negative number takes away."""
        shelf = Shelf(
            self.on_hand + on_hand,
            self.reserved + reserved,
            self.sold + sold,
            self.version + (on_hand != 0),
        )
        assert min(shelf.on_hand, shelf.reserved, shelf.sold) >= 0, (
            "a shelf would hold less than nothing"
        )
        return shelf


class Item(Structure, frozen=True):
    """The row of an item: its first shelf, and what it began with."""

    first: Shelf
    initial: int
    shelf_count: int


class StockLine(NamedTuple):
    """The sum over the shelves of one item."""

    item_id: str
    initial: int
    on_hand: int
    reserved: int
    sold: int

    @property
    def is_balanced(self) -> bool:
        """Whether every piece is accounted for, and none twice."""
        rest = (self.on_hand, self.reserved, self.sold)
        return min(rest) >= 0 and self.initial == sum(rest)


class StockRoom:
    """Reads of the tables, typed; in a transaction or of the committed state."""

    __slots__ = ("_default", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._default: Any = ...

    def item(self, item_id: str) -> Item | None:
        """Return an item, as the default says if it was never touched; None if unknown."""
        row = self._view.get(STOCK, item_id)
        if row is not None:
            return _item_of(row)
        if self._default is ...:
            load = self._view.get(LOADS, _LOAD)
            self._default = None if load is None else load["default"]
        if self._default is None:
            return None
        return Item(Shelf(on_hand=self._default), self._default, 1)

    def shelf(self, item_id: str, item: Item, index: int) -> Shelf:
        """Return one shelf of an item."""
        if index == 0:
            return item.first
        assert index < item.shelf_count
        row = self._view.get(SHELVES, f"{item_id}/{index}")
        assert row is not None, "a shelf that the item counts is missing"
        return Shelf(*row)

    def shelves(self, item_id: str, item: Item) -> list[Shelf]:
        """Return all shelves of an item, in their order."""
        return [self.shelf(item_id, item, index) for index in range(item.shelf_count)]

    def on_hand(self, item_id: str) -> int:
        """Return the pieces of an item that are free to be taken; 0 if unknown."""
        item = self.item(item_id)
        if item is None:
            return 0
        return sum(shelf.on_hand for shelf in self.shelves(item_id, item))

    def version(self, item_id: str) -> int:
        """Return a number that grows with every change of what is on hand; 0 if unknown."""
        item = self.item(item_id)
        if item is None:
            return 0
        return sum(shelf.version for shelf in self.shelves(item_id, item))


class OpenStockRoom(StockRoom):
    """Reads and changes, inside a transaction."""

    __slots__ = ("_effects",)

    def __init__(self, effects: Effects) -> None:
        super().__init__(effects)
        self._effects = effects

    def change(
        self,
        item_id: str,
        index: int,
        *,
        on_hand: int = 0,
        reserved: int = 0,
        sold: int = 0,
    ) -> None:
        """Change one shelf by these numbers."""
        item = self.item(item_id)
        assert item is not None, "what was taken was never there"
        shelf = self.shelf(item_id, item, index)
        self._put(
            item_id, item, index, shelf.changed(on_hand=on_hand, reserved=reserved, sold=sold)
        )

    def take(self, item_id: str, quantity: int, home: int) -> list[tuple[int, int]]:
        """Reserve pieces, from shelf `home` on and around; return shelf and pieces taken there.

        Returns nothing, and changes nothing, if all shelves together have too few, or there
        is no such item.
        """
        item = self.item(item_id)
        if item is None:
            return []
        taken: list[tuple[int, int]] = []
        for step in range(item.shelf_count):
            index = (home + step) % item.shelf_count
            pieces = min(quantity, self.shelf(item_id, item, index).on_hand)
            if pieces:
                taken.append((index, pieces))
                quantity -= pieces
            if not quantity:
                break
        if quantity:
            return []
        for index, pieces in taken:
            # Each shelf once, so that what was read above still stands.
            shelf = self.shelf(item_id, item, index).changed(on_hand=-pieces, reserved=pieces)
            self._put(item_id, item, index, shelf)
        return taken

    def top_up(self, item_id: str, initial: int) -> None:
        """Raise what the item began with to `initial`.

        Raises:
            StockConflictError: If it began with more.
        """
        row = self._effects.get(STOCK, item_id)
        item = Item(Shelf(), 0, 1) if row is None else _item_of(row)
        more = initial - item.initial
        if more < 0:
            raise StockConflictError(
                f"{item_id}: the stock began with {item.initial} pieces and cannot be lowered "
                f"to {initial}; a stock can only be topped up"
            )
        self._put(item_id, item._replace(initial=initial), 0, item.first.changed(on_hand=more))

    def spread(self, item_id: str, shelf_count: int) -> None:
        """Give an item at least so many shelves, and the same on each, but for the remainder."""
        assert 1 <= shelf_count <= SHELVES_MAX
        item = self.item(item_id)
        if item is None or item.shelf_count >= shelf_count:
            return
        shelves = self.shelves(item_id, item)
        shelves += [Shelf()] * (shelf_count - item.shelf_count)
        share, remainder = divmod(sum(shelf.on_hand for shelf in shelves), shelf_count)
        item = item._replace(shelf_count=shelf_count)
        for index, shelf in enumerate(shelves):
            more = share + (index < remainder) - shelf.on_hand
            moved = shelf.changed(on_hand=more)
            self._put(item_id, item, index, moved)
            if index == 0:
                item = item._replace(first=moved)

    def _put(self, item_id: str, item: Item, index: int, shelf: Shelf) -> None:
        if index == 0:
            row = (*astuple(shelf), item.initial, item.shelf_count)
            self._effects.put(STOCK, item_id, row)
        else:
            self._effects.put(SHELVES, f"{item_id}/{index}", astuple(shelf))


def _item_of(row: Sequence[int]) -> Item:
    on_hand, reserved, sold, version, initial, shelf_count = row
    return Item(Shelf(on_hand, reserved, sold, version), initial, shelf_count)


def load_stock(effects: Effects, stock: Stock, *, top_up: bool = False) -> bool:
    """Begin with `stock`, or find that it was loaded before; return whether anything changed.

    With `top_up`, an item that began with less is raised to what `stock` says, items that
    it does not name stay, and its default holds for items that were never touched.

    Raises:
        StockConflictError: If another stock was loaded and `top_up` is not set, or it would
            take something away.
    """
    load = effects.get(LOADS, _LOAD)
    if load is not None and load["fingerprint"] == stock.fingerprint:
        return False
    if load is not None and not top_up:
        raise StockConflictError(
            "the inventory was loaded with another stock; continue with that one, "
            "top it up, or begin with a fresh data folder"
        )
    room = OpenStockRoom(effects)
    for item_id, quantity in sorted(stock.items.items()):
        room.top_up(item_id, quantity)
    effects.put(LOADS, _LOAD, {"fingerprint": stock.fingerprint, "default": stock.default})
    return True


def stock_lines(view: View) -> Iterator[StockLine]:
    """Yield the sums of every item that was loaded or touched, by item id."""
    room = StockRoom(view)
    for item_id, row in view.scan(STOCK):
        item = _item_of(row)
        shelves = room.shelves(item_id, item)
        yield StockLine(
            item_id,
            item.initial,
            sum(shelf.on_hand for shelf in shelves),
            sum(shelf.reserved for shelf in shelves),
            sum(shelf.sold for shelf in shelves),
        )
