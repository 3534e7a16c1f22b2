"""Places an order whose stock is kept elsewhere, and hears of its end through a broker as well.

    python order_over_a_broker.py amqp://guest:guest@localhost/
    python order_over_a_broker.py kafka://localhost:9092

The inventory is a process of its own, as it would be on another team's machine; the engine
knows only where the broker is. Run it again, and the same order is told to be known.
"""

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import raysaga
from raysaga.orders import Order, OrderItem, Payment, order_saga

order = Order(
    order_id="order-1",
    customer_id="ada",
    items=(OrderItem(item_id="tea", quantity=2),),
    payment=Payment(token="tok_1", amount_minor=1_250, currency="EUR"),
)


@contextmanager
def served(broker):
    """Serve the inventory from its queue, on a ledger of its own."""
    stock = Path("stock.json")
    stock.write_text(json.dumps({"items": {"tea": 100}}))
    command = ["raysaga", "participant", "inventory", "--transport", broker]
    command += ["--data", "inventory-data", "--stock", str(stock)]
    process = subprocess.Popen(command)  # noqa: S603 - a command of ours
    yield
    process.terminate()
    process.wait()


async def main(broker):
    """Submit the order, and wait for its end."""
    async with raysaga.connect("order-data", participants={"inventory": broker}) as sagas:
        handle = await sagas.submit(order_saga, order, key=order.order_id)
        outcome = await handle.result(timeout_s=60)
        print(handle.saga_id, outcome.status, "new" if handle.is_new else "known before")


with served(sys.argv[1]):
    asyncio.run(main(sys.argv[1]))
