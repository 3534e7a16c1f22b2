"""The shortest program: one order through the order saga, on a local Ray.

Run it twice: the order's id is its key, so the second run is told the end of the first.
"""

import asyncio

import raysaga
from raysaga.orders import Order, OrderItem, Payment, order_saga

order = Order(
    order_id="order-1",
    customer_id="ada",
    items=(OrderItem(item_id="tea", quantity=2),),
    payment=Payment(token="tok_1", amount_minor=1_250, currency="EUR"),
)


async def main() -> None:
    """Submit it, and wait for its end."""
    async with raysaga.connect("order-data") as sagas:
        handle = await sagas.submit(order_saga, order, key=order.order_id)
        outcome = await handle.result(timeout_s=30)
        print(handle.saga_id, outcome.status, "new" if handle.is_new else "known before")


asyncio.run(main())
