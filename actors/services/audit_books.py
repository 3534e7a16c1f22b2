"""Reads what the services of the order saga hold into books that an audit can decide on.

Guarantees: only the services' ledgers, effect logs and tables are believed; ids of charges,
shipments and letters are made again from the step's key and not taken from any answer.
Costs: one pass over each ledger, and about a kilobyte of memory for each saga. The services
should be at rest: the ledgers are read one after another.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.actors.services.inventory import Inventory
from raysaga.actors.services.inventory_stock import StockLine, stock_lines
from raysaga.actors.services.notification import Notification, letters
from raysaga.actors.services.payment import (
    CHARGES,
    CurrencyTotals,
    Payment,
    currency_totals,
    entries,
)
from raysaga.actors.services.shipping import Shipping, scheduled_count, shipments
from raysaga.statemachines.calls import Code, LedgerStatus
from raysaga.statemachines.ids import StepKey
from raysaga.storage.ledger_reader import LedgerReader
from raysaga.storage.ledger_row import EffectEntry, EffectKind, LedgerRow

SERVICES: Mapping[str, type[Inventory | Payment | Shipping | Notification]] = {
    service.name: service for service in (Inventory, Payment, Shipping, Notification)
}


LEGAL_COUNTS: Mapping[LedgerStatus, tuple[int, int, int, int]] = {
    LedgerStatus.PENDING: (0, 0, 0, 0),
    LedgerStatus.APPLIED: (1, 0, 0, 0),
    LedgerStatus.UNKNOWN: (1, 0, 0, 0),
    LedgerStatus.UNDONE: (1, 1, 0, 0),
    LedgerStatus.TOMBSTONE: (0, 0, 1, 0),
    LedgerStatus.REFUSED: (0, 0, 0, 1),
}
"""Actions, undos, tombstones and refusals that the log tells of a row with this status."""


class StepHistory:
    """What a service's effect log and ledger say of one step.

    Attributes:
        actions: Number of times that the action took effect; more than 1 is a broken promise.
        undos: The same for the compensation.
        tombstones: Number of tombstones.
        refusals: Number of refusals.
        summary: What the action gave; None if it never took effect.
        acted_late: Whether an action took effect after an undo, a tombstone or a refusal.
        undid_nothing: Whether a compensation took effect before any action did.
        status: Of the ledger's row; None if there is none.
    """

    __slots__ = (
        "acted_late",
        "actions",
        "refusals",
        "status",
        "summary",
        "tombstones",
        "undid_nothing",
        "undos",
    )

    def __init__(self) -> None:
        self.actions = self.undos = self.tombstones = self.refusals = 0
        self.summary: Any = None
        self.acted_late = self.undid_nothing = False
        self.status: LedgerStatus | None = None

    @property
    def stands(self) -> bool:
        """Whether the step's effect is there, or must be supposed to be."""
        return self.actions > self.undos

    @property
    def is_unknown(self) -> bool:
        """Whether nobody will ever know what the action did outside."""
        return isinstance(self.summary, str) and self.summary == Code.OUTCOME_UNKNOWN

    def suppose(self, row: LedgerRow) -> None:
        """Take the counts from a row, where there is no log to count in."""
        counts = LEGAL_COUNTS[row.status]
        self.actions, self.undos, self.tombstones, self.refusals = counts
        self.summary = Code.OUTCOME_UNKNOWN if row.status is LedgerStatus.UNKNOWN else row.answer

    def add(self, line: EffectEntry) -> None:
        """Add the next line of the log."""
        match line.kind:
            case EffectKind.ACTION:
                self.acted_late |= bool(self.undos or self.tombstones or self.refusals)
                self.actions += 1
                self.summary = line.summary
            case EffectKind.COMPENSATION:
                self.undid_nothing |= self.undos >= self.actions
                self.undos += 1
            case EffectKind.TOMBSTONE:
                self.tombstones += 1
            case EffectKind.REFUSED:
                self.refusals += 1


class Overdraft(NamedTuple):
    """A moment at which more of an item was taken than there ever was."""

    item_id: str
    taken: int
    initial: int


