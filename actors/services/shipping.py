"""Schedules shipments with a carrier, cancels them, and lets them go when the order is over.

Guarantees: one shipment for each step key, with a tracking id made from it; never more
scheduled at one time than the carrier can take. A completed order's shipment is dispatched.
Refuses: `ADDRESS_UNSERVICEABLE`, `NO_CARRIER_CAPACITY`, and `ALREADY_SHIPPED` to the undo of
what was dispatched: a parcel on the road cannot be cancelled, so the saga needs a person.
Costs: a read and two writes for each shipment.

Request: `{"order_id", "customer_id", "items": [{"item_id", "quantity"}]}`. Answer of
`schedule` and of `cancel`: `{"tracking_id", "pieces"}`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from raysaga.actors.participant import Effects, LedgerRow, Operation, Refusal, View
from raysaga.actors.services.behaviour import SeededBehaviour
from raysaga.actors.services.requests import id_from_key, key_of, name_in, quantities_in
from raysaga.actors.services.service import Service
from raysaga.statemachines.calls import LedgerStatus, StepCall
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.tables import Phase

ADDRESS_UNSERVICEABLE = "ADDRESS_UNSERVICEABLE"
NO_CARRIER_CAPACITY = "NO_CARRIER_CAPACITY"
ALREADY_SHIPPED = "ALREADY_SHIPPED"

SHIPMENTS, LOAD = "shipments", "load"
"""Tables: shipments by tracking id, and how many stand where."""

_SCHEDULED: Final = "scheduled"


class ShipmentState(StrEnum):
    """Where a shipment stands."""

    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"
    DISPATCHED = "dispatched"


class Shipment(NamedTuple):
    """One shipment, as the table holds it."""

    tracking_id: str
    order_id: str
    customer_id: str
    pieces: int
    state: ShipmentState


class ShipmentNotScheduledError(SagaError):
    """There is no such shipment to dispatch, or it was cancelled.

    Attributes:
        tracking_id: The shipment asked for.
    """

    code = "SHIPMENT_NOT_SCHEDULED"

    def __init__(self, tracking_id: str) -> None:
        super().__init__(tracking_id)
        self.tracking_id = tracking_id

    def __str__(self) -> str:
        return f"{self.tracking_id} is not scheduled, so it cannot be dispatched"


class Shipping(Service):
    """The shipping service of the order saga."""

    name = "shipping"
    tables = (SHIPMENTS, LOAD)
    refusals = (ADDRESS_UNSERVICEABLE, NO_CARRIER_CAPACITY, ALREADY_SHIPPED)
    refusal_by_chance = NO_CARRIER_CAPACITY

    def __init__(
        self,
        *,
        carrier_capacity: int | None = None,
        unserviceable_prefixes: tuple[str, ...] = (),
        trouble: SeededBehaviour | None = None,
    ) -> None:
        """Schedule up to `carrier_capacity` shipments at one time, for most customers.

        Args:
            carrier_capacity: Scheduled and not yet dispatched; None: any number.
            unserviceable_prefixes: Customers whose id begins so cannot be reached.
            trouble: See `Service`.
        """
        super().__init__(trouble)
        self.operations = {
            "schedule": Operation(apply=self.schedule, undo_name="cancel", undo=self.cancel)
        }
        self._carrier_capacity = carrier_capacity
        self._unserviceable_prefixes = unserviceable_prefixes

    def schedule(
        self,
        effects: Effects,
        call: StepCall,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Schedule the shipment of the order.

        Raises:
            Refusal: `ADDRESS_UNSERVICEABLE`, `NO_CARRIER_CAPACITY` or `INVALID_REQUEST`.
        """
        order_id = name_in(call.request, "order_id")
        customer_id = name_in(call.request, "customer_id")
        pieces = sum(quantities_in(call.request).values())
        if customer_id.startswith(self._unserviceable_prefixes):
            raise Refusal(ADDRESS_UNSERVICEABLE, "no carrier goes to this customer's address")
        self.refuse_by_chance(call)
        scheduled_count = effects.get(LOAD, _SCHEDULED) or 0
        capacity = self._carrier_capacity
        if capacity is not None and scheduled_count >= capacity:
            raise Refusal(NO_CARRIER_CAPACITY, f"all {capacity} places of the carrier are taken")
        tracking_id = id_from_key("trk", key_of(call))
        assert effects.get(SHIPMENTS, tracking_id) is None, "one key ships once"
        effects.put(LOAD, _SCHEDULED, scheduled_count + 1)
        shipment = Shipment(tracking_id, order_id, customer_id, pieces, ShipmentState.SCHEDULED)
        _put(effects, shipment)
        return {"tracking_id": tracking_id, "pieces": pieces}

    def cancel(
        self,
        effects: Effects,
        call: StepCall,  # noqa: ARG002 - what to cancel is in the answer
        applied: Mapping[str, Any] | None,
        context: Any,  # noqa: ARG002 - nothing is looked at before
    ) -> Mapping[str, Any]:
        """Cancel the shipment.

        Raises:
            Refusal: `ALREADY_SHIPPED`; not stored, since a person may call the parcel back.
        """
        assert applied is not None, "shipments lie with nobody outside, so this is always known"
        shipment = _get(effects, applied["tracking_id"])
        assert shipment is not None
        if shipment.state is ShipmentState.DISPATCHED:
            raise Refusal(ALREADY_SHIPPED, f"{shipment.tracking_id} has left the house")
        assert shipment.state is ShipmentState.SCHEDULED, "one key cancels once"
        _leave(effects, shipment, ShipmentState.CANCELLED)
        return applied

    def settle(self, effects: Effects, row: LedgerRow, outcome: str) -> None:
        """Dispatch the shipment of a completed order."""
        if row.status is not LedgerStatus.APPLIED or outcome != Phase.COMPLETED:
            return
        assert row.answer is not None
        dispatch(effects, row.answer["tracking_id"])


