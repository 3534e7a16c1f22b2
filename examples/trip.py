"""A trip: flight, hotel and car side by side, then the payment that decides, then the ticket.

Run it twice: the second run finds the sagas of the first, and books nothing again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import raysaga
from raysaga import (
    Effects,
    Operation,
    Participant,
    Refusal,
    SagaDefinition,
    Step,
    StepCall,
    StepKind,
)

trip_saga = SagaDefinition(
    name="trip",
    deadline_ms=10 * 60_000,
    steps=(
        Step(
            name="book_flight",
            participant="flights",
            action="book",
            compensation="cancel",
            after=(),
            request={"offer": "input.flight"},
        ),
        Step(
            name="book_hotel",
            participant="hotels",
            action="book",
            compensation="cancel",
            after=(),
            request={"offer": "input.hotel"},
        ),
        Step(
            name="rent_car",
            participant="cars",
            action="book",
            compensation="cancel",
            after=(),
            request={"offer": "input.car"},
        ),
        Step(
            name="pay",
            participant="bank",
            action="pay",
            kind=StepKind.PIVOT,
            after=("book_flight", "book_hotel", "rent_car"),
            request={"account": "input.traveller", "amount_minor": "input.price_minor"},
        ),
        Step(
            name="issue_ticket",
            participant="flights",
            action="issue",
            kind=StepKind.RETRIABLE,
            request={"traveller": "input.traveller", "seat": "results.book_flight.place"},
        ),
    ),
)


class Places(Participant):
    """So many places of each offer, and no more: seats of flights, rooms of hotels, cars."""

    tables = ("places", "tickets")

    def __init__(self, name: str, capacity: int) -> None:
        self.name = name
        self.capacity = capacity
        self.operations = {
            "book": Operation(apply=self.book, undo_name="cancel", undo=self.cancel),
            "issue": Operation(apply=self.issue),
        }

    def book(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        """Take the first place that is free."""
        offer = call.request["offer"]
        places = effects.get("places", offer) or [""] * self.capacity
        if "" not in places:
            raise Refusal("SOLD_OUT", f"{offer} is sold out")
        place = places.index("")
        places[place] = call.saga_id
        effects.put("places", offer, places)
        return {"place": place + 1}

    def cancel(
        self, effects: Effects, call: StepCall, applied: Any, context: Any
    ) -> Mapping[str, Any]:
        """Give the place back that the action took; `applied` is its answer."""
        offer = call.request["offer"]
        places = effects.get("places", offer)
        places[applied["place"] - 1] = ""
        effects.put("places", offer, places)
        return {}

    def issue(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        """Write a ticket. It cannot be taken back, and need not: it comes after the payment."""
        ticket = f"{call.request['traveller']}, seat {call.request['seat']}"
        effects.put("tickets", call.saga_id, ticket)
        return {"ticket": ticket}


class Bank(Participant):
    """Accounts with a balance; a payment is final."""

    name = "bank"
    tables = ("balances",)

    def __init__(self, opening_minor: int = 100_000) -> None:
        self.opening_minor = opening_minor
        self.operations = {"pay": Operation(apply=self.pay)}

    def pay(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        """Pay, if there is enough."""
        account, amount_minor = call.request["account"], call.request["amount_minor"]
        balance = effects.get("balances", account)
        left = (self.opening_minor if balance is None else balance) - amount_minor
        if left < 0:
            raise Refusal("INSUFFICIENT_FUNDS", f"{account} cannot pay {amount_minor}")
        effects.put("balances", account, left)
        return {"left_minor": left}


CAPACITY = {"flights": 2, "hotels": 3, "cars": 3}


def serve(name: str, settings: Mapping[str, Any]) -> Participant:
    """Return a participant by its name; the engine calls this in the process that it runs in."""
    return Bank() if name == "bank" else Places(name, CAPACITY[name])


def trip_of(traveller: str, price_minor: int = 80_000) -> dict[str, Any]:
    """Return what a trip's saga is begun with."""
    return {
        "traveller": traveller,
        "flight": "FRA-LIS",
        "hotel": "Tejo",
        "car": "small",
        "price_minor": price_minor,
    }


async def main() -> None:
    """Book four trips where there are two seats, one trip for somebody who cannot pay."""
    participants = dict.fromkeys((*CAPACITY, "bank"), "trip:serve")
    trips = [trip_of("ada"), trip_of("alan", 200_000), trip_of("grace"), trip_of("edsger")]
    async with raysaga.connect("trip-data", participants=participants) as sagas:
        for trip in trips:
            handle = await sagas.submit(trip_saga, trip, key=trip["traveller"])
            outcome = await handle.result(timeout_s=30)
            print(trip["traveller"], outcome.status, outcome.code, outcome.message)


if __name__ == "__main__":
    asyncio.run(main())
