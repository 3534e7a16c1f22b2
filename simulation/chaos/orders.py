"""The orders that are submitted while things break: what each asks for, and how it is submitted.

Order number N of a run is the same in every process that makes it again, so that a caller who
comes back after a crash can ask again under the same key.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga

SERVICES: Final = ("inventory", "payment", "shipping", "notification")

HOT_ITEM: Final = "hot"
"""Of which there is less than what is ordered."""

HOT_STOCK: Final = 400

HOTTEST_ITEMS: Final = 200
HOTTEST_STOCK: Final = 20
"""Items that everybody wants at one moment; each strike has one of its own."""


def hottest_item(number: int) -> str:
    """Return the item that everybody wants in strike `number`."""
    return f"hottest-{number % HOTTEST_ITEMS}"


STOCK: Final[Mapping[str, Any]] = {
    "items": {
        HOT_ITEM: HOT_STOCK,
        **{hottest_item(n): HOTTEST_STOCK for n in range(HOTTEST_ITEMS)},
    },
    "default": 10_000_000,
}

CANARY: Final = "canary-5f1d"
"""Part of every card token and e-mail address; it may stand in no log, answer or error."""

FINE, DECLINED = "fine", "declined"
"""Cards, as a test of payments has them."""

UNREACHABLE: Final = "nowhere-"
"""How ids of customers begin whom the shipping service cannot reach."""


def _patient(name: str, *, retry: Mapping[str, Any], kinds: Mapping[str, str]) -> SagaDefinition:
    data = order_saga.to_data()
    data["name"] = name
    data["deadline_ms"] = 120_000
    for step in data["steps"]:
        step["timeout_ms"] = 2_000
        step["retry"] = dict(retry)
        step["compensation_retry"] = {
            "attempts_max": 12,
            "delay_ms_first": 50,
            "delay_ms_max": 1_000,
        }
        kind = kinds.get(step["name"])
        if kind is not None:
            step["kind"], step["compensation"] = kind, None
    return SagaDefinition.from_data(data)


_RETRY: Final = {"attempts_max": 40, "delay_ms_first": 50, "delay_ms_max": 1_000}

ORDER: Final = _patient("order", retry=_RETRY, kinds={})
"""The order saga with patience for outages: every step can be undone."""

ORDER_UPGRADED: Final = _patient("order", retry={**_RETRY, "attempts_max": 50}, kinds={})
"""What it is upgraded to: the same name and steps, another content hash."""

EXPRESS: Final = _patient(
    "express",
    retry={**_RETRY, "attempts_max": 200},
    kinds={
        "process_payment": "pivot",
        "schedule_shipping": "retriable",
        "send_notification": "retriable",
    },
)
"""The same with a point of no return: once paid, it goes forward only."""

DEFINITIONS: Final[Mapping[str, SagaDefinition]] = {"order": ORDER, "express": EXPRESS}


class Order(NamedTuple):
    """One order, and how it is submitted.

    Attributes:
        key: Its key.
        definition: Name of its definition.
        request: Its input.
        twice: Submitted again at the same time, through another connection.
        conflicts: The second time with another body.
        cancel_after_s: When it is cancelled, after the submission was sent; None: never.
        dedicated: Whether it gets an actor of its own.
        wishes: What `request_of` was told, for orders that are not made by number.
    """

    key: str
    definition: str
    request: dict[str, Any]
    twice: bool = False
    conflicts: bool = False
    cancel_after_s: float | None = None
    dedicated: bool = False
    wishes: Mapping[str, Any] = MappingProxyType({})

    @property
    def saga_id(self) -> str:
        """The saga that it becomes."""
        return f"{self.definition}:{self.key}"


_DEDICATED_EVERY = 1_500
"""One order in so many gets an actor of its own: a process each, so not more."""


def order(seed: int, number: int) -> Order:
    """Return order `number` of the run with `seed`."""
    chance = random.Random(f"{seed} order {number}")
    kind = chance.random()
    key = f"c{seed}-{number}"
    customer, token, item = f"customer-{number % 997}", FINE, f"item-{number % 500}"
    if kind < 0.08:
        token = DECLINED
    elif kind < 0.14:
        customer = f"{UNREACHABLE}{number}"
    elif kind < 0.22:
        item = HOT_ITEM
    is_express = 0.22 <= kind < 0.40
    how = chance.random()
    return Order(
        key,
        "express" if is_express else "order",
        request_of(key, customer=customer, token=token, item=item, amount=1_000 + number % 900),
        twice=how < 0.05,
        conflicts=how < 0.02,
        cancel_after_s=chance.random() ** 2 * 0.4 if 0.05 <= how < 0.13 else None,
        dedicated=number % _DEDICATED_EVERY == 7 and not is_express,
    )


def wished(key: str, definition: str, *, dedicated: bool = False, **wishes: Any) -> Order:
    """Return an order that is not made by number; `wishes` are those of `request_of`."""
    request = request_of(key, **wishes)
    return Order(key, definition, request, dedicated=dedicated, wishes=wishes)


_LETTERS: Final = str.maketrans("0123456789", "abcdefghij")
"""A token with many digits may be taken for a card's number, and is refused."""


def request_of(
    key: str,
    *,
    customer: str = "customer-1",
    token: str = FINE,
    item: str = "item-1",
    amount: int = 1_250,
) -> dict[str, Any]:
    """Return the input of an order."""
    return {
        "order_id": key,
        "customer_id": customer,
        "items": [{"item_id": item, "quantity": 1}, {"item_id": "item-0", "quantity": 2}],
        "payment": {
            "token": f"tok_{CANARY}-{key.translate(_LETTERS)}" if token == FINE else f"tok_{token}",
            "amount_minor": amount,
            "currency": "USD",
        },
    }
