"""The order saga: reserve, pay, ship, notify; each step has an undo."""

from __future__ import annotations

from raysaga.statemachines.definition import SagaDefinition, Step

order_saga = SagaDefinition(
    name="order",
    deadline_ms=10 * 60_000,
    steps=(
        Step(
            name="reserve_inventory",
            participant="inventory",
            action="reserve",
            compensation="release",
            request={"order_id": "input.order_id", "items": "input.items"},
        ),
        Step(
            name="process_payment",
            participant="payment",
            action="charge",
            compensation="refund",
            request={
                "order_id": "input.order_id",
                "customer_id": "input.customer_id",
                "payment": "input.payment",
            },
        ),
        Step(
            name="schedule_shipping",
            participant="shipping",
            action="schedule",
            compensation="cancel",
            request={
                "order_id": "input.order_id",
                "customer_id": "input.customer_id",
                "items": "input.items",
            },
        ),
        Step(
            name="send_notification",
            participant="notification",
            action="send",
            compensation="take_back",
            request={"order_id": "input.order_id", "customer_id": "input.customer_id"},
        ),
    ),
)
"""Four steps in a row, all compensatable: two flushes waited for when all goes well."""
