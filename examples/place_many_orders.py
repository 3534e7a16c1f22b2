"""Without an event loop: many orders, each outcome as it comes, and errors as exceptions."""

import raysaga
from raysaga.orders import Order, OrderItem, Payment, order_saga


def order_of(number: int, token: str = "tok_1") -> Order:
    """Return an order for one pot of tea."""
    return Order(
        order_id=f"many-{number}",
        customer_id="ada",
        items=(OrderItem(item_id="tea", quantity=1),),
        payment=Payment(token=token, amount_minor=1_250, currency="EUR"),
    )


def main() -> None:
    """Submit ten orders at a time, and one that is declined."""
    with raysaga.connect_blocking("order-data") as sagas:
        orders = [order_of(number) for number in range(10)]
        pairs = ((order.order_id, order) for order in orders)
        for key, outcome in sagas.submit_many(order_saga, pairs, in_flight_max=10):
            if isinstance(outcome, raysaga.SagaError):
                print(key, "was not accepted:", outcome.code)
            elif not outcome.is_completed:
                print(key, outcome.status, outcome.code)
        print("settled:", len(orders))

        declined = order_of(10, token="tok_declined")
        handle = sagas.submit(order_saga, declined, key=declined.order_id)
        try:
            handle.result(timeout_s=30).raise_if_not_completed()
        except raysaga.PaymentDeclinedError as error:
            print(error.code, error.retryable, error.step)


if __name__ == "__main__":
    main()
