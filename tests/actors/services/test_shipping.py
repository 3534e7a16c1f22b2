"""Shipments are scheduled within the carrier's capacity, and stay once they have left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.service import Service, change_tables
from raysaga.actors.services.settings import ServicesSettings
from raysaga.actors.services.shipping import (
    ShipmentNotScheduledError,
    ShipmentState,
    dispatch,
    scheduled_count,
    shipments,
)
from raysaga.statemachines.calls import Code, Outcome

from ..service_house import ORDER, House, OpenHouse, items, order


def shipping(**changed: Any) -> Callable[[], Service]:
    settings = ServicesSettings.calm(shipping=changed)
    return lambda: build_participant("shipping", settings)


def states(house: House) -> Counter[str]:
    found = Counter(shipment.state.value for shipment in shipments(house.ledger))
    assert found[ShipmentState.SCHEDULED] == scheduled_count(house.ledger)
    return found


async def test_a_shipment_is_scheduled_and_cancelled(open_house: OpenHouse) -> None:
    house = await open_house(shipping())
    request = order(items=items(milk=2, bread=3))
    given = await house.act("a", request)
    assert given.result is not None
    assert given.result["pieces"] == 5
    [shipment] = shipments(house.ledger)
    assert shipment == (given.result["tracking_id"], "o-1", "c-7", 5, ShipmentState.SCHEDULED)
    undone = await house.undo("a", request)
    assert undone.outcome == Outcome.SUCCEEDED
    assert states(house) == {"cancelled": 1}


async def test_tracking_ids_are_made_from_the_key_alone(open_house: OpenHouse) -> None:
    houses = [await open_house(shipping(), name) for name in ("one", "two")]
    ids = [(await house.act("a", ORDER)).result["tracking_id"] for house in houses]
    assert ids[0] == ids[1]


async def test_the_carrier_takes_no_more_than_it_can(open_house: OpenHouse) -> None:
    house = await open_house(shipping(carrier_capacity=3))
    replies = await asyncio.gather(*(house.act(f"s{n}", ORDER) for n in range(10)))
    assert Counter(reply.code for reply in replies) == {"": 3, "NO_CARRIER_CAPACITY": 7}
    await house.undo("s0", ORDER)
    assert (await house.act("next", ORDER)).outcome == Outcome.SUCCEEDED
    await house.release("next", "completed")
    assert (await house.act("after", ORDER)).outcome == Outcome.SUCCEEDED
    assert (await house.act("late", ORDER)).code == "NO_CARRIER_CAPACITY"
    assert states(house) == {"scheduled": 3, "cancelled": 1, "dispatched": 1}


async def test_some_customers_cannot_be_reached(open_house: OpenHouse) -> None:
    house = await open_house(shipping(unserviceable_prefixes=["island-", "moon-"]))
    refused = await house.act("a", order(customer_id="moon-1"))
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "ADDRESS_UNSERVICEABLE")
    assert (await house.act("b", order(customer_id="m-1"))).outcome == Outcome.SUCCEEDED
    everywhere = await open_house(shipping(), "other")
    assert (await everywhere.act("a", order(customer_id="moon-1"))).outcome == Outcome.SUCCEEDED


async def test_completion_dispatches_and_compensation_does_not(open_house: OpenHouse) -> None:
    house = await open_house(shipping())
    await house.act("a", ORDER)
    for _ in range(2):
        await house.release("a", "completed")
    await house.act("b", ORDER)
    await house.undo("b", ORDER)
    await house.release("b", "compensated")
    assert states(house) == {"dispatched": 1, "cancelled": 1}


async def test_what_has_left_the_house_cannot_be_cancelled(open_house: OpenHouse) -> None:
    """The refusal is not stored: when the parcel is back, a retry is a retry."""
    house = await open_house(shipping())
    given = await house.act("a", ORDER)
    assert given.result is not None
    tracking_id = given.result["tracking_id"]
    change_tables(house.ledger, 0, lambda effects: dispatch(effects, tracking_id))
    for attempt in (1, 2):
        refused = await house.undo("a", ORDER, attempt=attempt)
        assert (refused.outcome, refused.code) == (Outcome.REFUSED, "ALREADY_SHIPPED")
        assert not refused.stored
        assert tracking_id in refused.message
    # Dispatched by hand first, then by the end of the saga: once.
    await house.release("a", "completed")
    assert states(house) == {"dispatched": 1}


async def test_only_what_is_scheduled_can_be_dispatched(open_house: OpenHouse) -> None:
    house = await open_house(shipping())
    given = await house.act("a", ORDER)
    assert given.result is not None
    await house.undo("a", ORDER)
    for tracking_id in (given.result["tracking_id"], "trk_nothing"):
        with pytest.raises(ShipmentNotScheduledError) as caught:
            change_tables(house.ledger, 0, lambda effects, it=tracking_id: dispatch(effects, it))
        assert tracking_id in str(caught.value)
    assert states(house) == {"cancelled": 1}


@pytest.mark.parametrize("changed", [{"order_id": 1}, {"customer_id": ""}, {"items": {}}])
async def test_a_request_that_makes_no_sense_is_refused_for_good(
    changed: dict[str, Any], open_house: OpenHouse
) -> None:
    house = await open_house(shipping())
    reply = await house.act("a", order(**changed))
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, Code.INVALID_REQUEST)
