"""Charges tokens, gives charges back, and keeps books that an auditor can add up.

Guarantees: one charge for each step key, with an id made from it; money leaves and comes
back in pairs of entries whose sum is zero for each currency. No token is stored, only a
hash of it where a limit needs one.
Refuses: `CARD_NUMBER_REFUSED` before anything else is looked at, `CURRENCY_UNSUPPORTED`,
and `PAYMENT_DECLINED`: by the token's name (`tok_declined…`) or its credit limit.
Costs: a search of the request, two reads and four writes for each charge.

Request: `{"order_id", "customer_id", "payment": {"token", "amount_minor", "currency"}}`.
Answer of `charge` and of `refund`: `{"charge_id", "amount_minor", "currency"}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from raysaga.actors.participant import Effects, Operation, Refusal, View
from raysaga.actors.services.behaviour import SeededBehaviour
from raysaga.actors.services.requests import Price, id_from_key, key_of, name_in, price_in
from raysaga.actors.services.service import Service
from raysaga.statemachines.calls import StepCall
from raysaga.statemachines.card_numbers import contains_card_number

CARD_NUMBER_REFUSED = "CARD_NUMBER_REFUSED"
PAYMENT_DECLINED = "PAYMENT_DECLINED"
CURRENCY_UNSUPPORTED = "CURRENCY_UNSUPPORTED"

CHARGES, ENTRIES, TOTALS, CREDIT = "charges", "entries", "totals", "credit"
"""Tables: charges by id, both legs of each movement, sums by currency, debts by token's hash."""

DECLINED_PREFIX: Final = "tok_declined"
"""Tokens that begin so are declined, as test tokens of payment providers are."""

CURRENCIES: Final = ("USD", "EUR", "GBP", "CHF", "JPY", "CAD", "AUD", "SEK", "NOK", "DKK")

_PROVIDER, _ORDERS = "provider", "orders"


class CurrencyTotals(NamedTuple):
    """What went in and out in one currency, in its minor unit.

    Attributes:
        currency: ISO 4217.
        captured_minor: Sum of all charges.
        refunded_minor: Sum of all refunds.
        charge_count: Number of charges.
        refund_count: Number of refunds.
    """

    currency: str
    captured_minor: int = 0
    refunded_minor: int = 0
    charge_count: int = 0
    refund_count: int = 0


class Entry(NamedTuple):
    """One leg of a movement of money; the legs of a movement add up to zero.

    Attributes:
        charge_id: Which charge it is about.
        movement: `capture` or `refund`.
        account: Whose account.
        amount_minor: What the account gains, in minor units; negative if it pays.
        currency: ISO 4217.
    """

    charge_id: str
    movement: str
    account: str
    amount_minor: int
    currency: str