def dispatch(effects: Effects, tracking_id: str) -> None:
    """Let a scheduled shipment go; one that has left already is left alone.

    Raises:
        ShipmentNotScheduledError: If there is none, or it was cancelled.
    """
    shipment = _get(effects, tracking_id)
    if shipment is None or shipment.state is ShipmentState.CANCELLED:
        raise ShipmentNotScheduledError(tracking_id)
    if shipment.state is ShipmentState.SCHEDULED:
        _leave(effects, shipment, ShipmentState.DISPATCHED)


def shipments(view: View) -> Iterator[Shipment]:
    """Yield every shipment, by tracking id."""
    for tracking_id, row in view.scan(SHIPMENTS):
        yield _from_row(tracking_id, row)


def scheduled_count(view: View) -> int:
    """Return how many places of the carrier are taken."""
    return view.get(LOAD, _SCHEDULED) or 0


def _leave(effects: Effects, shipment: Shipment, state: ShipmentState) -> None:
    """Give the carrier's place back, and note why."""
    effects.put(LOAD, _SCHEDULED, effects.get(LOAD, _SCHEDULED) - 1)
    _put(effects, shipment._replace(state=state))


def _get(view: View, tracking_id: str) -> Shipment | None:
    row = view.get(SHIPMENTS, tracking_id)
    return None if row is None else _from_row(tracking_id, row)


def _put(effects: Effects, shipment: Shipment) -> None:
    _, order_id, customer_id, pieces, state = shipment
    effects.put(SHIPMENTS, shipment.tracking_id, [order_id, customer_id, pieces, state.value])


def _from_row(tracking_id: str, row: list[Any]) -> Shipment:
    order_id, customer_id, pieces, state = row
    return Shipment(tracking_id, order_id, customer_id, pieces, ShipmentState(state))
