"""Orders of workloads: the same number is the same order, and as skewed as it says."""

from __future__ import annotations

from collections import Counter

import pytest

from raysaga.bench.orders import ISLAND, baskets, ordinary, refused_every, zipf
from raysaga.bench.workloads import WORKLOADS, contended, counting_saga, with_durability
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.order import order_saga


def test_the_share_of_orders_that_cannot_be_shipped_is_exact() -> None:
    made = [refused_every(10)(number, "r")[1] for number in range(200)]
    assert sum(order["customer_id"].startswith(ISLAND) for order in made) == 20


@pytest.mark.parametrize(("exponent", "low", "high"), [(0.0, 0.0, 0.01), (1.2, 0.2, 0.6)])
def test_the_item_that_is_wanted_most_is_wanted_as_often_as_zipf_says(
    exponent: float, low: float, high: float
) -> None:
    make = zipf(exponent, lines=1)
    wanted = Counter(make(number, "z")[1]["items"][0]["item_id"] for number in range(2_000))
    assert low <= wanted.most_common(1)[0][1] / 2_000 <= high
    assert make(17, "z") == zipf(exponent, lines=1)(17, "z")


def test_every_order_is_one_that_the_saga_takes() -> None:
    for make in (ordinary, zipf(0.99), baskets()):
        for number in (0, 1, 1_001):
            key, order = make(number, "k")
            assert key == order["order_id"]
            order_saga.check_input(order)


def test_every_workload_is_named_as_it_is_asked_for() -> None:
    assert {name: make().name for name, make in WORKLOADS.items()} == {n: n for n in WORKLOADS}
    assert contended("buckets", "hot", 1.0).facts["strategy"] == "buckets"


def test_another_durability_is_another_definition() -> None:
    strict = with_durability(WORKLOADS["happy"](), Durability.STRICT).definition
    assert (strict.name, strict.durability) == ("order-strict", Durability.STRICT)
    assert with_durability(WORKLOADS["happy"](), Durability.PIPELINED).definition is order_saga
    assert len(counting_saga("long", 50, "counting").steps) == 50