class Payment(Service):
    """The payment service of the order saga."""

    name = "payment"
    tables = (CHARGES, ENTRIES, TOTALS, CREDIT)
    refusals = (CARD_NUMBER_REFUSED, PAYMENT_DECLINED, CURRENCY_UNSUPPORTED)
    refusal_by_chance = PAYMENT_DECLINED

    def __init__(
        self,
        *,
        currencies: tuple[str, ...] = CURRENCIES,
        credit_limit_minor: int | None = None,
        trouble: SeededBehaviour | None = None,
    ) -> None:
        """Accept `currencies`; let each token owe `credit_limit_minor` at most, None: no limit."""
        super().__init__(trouble)
        self.operations = {
            "charge": Operation(apply=self.charge, undo_name="refund", undo=self.refund)
        }
        self._currencies = frozenset(currencies)
        self._credit_limit_minor = credit_limit_minor

    def charge(
        self,
        effects: Effects,
        call: StepCall,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Capture the price of the order.

        Raises:
            Refusal: With one of `refusals`, or `INVALID_REQUEST`.
        """
        if contains_card_number(call.request):
            # Before any other field is read, so that no other message can quote it.
            raise Refusal(
                CARD_NUMBER_REFUSED, "the request holds a card number; send a payment token"
            )
        name_in(call.request, "order_id")
        name_in(call.request, "customer_id")
        price = price_in(call.request)
        if price.currency not in self._currencies:
            raise Refusal(CURRENCY_UNSUPPORTED, f"{price.currency} is not accepted")
        if price.token.startswith(DECLINED_PREFIX):
            raise Refusal(PAYMENT_DECLINED, "the token was declined")
        self.refuse_by_chance(call)
        debtor = self._lend(effects, price)
        charge_id = id_from_key("ch", key_of(call))
        assert effects.get(CHARGES, charge_id) is None, "one key charges once"
        effects.put(
            CHARGES,
            charge_id,
            {
                "order_id": call.request["order_id"],
                "currency": price.currency,
                "captured_minor": price.amount_minor,
                "refunded_minor": 0,
                "debtor": debtor,
                "captured_at_ms": effects.now_ms,
            },
        )
        self._book(effects, charge_id, "capture", price.amount_minor, price.currency)
        return _answer(charge_id, price.amount_minor, price.currency)

    def refund(
        self,
        effects: Effects,
        call: StepCall,  # noqa: ARG002 - what to give back is in the answer
        applied: Mapping[str, Any] | None,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Give the whole charge back."""
        assert applied is not None, "the money lies with nobody outside, so this is always known"
        charge_id = applied["charge_id"]
        charge = effects.get(CHARGES, charge_id)
        amount_minor, currency = charge["captured_minor"], charge["currency"]
        assert charge["refunded_minor"] == 0, "one key refunds once"
        charge["refunded_minor"] = amount_minor
        effects.put(CHARGES, charge_id, charge)
        if charge["debtor"]:
            owed_minor = effects.get(CREDIT, charge["debtor"]) - amount_minor
            assert owed_minor >= 0, "nobody gets back more than he paid"
            effects.put(CREDIT, charge["debtor"], owed_minor)
        self._book(effects, charge_id, "refund", amount_minor, currency)
        return _answer(charge_id, amount_minor, currency)

    def _lend(self, effects: Effects, price: Price) -> str:
        """Add to what the token owes; return whose debt it is, empty without a limit."""
        if self._credit_limit_minor is None:
            return ""
        debtor = hashlib.blake2b(
            f"{price.currency}/{price.token}".encode(), digest_size=16
        ).hexdigest()
        owed_minor = (effects.get(CREDIT, debtor) or 0) + price.amount_minor
        if owed_minor > self._credit_limit_minor:
            raise Refusal(PAYMENT_DECLINED, "the token's credit limit is exhausted")
        effects.put(CREDIT, debtor, owed_minor)
        return debtor

    def _book(
        self, effects: Effects, charge_id: str, movement: str, amount_minor: int, currency: str
    ) -> None:
        """Write both legs, and add them to the totals of the currency."""
        is_refund = movement == "refund"
        gain_minor = -amount_minor if is_refund else amount_minor
        for account, change_minor in ((_PROVIDER, gain_minor), (_ORDERS, -gain_minor)):
            effects.put(ENTRIES, f"{charge_id}/{movement}/{account}", [change_minor, currency])
        captured_minor, refunded_minor, charges, refunds = effects.get(TOTALS, currency) or (
            0,
            0,
            0,
            0,
        )
        if is_refund:
            row = [captured_minor, refunded_minor + amount_minor, charges, refunds + 1]
        else:
            row = [captured_minor + amount_minor, refunded_minor, charges + 1, refunds]
        effects.put(TOTALS, currency, row)


def _answer(charge_id: str, amount_minor: int, currency: str) -> Mapping[str, Any]:
    return {"charge_id": charge_id, "amount_minor": amount_minor, "currency": currency}


def currency_totals(view: View) -> Iterator[CurrencyTotals]:
    """Yield the running totals of each currency; what a console shows."""
    for currency, row in view.scan(TOTALS):
        yield CurrencyTotals(currency, *row)


def entries(view: View) -> Iterator[Entry]:
    """Yield both legs of every movement, by charge; what an auditor adds up."""
    for key, (amount_minor, currency) in view.scan(ENTRIES):
        charge_id, movement, account = key.split("/")
        yield Entry(charge_id, movement, account, amount_minor, currency)
