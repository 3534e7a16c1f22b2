"""The worked example: an order, and the saga that it goes through."""

from raysaga.api.order_schema import Order, OrderItem, Payment
from raysaga.statemachines.order import order_saga

__all__ = ["Order", "OrderItem", "Payment", "order_saga"]
