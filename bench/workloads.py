"""The workloads, by name: which sagas, on which services, and how they may end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raysaga.api.sample_orders import sample_paths
from raysaga.bench.bed import COUNTING_PARTICIPANTS, PLENTY, calm_services
from raysaga.bench.loops import COMPENSATED, COMPLETED
from raysaga.bench.orders import ISLAND, Make, baskets, one_hot_item, ordinary, refused_every, zipf
from raysaga.bench.toy_services import COUNTING
from raysaga.statemachines.definition import Durability, SagaDefinition, Step
from raysaga.statemachines.order import order_saga

ROUNDS = 200
"""Times that the sample's stock is there, for as many rounds through its orders."""

SKEWS = {"0": 0.0, "0.5": 0.5, "0.9": 0.9, "0.99": 0.99, "1.2": 1.2}
"""Exponents of Zipf's law, as they are named."""

STRATEGIES = ("escrow", "pessimistic", "optimistic", "buckets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is run.

    Attributes:
        name: On the command line and in results.
        make: Number and run to the key and the input.
        services: Settings of the four services.
        definition: Of its sagas.
        ends: How they may end; anything else is no figure.
        participants: Others than the four services.
        facts: What else a line of results tells of it.
    """

    name: str
    make: Make
    services: Mapping[str, Any] = field(default_factory=calm_services)
    definition: SagaDefinition = order_saga
    ends: frozenset[str] = frozenset({COMPLETED})
    participants: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def happy() -> Workload:
    """Return the order saga when all goes well."""
    return Workload(name="happy", make=ordinary)


def refused(percent: int) -> Workload:
    """Return a mix in which so many orders are refused at shipping, and undone."""
    services = calm_services(shipping={"unserviceable_prefixes": [ISLAND]})
    return Workload(
        name=f"refused-{percent}",
        make=refused_every(100 // percent),
        services=services,
        ends=frozenset({COMPLETED, COMPENSATED}),
        facts={"refused_percent": percent, "refused_at": "schedule_shipping"},
    )


def rollback() -> Workload:
    """Return a storm: every order is refused at its last step, and everything undone."""
    directory = {"nobody": "nobody@example.org"}
    return Workload(
        name="rollback",
        make=ordinary,
        services=calm_services(notification={"directory": directory}),
        ends=frozenset({COMPENSATED}),
        facts={"refused_percent": 100, "refused_at": "send_notification"},
    )


def steps(count: int) -> Workload:
    """Return sagas of so many steps in a row, all at one participant."""
    return Workload(
        name=f"steps-{count}",
        make=lambda number, run: (f"{run}-{number}", {"order": f"{run}-{number}"}),
        definition=counting_saga(f"steps-{count}", count, COUNTING),
        participants=COUNTING_PARTICIPANTS,
        facts={"steps": count},
    )


def counting_saga(name: str, count: int, participant: str, timeout_ms: int = 60_000) -> Any:
    """Return a definition of so many steps, each a count at a counting participant."""
    return SagaDefinition(
        name=name,
        steps=tuple(
            Step(
                name=f"step-{i}",
                participant=participant,
                action="count",
                compensation="discount",
                request={"order": "input.order"},
                timeout_ms=timeout_ms,
            )
            for i in range(count)
        ),
    )


def contended(strategy: str, skew: str, think_ms: float) -> Workload:
    """Return orders that want the same stock, by one of the inventory's strategies.

    Args:
        strategy: See `inventory_strategies`.
        skew: One of `SKEWS`, or `hot`: everybody wants one item, and one piece of it.
        think_ms: Time between looking at the stock and taking from it.
    """
    inventory = {"strategy": strategy, "think_ms": think_ms, "stock": PLENTY}
    return Workload(
        name="contended",
        make=one_hot_item if skew == "hot" else zipf(SKEWS[skew]),
        services=calm_services(inventory=inventory),
        ends=frozenset({COMPLETED, COMPENSATED}),
        facts={"strategy": strategy, "skew": skew, "think_ms": think_ms},
    )


def real_baskets() -> Workload:
    """Return the sample's orders, whose stock is short of what is wanted most."""
    stock = json.loads(sample_paths()[1].read_bytes())
    stock["items"] = {item: pieces * ROUNDS for item, pieces in stock["items"].items()}
    return Workload(
        name="baskets",
        make=baskets(),
        services=calm_services(inventory={"stock": stock}),
        ends=frozenset({COMPLETED, COMPENSATED}),
    )


def with_durability(workload: Workload, durability: Durability) -> Workload:
    """Return the workload with a definition that chose this durability."""
    data = workload.definition.to_data()
    if data["durability"] == durability:
        return workload
    changed = {"name": f"{data['name']}-{durability.value}", "durability": durability.value}
    return replace(workload, definition=SagaDefinition.from_data(data | changed))


WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "happy": happy,
    "refused-10": lambda: refused(10),
    "refused-50": lambda: refused(50),
    "rollback": rollback,
    "steps-10": lambda: steps(10),
    "steps-100": lambda: steps(100),
    "steps-1000": lambda: steps(1_000),
    "baskets": real_baskets,
}
"""Those that need nothing but callers; the others have commands of their own."""