class ChargeBook(NamedTuple):
    """What the payment service holds of one charge; the numbers come from its entries.

    Attributes:
        currency: ISO 4217.
        captured_minor: What the provider's account gained.
        refunded_minor: What it paid back.
        is_balanced: Whether the legs of each movement add up to zero.
    """

    currency: str
    captured_minor: int
    refunded_minor: int
    is_balanced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Everything that the four services hold.

    Attributes:
        histories: Of each service, by step key.
        is_whole: Of each service, whether its effect log begins at the beginning.
        stock: One line for each item.
        overdrafts: Found by following the inventory's effect log from its beginning.
        charges: By charge id.
        charge_rows: Captured and refunded of each charge, as its own row says.
        totals: Of each currency, as the service's running totals say.
        shipments: State of each shipment, by tracking id.
        scheduled_count: What the shipping service thinks is scheduled.
        letters: Names of all letters.
    """

    histories: Mapping[str, Mapping[StepKey, StepHistory]]
    is_whole: Mapping[str, bool]
    stock: Sequence[StockLine] = ()
    overdrafts: Sequence[Overdraft] = ()
    charges: Mapping[str, ChargeBook] = field(default_factory=dict)
    charge_rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    totals: Sequence[CurrencyTotals] = ()
    shipments: Mapping[str, str] = field(default_factory=dict)
    scheduled_count: int = 0
    letters: frozenset[str] = frozenset()


def read_books(ledgers: Mapping[str, LedgerReader]) -> Books:
    """Return the books of the services whose ledgers are given by service name.

    Raises:
        KeyError: If one of the four is missing.
        RecordCorruptError: If a row or a line is damaged.
    """
    inventory, payment = ledgers[Inventory.name], ledgers[Payment.name]
    shipping, notification = ledgers[Shipping.name], ledgers[Notification.name]
    stock = tuple(stock_lines(inventory))
    charge_rows = {
        charge_id: (row["captured_minor"], row["refunded_minor"])
        for charge_id, row in payment.scan(CHARGES)
    }
    states = {shipment.tracking_id: shipment.state.value for shipment in shipments(shipping)}
    names = frozenset(letter.name for letter in letters(notification))
    traces = {
        Inventory.name: any(line.reserved or line.sold for line in stock),
        Payment.name: bool(charge_rows),
        Shipping.name: bool(states),
        Notification.name: bool(names),
    }
    read = {name: _histories(ledgers[name], traces[name]) for name in SERVICES}
    is_whole = {name: whole for name, (_, whole) in read.items()}
    overdrafts = find_overdrafts(inventory.effects(), stock) if is_whole[Inventory.name] else ()
    return Books(
        histories={name: histories for name, (histories, _) in read.items()},
        is_whole=is_whole,
        stock=stock,
        overdrafts=tuple(overdrafts),
        charges=_charges(payment),
        charge_rows=charge_rows,
        totals=tuple(currency_totals(payment)),
        shipments=states,
        scheduled_count=scheduled_count(shipping),
        letters=names,
    )


def open_ledgers(folders: Mapping[str, Path]) -> dict[str, LedgerReader]:
    """Open the services' ledgers for reading, by service name; the caller closes them.

    Raises:
        DataFolderError: If there is none, or it is open in this process.
    """
    opened: dict[str, LedgerReader] = {}
    try:
        for name, service in SERVICES.items():
            opened[name] = LedgerReader.open(folders[name], tables=tuple(service.tables))
    except BaseException:
        for reader in opened.values():
            reader.close()
        raise
    return opened


def find_overdrafts(
    lines: Iterable[EffectEntry], stock: Iterable[StockLine]
) -> Iterable[Overdraft]:
    """Yield each item of which more was taken, at some point of the log, than there ever was."""
    initial = {line.item_id: line.initial for line in stock}
    taken: Counter[str] = Counter()
    told: set[str] = set()
    for line in lines:
        if line.kind not in (EffectKind.ACTION, EffectKind.COMPENSATION):
            continue
        sign = 1 if line.kind is EffectKind.ACTION else -1
        for item_id, _, pieces in line.summary["taken"]:
            taken[item_id] += sign * pieces
            if taken[item_id] > initial.get(item_id, 0) and item_id not in told:
                told.add(item_id)
                yield Overdraft(item_id, taken[item_id], initial.get(item_id, 0))


def _histories(ledger: LedgerReader, has_traces: bool) -> tuple[dict[StepKey, StepHistory], bool]:
    """Return what happened to each step, and whether the log is there from its beginning.

    If it is not, its rest would tell half of a story; then the rows are believed alone.
    """
    histories: dict[StepKey, StepHistory] = {}
    first_seq: int | None = None
    for line in ledger.effects():
        if first_seq is None:
            first_seq = line.seq
        if first_seq:
            break
        _of(histories, line.key).add(line)
    has_rows = False
    is_whole = first_seq == 0
    for row in ledger.rows():
        has_rows = True
        history = _of(histories, row.key)
        history.status = row.status
        if not is_whole:
            history.suppose(row)
    return histories, is_whole or (first_seq is None and not has_rows and not has_traces)


def _of(histories: dict[StepKey, StepHistory], key: StepKey) -> StepHistory:
    history = histories.get(key)
    if history is None:
        # The same few texts are in every key.
        interned = StepKey(sys.intern(key.journal_uuid), key.saga_id, sys.intern(key.step))
        history = histories[interned] = StepHistory()
    return history


def _charges(payment: LedgerReader) -> dict[str, ChargeBook]:
    gains: dict[str, Counter[str]] = {}
    legs: dict[str, Counter[str]] = {}
    currencies: dict[str, str] = {}
    for entry in entries(payment):
        currencies[entry.charge_id] = entry.currency
        legs.setdefault(entry.charge_id, Counter())[entry.movement] += entry.amount_minor
        if entry.account == "provider":
            gain = entry.amount_minor if entry.movement == "capture" else -entry.amount_minor
            gains.setdefault(entry.charge_id, Counter())[entry.movement] += gain
    return {
        charge_id: ChargeBook(
            currency,
            gains.get(charge_id, Counter())["capture"],
            gains.get(charge_id, Counter())["refund"],
            not any(legs[charge_id].values()),
        )
        for charge_id, currency in currencies.items()
    }
