"""Asks the books of the order saga one question after another.

Guarantees: a question looks at all that there is, and yields each thing that offends with a
sentence that says how. Where the beginning of an effect log is gone, what needs it is left
out; `Case.notes` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from raysaga.actors.services.audit_books import LEGAL_COUNTS, Books, StepHistory
from raysaga.actors.services.inventory import Inventory
from raysaga.actors.services.mail import LetterKind
from raysaga.actors.services.notification import Notification
from raysaga.actors.services.payment import Payment
from raysaga.actors.services.requests import id_from_key
from raysaga.actors.services.shipping import ShipmentState, Shipping
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import StepKey
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase


class SagaEnd(NamedTuple):
    """How one saga ended, as its caller was told, and what it was about.

    Attributes:
        saga_id: Which.
        phase: Where it stands.
        remaining: Steps whose effect stands, or may, though it did not complete; and steps
            that it completed without.
        items: Quantity of each item that was ordered; None: not compared.
        amount_minor: Price of the order; None: not compared.
        currency: Of the price.
    """

    saga_id: str
    phase: Phase
    remaining: frozenset[str] = frozenset()
    items: Mapping[str, int] | None = None
    amount_minor: int | None = None
    currency: str = ""

    @classmethod
    def of(cls, outcome: Mapping[str, Any], order: Mapping[str, Any] | None = None) -> SagaEnd:
        """Return the end that an outcome tells of, and the order if it is at hand."""
        end = cls(
            outcome["saga_id"], Phase(outcome["phase"]), frozenset(outcome.get("remaining", ()))
        )
        if order is None:
            return end
        items: Counter[str] = Counter()
        for item in order["items"]:
            items[item["item_id"]] += item["quantity"]
        payment = order["payment"]
        return end._replace(
            items=dict(items),
            amount_minor=payment["amount_minor"],
            currency=payment["currency"],
        )


Found = tuple[int, Iterator[str]]
"""How many things are looked at, and what offends."""


class Case:
    """The books and the ends side by side, and one method for each question."""

    def __init__(
        self, books: Books, ends: Mapping[str, SagaEnd], definition: SagaDefinition
    ) -> None:
        self.books = books
        self.ends = ends
        self.steps = {step.name: step.participant for step in definition.steps}
        # Of each saga that is known, its steps that the services know.
        self.known: dict[str, dict[str, StepHistory]] = {saga_id: {} for saga_id in ends}
        for histories in books.histories.values():
            for key, history in histories.items():
                if key.saga_id in self.known:
                    self.known[key.saga_id][key.step] = history

    def counts(self) -> dict[str, int]:
        """Return how much there was of everything."""
        counts: Counter[str] = Counter()
        for end in self.ends.values():
            counts["sagas"] += 1
            counts[f"sagas_{end.phase.value}"] += 1
        for name, histories in self.books.histories.items():
            for history in histories.values():
                counts[f"{name}_actions"] += history.actions
                counts[f"{name}_undos"] += history.undos
                counts[f"{name}_tombstones"] += history.tombstones
                counts[f"{name}_refusals"] += history.refusals
        return dict(counts)

    def notes(self) -> Iterator[str]:
        """Yield what could not be looked at."""
        for name, is_whole in self.books.is_whole.items():
            if not is_whole:
                yield f"{name}: the effect log was pruned; what its rows say was believed instead"

    def steps_of(self, service: str) -> Mapping[StepKey, StepHistory]:
        """Return the steps that a service knows."""
        return self.books.histories[service]

    def all_steps(self) -> Iterator[tuple[StepKey, StepHistory]]:
        """Yield every step that any service knows."""
        for histories in self.books.histories.values():
            yield from histories.items()

    @property
    def step_count(self) -> int:
        """Number of steps that the services know."""
        return sum(map(len, self.books.histories.values()))

    # -- sagas and steps -------------------------------------------------------

    def sagas_ended(self) -> Found:
        """Look for sagas that still run."""
        ended = TERMINAL | PARKED
        return len(self.ends), (
            f"{end.saga_id} is {end.phase.value}"
            for end in self.ends.values()
            if end.phase not in ended
        )

    def effects_at_most_once(self) -> Found:
        """Look for keys that took effect twice."""

        def found() -> Iterator[str]:
            for key, history in self.all_steps():
                counts = (history.actions, history.undos, history.tombstones, history.refusals)
                if max(counts) > 1:
                    names = ("actions", "undos", "tombstones", "refusals")
                    what = ", ".join(
                        f"{count} {name}" for name, count in zip(names, counts, strict=True)
                    )
                    yield f"{key}: {what}"

        return self.step_count, found()

    def no_action_after_undo(self) -> Found:
        """Look for actions that came too late, and for undos of nothing."""

        def found() -> Iterator[str]:
            for key, history in self.all_steps():
                if history.acted_late:
                    yield f"{key}: the action took effect after it could not any more"
                if history.undid_nothing:
                    yield f"{key}: something was undone that had not been done"

        return self.step_count, found()

    def rows_match_effects(self) -> Found:
        """Compare the status of each row with its lines; rows that were pruned have none."""

        def found() -> Iterator[str]:
            for name, histories in self.books.histories.items():
                if not self.books.is_whole[name]:
                    continue
                for key, history in histories.items():
                    if history.status is None:
                        continue
                    lines = (
                        history.actions,
                        history.undos,
                        history.tombstones,
                        history.refusals,
                    )
                    if LEGAL_COUNTS[history.status] != lines:
                        yield f"{key}: the row says {history.status}, the log tells {lines}"

        return self.step_count, found()

    def completed_whole(self) -> Found:
        """Look for completed sagas that miss an effect, or have lost one."""

        def found() -> Iterator[str]:
            for end in self._completed():
                known = self.known[end.saga_id]
                for step, service in self.steps.items():
                    history = known.get(step)
                    if history is None:
                        # Where a log was pruned, a row may be gone as well.
                        if step not in end.remaining and self.books.is_whole[service]:
                            yield f"{end.saga_id}: {step} never happened"
                    elif history.undos or (history.actions != 1 and step not in end.remaining):
                        what = f"{history.actions} actions and {history.undos} undos"
                        yield f"{end.saga_id}: {step} has {what}"

        return sum(1 for _ in self._completed()), found()

    def others_undone(self) -> Found:
        """Look for effects that a saga left behind without saying so."""
        others = [
            end
            for end in self.ends.values()
            if end.phase is Phase.COMPENSATED or end.phase in PARKED
        ]

        def found() -> Iterator[str]:
            for end in others:
                for step, history in self.known[end.saga_id].items():
                    if history.stands and step not in end.remaining:
                        yield f"{end.saga_id} is {end.phase.value}: {step} still stands"

        return len(others), found()

    def no_orphans(self) -> Found:
        """Look for effects of sagas that nobody was told of."""
        return self.step_count, (
            f"{key}: its effect stands, and its saga is unknown"
            for key, history in self.all_steps()
            if history.stands and key.saga_id not in self.ends
        )

    def _completed(self) -> Iterator[SagaEnd]:
        return (end for end in self.ends.values() if end.phase is Phase.COMPLETED)

    # -- stock -----------------------------------------------------------------

    def stock_conserved(self) -> Found:
        """Add up the shelves of each item, at the end and on the way there."""

        def found() -> Iterator[str]:
            for line in self.books.stock:
                if not line.is_balanced:
                    yield (
                        f"{line.item_id}: {line.initial} at first, {line.on_hand} on hand, "
                        f"{line.reserved} reserved, {line.sold} sold"
                    )
            for overdraft in self.books.overdrafts:
                yield f"{overdraft.item_id}: {overdraft.taken} taken of {overdraft.initial}"

        return len(self.books.stock), found()

    def stock_matches_effects(self) -> Found:
        """Compare what is off the shelves with what the standing reservations took."""
        taken: Counter[str] = Counter()
        for history in self.steps_of(Inventory.name).values():
            if history.stands:
                taken.update(_pieces(history))
        # With a part of the log gone, the reservations are not all known.
        is_whole = self.books.is_whole[Inventory.name]
        lines = self.books.stock if is_whole else ()
        return len(lines), (
            f"{line.item_id}: {line.reserved} reserved and {line.sold} sold, "
            f"{taken[line.item_id]} taken by orders"
            for line in lines
            if line.reserved + line.sold != taken[line.item_id]
        )

    def stock_matches_orders(self) -> Found:
        """Compare each completed order with its reservation."""

        def found() -> Iterator[str]:
            for end in self._completed():
                history = self._step(end, Inventory.name)
                if end.items is None or history is None or not history.stands:
                    continue
                if _pieces(history) != Counter(end.items):
                    yield f"{end.saga_id}: ordered and reserved pieces differ"

        return sum(1 for _ in self._completed()), found()

    # -- money -----------------------------------------------------------------

    def money_balanced(self) -> Found:
        """Add up the entries, and compare them with the charges' rows and the totals."""
        books = self.books
        sums: dict[str, Counter[str]] = {}
        for charge in books.charges.values():
            total = sums.setdefault(charge.currency, Counter())
            total["captured"] += charge.captured_minor
            total["refunded"] += charge.refunded_minor

        def found() -> Iterator[str]:
            for charge_id, charge in books.charges.items():
                if not charge.is_balanced:
                    yield f"{charge_id}: its entries do not add up to zero"
                if books.charge_rows.get(charge_id) != charge[1:3]:
                    yield f"{charge_id}: its row and its entries differ"
            for charge_id in books.charge_rows.keys() - books.charges.keys():
                yield f"{charge_id}: it has no entries"
            told = {row.currency: (row.captured_minor, row.refunded_minor) for row in books.totals}
            for currency in sums.keys() | told.keys():
                total = sums.get(currency, Counter())
                if told.get(currency, (0, 0)) != (total["captured"], total["refunded"]):
                    yield f"{currency}: the totals are not the sums of the entries"

        return len(books.charges), found()

    def money_matches_effects(self) -> Found:
        """Compare each charge with its step."""
        steps = self.steps_of(Payment.name)
        expected = {id_from_key("ch", key): history for key, history in steps.items()}

        def found() -> Iterator[str]:
            for charge_id, history in expected.items():
                charge = self.books.charges.get(charge_id)
                if not history.actions:
                    if charge is not None:
                        yield f"{charge_id}: captured without an effect"
                    continue
                amount_minor = history.summary["amount_minor"]
                refunded_minor = amount_minor if history.undos else 0
                found_here = None if charge is None else charge[1:3]
                if found_here != (amount_minor, refunded_minor):
                    yield f"{charge_id}: {found_here} in the books, {amount_minor} charged"
            if self.books.is_whole[Payment.name]:
                for charge_id in self.books.charges.keys() - expected.keys():
                    yield f"{charge_id}: no step has made this charge"

        return len(expected), found()

    def money_matches_orders(self) -> Found:
        """Compare what is kept, by currency, with prices of completed orders and what remains."""
        expected: Counter[str] = Counter()
        wrong: list[str] = []
        for key, history in self.steps_of(Payment.name).items():
            if not history.stands:
                continue
            end = self.ends.get(key.saga_id)
            amount_minor, currency = history.summary["amount_minor"], history.summary["currency"]
            if end is not None and end.phase is Phase.COMPLETED and end.amount_minor is not None:
                if (end.amount_minor, end.currency) != (amount_minor, currency):
                    wrong.append(f"{key.saga_id}: {amount_minor} {currency} charged")
                amount_minor, currency = end.amount_minor, end.currency
            expected[currency] += amount_minor
        kept = Counter[str]()
        for charge in self.books.charges.values():
            kept[charge.currency] += charge.captured_minor - charge.refunded_minor

        def found() -> Iterator[str]:
            yield from wrong
            if not self.books.is_whole[Payment.name]:
                return
            for currency in kept.keys() | expected.keys():
                if kept[currency] != expected[currency]:
                    yield f"{currency}: {kept[currency]} kept, {expected[currency]} due"

        return len(self.books.charges), found()

    # -- shipments and letters -------------------------------------------------

    def shipments_match_effects(self) -> Found:
        """Compare each shipment with its step, and their number with the carrier's."""
        steps = self.steps_of(Shipping.name)
        expected = {id_from_key("trk", key): history for key, history in steps.items()}
        here = self.books.shipments

        def found() -> Iterator[str]:
            for tracking_id, history in expected.items():
                state = here.get(tracking_id)
                if history.undos:
                    legal: tuple[str | None, ...] = (ShipmentState.CANCELLED,)
                elif history.actions:
                    legal = (ShipmentState.SCHEDULED, ShipmentState.DISPATCHED)
                else:
                    legal = (None,)
                if state not in legal:
                    yield f"{tracking_id}: {state or 'missing'}"
            if self.books.is_whole[Shipping.name]:
                for tracking_id in here.keys() - expected.keys():
                    yield f"{tracking_id}: no step has made this shipment"
            count = sum(1 for state in here.values() if state == ShipmentState.SCHEDULED)
            if count != self.books.scheduled_count:
                yield f"{self.books.scheduled_count} places taken for {count} shipments"

        return len(expected), found()

    def letters_match_effects(self) -> Found:
        """Compare each letter with its step."""
        steps = self.steps_of(Notification.name)
        here = self.books.letters
        expected: set[str] = set()
        excused: set[str] = set()
        for key, history in steps.items():
            notice_id = id_from_key("msg", key)
            confirmation = f"{notice_id}-{LetterKind.CONFIRMATION.value}"
            if history.actions:
                (excused if history.is_unknown else expected).add(confirmation)
            if history.undos:
                expected.add(f"{notice_id}-{LetterKind.TAKE_BACK.value}")

        def found() -> Iterator[str]:
            for name in sorted(expected - here):
                yield f"{name}: not written"
            if self.books.is_whole[Notification.name]:
                for name in sorted(here - expected - excused):
                    yield f"{name}: no step has written this letter"

        return len(steps), found()

    def _step(self, end: SagaEnd, service: str) -> StepHistory | None:
        known = self.known[end.saga_id]
        for step, participant in self.steps.items():
            if participant == service:
                return known.get(step)
        return None


def _pieces(history: StepHistory) -> Counter[str]:
    pieces: Counter[str] = Counter()
    for item_id, _, quantity in history.summary["taken"]:
        pieces[item_id] += quantity
    return pieces
