"""Makes orders for workloads; the same number is the same order."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from raysaga.api.order_schema import parse_order_line
from raysaga.api.sample_orders import sample_paths

ITEMS = 2_000
"""Items of an ordinary catalogue."""

LINES = 3
"""Lines of an ordinary order."""

ISLAND = "island-"
"""Customers whom no carrier serves, where a workload says so."""

Make = Callable[[int, str], tuple[str, dict[str, Any]]]
"""Number and run to the key and the input of an order."""


def ordinary(number: int, run: str) -> tuple[str, dict[str, Any]]:
    """Return an order with three lines, all different, spread over the catalogue."""
    items = [f"item-{(number * 7 + line * 131) % ITEMS}" for line in range(LINES)]
    return _order(number, run, items)


def refused_every(nth: int) -> Make:
    """Return what makes ordinary orders, each `nth` of which nobody can ship."""

    def make(number: int, run: str) -> tuple[str, dict[str, Any]]:
        key, order = ordinary(number, run)
        if number % nth == 0:
            order["customer_id"] = ISLAND + order["customer_id"]
        return key, order

    return make


def zipf(exponent: float, *, items: int = ITEMS, lines: int = LINES) -> Make:
    """Return what makes orders whose items are drawn by Zipf's law; 0 is uniform.

    Item k is drawn with a chance in proportion to 1 / k ** exponent.
    """
    cumulative = list(accumulate(1.0 / (k + 1) ** exponent for k in range(items)))

    def make(number: int, run: str) -> tuple[str, dict[str, Any]]:
        chance = random.Random(number)
        drawn: dict[str, None] = {}
        while len(drawn) < lines:
            k = bisect_left(cumulative, chance.random() * cumulative[-1])
            drawn[f"item-{k}"] = None
        return _order(number, run, list(drawn))

    return make


def one_hot_item(number: int, run: str) -> tuple[str, dict[str, Any]]:
    """Return an order of one piece of the item that everybody wants."""
    return _order(number, run, ["item-0"])


def baskets() -> Make:
    """Return what makes the orders of the sample, over and over."""
    lines = sample_paths()[0].read_bytes().splitlines()
    orders: Sequence[dict[str, Any]] = [parse_order_line(line).to_request() for line in lines]

    def make(number: int, run: str) -> tuple[str, dict[str, Any]]:
        order = orders[number % len(orders)]
        key = f"{run}-{number}"
        return key, {**order, "order_id": key}

    return make


def _order(number: int, run: str, items: Sequence[str]) -> tuple[str, dict[str, Any]]:
    key = f"{run}-{number}"
    return key, {
        "order_id": key,
        "customer_id": f"customer-{number % 997}",
        "items": [{"item_id": item, "quantity": 1 + line} for line, item in enumerate(items)],
        "payment": {
            "token": f"tok_{number % 997}",
            "amount_minor": 1_999 + number % 500,
            "currency": "USD",
        },
    }
