"""Reads the requests of the order saga's services, and makes the ids of what they create.

Guarantees: a request that is read has the right types and bounds; an id is a function of the
step's key, so that a call sent twice names the same thing twice.
Refuses: anything else, as `INVALID_REQUEST` with the field's name and never its value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeGuard

from raysaga.actors.participant import Refusal
from raysaga.statemachines.calls import Code, StepCall
from raysaga.statemachines.ids import StepKey, is_key

ITEMS_MAX: Final = 500
"""Different items of one order, like the API's bound."""

QUANTITY_MAX: Final = 10_000
"""Pieces of one item of one order, like the API's bound."""

AMOUNT_MINOR_MAX: Final = 10**12
"""Price of one order in minor units, like the API's bound; far below the 64 bits of a row."""

ID_BYTES: Final = 12
"""Bytes of hash in an id: two of a billion ids are equal with a chance of one in 10**11."""


class Price(NamedTuple):
    """What is to be paid, and with what."""

    token: str
    amount_minor: int
    currency: str


def key_of(call: StepCall) -> StepKey:
    """Return the idempotency key of a call, which its every attempt shares."""
    return StepKey(call.journal_uuid, call.saga_id, call.step)


def id_from_key(prefix: str, key: StepKey) -> str:
    """Return the id of what the step `key` creates: the same on every attempt."""
    digest = hashlib.blake2b(str(key).encode(), digest_size=ID_BYTES, person=prefix.encode())
    return f"{prefix}_{digest.hexdigest()}"


def invalid(field: str, message: str) -> Refusal:
    """Return the refusal of a request whose `field` cannot be used."""
    return Refusal(Code.INVALID_REQUEST, f"{field} {message}")


def name_in(request: Mapping[str, Any], field: str) -> str:
    """Return a field that holds an id.

    Raises:
        Refusal: `INVALID_REQUEST`.
    """
    value = request.get(field)
    if not isinstance(value, str) or not is_key(value):
        raise invalid(field, "must match [A-Za-z0-9._:-]{1,100}")
    return value


def quantities_in(request: Mapping[str, Any]) -> dict[str, int]:
    """Return item ids, in their order, with the quantity wanted of each.

    An item that is named twice is wanted in the sum of both.

    Raises:
        Refusal: `INVALID_REQUEST`.
    """
    items = request.get("items")
    if not isinstance(items, list | tuple) or not 1 <= len(items) <= ITEMS_MAX:
        raise invalid("items", f"must list 1 to {ITEMS_MAX} items")
    quantities: dict[str, int] = {}
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise invalid(f"items[{index}]", "must be an object")
        item_id = item.get("item_id")
        if not isinstance(item_id, str) or not is_key(item_id):
            raise invalid(f"items[{index}].item_id", "must match [A-Za-z0-9._:-]{1,100}")
        quantity = item.get("quantity")
        if not _is_integer(quantity) or not 1 <= quantity <= QUANTITY_MAX:
            raise invalid(f"items[{index}].quantity", f"must be 1 to {QUANTITY_MAX}")
        quantities[item_id] = quantities.get(item_id, 0) + quantity
    return dict(sorted(quantities.items()))


def price_in(request: Mapping[str, Any]) -> Price:
    """Return what is to be paid.

    Raises:
        Refusal: `INVALID_REQUEST`.
    """
    payment = request.get("payment")
    if not isinstance(payment, Mapping):
        raise invalid("payment", "must be an object")
    token, amount, currency = (payment.get(name) for name in Price._fields)
    if not isinstance(token, str) or not is_key(token):
        raise invalid("payment.token", "must match [A-Za-z0-9._:-]{1,100}")
    if not _is_integer(amount) or not 0 <= amount <= AMOUNT_MINOR_MAX:
        raise invalid("payment.amount_minor", f"must be 0 to {AMOUNT_MINOR_MAX}")
    if not isinstance(currency, str) or not _is_currency(currency):
        raise invalid("payment.currency", "must be three capital letters")
    return Price(token, amount, currency)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_currency(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()
