"""The four participants as peers get them: dictionaries, and a check by key; nothing on disk.

Guarantees: each effect happens once for its key; `problems` tells what does not add up.
A process that dies forgets all of it. That favours the peers: ours keep durable ledgers.

Imports nothing but the standard library: it runs in the environments of the peers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

STEPS = ("reserve", "charge", "schedule", "send")
UNDOS = {"reserve": "release", "charge": "refund", "schedule": "cancel", "send": "take_back"}

CUSTOMERS = 997
ITEMS = 2_000


def order_of(number: int, run: str, refused_every: int) -> dict[str, Any]:
    """Return an order with three lines; each `refused_every`-th, if not 0, cannot be shipped."""
    island = refused_every and number % refused_every == 0
    return {
        "order_id": f"{run}-{number}",
        "customer_id": f"{'island-' if island else ''}customer-{number % CUSTOMERS}",
        "items": [
            {"item_id": f"item-{(number * 7 + line * 131) % ITEMS}", "quantity": 1 + line}
            for line in range(3)
        ],
        "payment": {
            "token": f"tok_{number % CUSTOMERS}",
            "amount_minor": 1_999 + number % 500,
            "currency": "USD",
        },
    }


class RefusedError(Exception):
    """The carrier does not serve the customer; asking again does not help."""


class Participants:
    """Inventory, payment, shipping and notification of one process."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str], Any] = {}
        self._counts: Counter[str] = Counter()
        self._stock: Counter[str] = Counter()
        self._kept_minor = 0

    def do(self, step: str, order: Mapping[str, Any]) -> dict[str, Any]:
        """Perform a step or an undo; a repeat gives the first answer.

        Raises:
            RefusedError: If the order cannot be shipped.
        """
        key = (step, order["order_id"])
        if key in self._done:
            return dict(self._done[key])
        if step == "schedule" and order["customer_id"].startswith("island-"):
            raise RefusedError(order["order_id"])
        if step in ("reserve", "release"):
            sign = 1 if step == "release" else -1
            for line in order["items"]:
                self._stock[line["item_id"]] += sign * line["quantity"]
        elif step in ("charge", "refund"):
            sign = 1 if step == "charge" else -1
            self._kept_minor += sign * order["payment"]["amount_minor"]
        self._counts[step] += 1
        answer = {"id": f"{step}-{order['order_id']}"}
        self._done[key] = answer
        return dict(answer)

    def counts(self) -> dict[str, int]:
        """Return how often each step and undo took effect."""
        return dict(self._counts)


def problems(counts: Mapping[str, int], completed: int, compensated: int) -> list[str]:
    """Return what the participants' counts and the callers' answers do not agree on."""
    ended = completed + compensated
    expected = {
        "reserve": ended,
        "charge": ended,
        "schedule": completed,
        "send": completed,
        "refund": compensated,
        "release": compensated,
    }
    return [
        f"{name}: {counts.get(name, 0)} for {count}"
        for name, count in expected.items()
        if counts.get(name, 0) != count
    ]
