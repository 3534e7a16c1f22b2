"""A saga of your own, with a participant of your own: a flight and two hotel nights.

Run it twice: the second run finds the sagas of the first, and books nothing again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import raysaga
from raysaga import Operation, Participant, Refusal, SagaDefinition, Step

trip_saga = SagaDefinition(
    name="trip",
    steps=(
        Step(name="book_flight", participant="bookings", action="book", compensation="cancel"),
        Step(name="book_hotel", participant="bookings", action="book_room", compensation="cancel"),
    ),
)


class Bookings(Participant):
    """Books seats and rooms; the kit sees to it that each booking is made once."""

    name = "bookings"
    tables = ("rooms",)

    def __init__(self) -> None:
        self.operations = {
            "book": Operation(apply=self.book, undo_name="cancel", undo=self.cancel),
            "book_room": Operation(apply=self.book_room, undo_name="cancel", undo=self.cancel),
        }

    def book(self, effects: Any, call: Any, context: Any) -> Mapping[str, Any]:
        """Book a seat; there is always one."""
        return {"seat": "12A"}

    def book_room(self, effects: Any, call: Any, context: Any) -> Mapping[str, Any]:
        """Book a room; there are two."""
        taken = effects.get("rooms", "taken") or 0
        if taken == 2:
            raise Refusal("NO_ROOM", "both rooms are taken")
        effects.put("rooms", "taken", taken + 1)
        return {"room": taken + 1}

    def cancel(self, effects: Any, call: Any, applied: Any, context: Any) -> Mapping[str, Any]:
        """Give a room back; a seat needs nothing."""
        if "room" in applied:
            effects.put("rooms", "taken", effects.get("rooms", "taken") - 1)
        return {}


def serve(name: str, settings: Mapping[str, Any]) -> Participant:
    """Return the participant; the engine calls this in the process that it runs in."""
    return Bookings()


async def main() -> None:
    """Book three trips where there are rooms for two."""
    async with raysaga.connect("trip-data", participants={"bookings": "trip:serve"}) as sagas:
        for traveller in ("ada", "grace", "edsger"):
            handle = await sagas.submit(trip_saga, {"traveller": traveller}, key=traveller)
            outcome = await handle.result(timeout_s=30)
            print(traveller, outcome.status, outcome.code, outcome.message)


if __name__ == "__main__":
    asyncio.run(main())
