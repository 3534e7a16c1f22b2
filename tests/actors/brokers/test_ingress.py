"""Orders that come from a queue: accepted before they are acknowledged, and once each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.envelope import ORDER, Message, Order, order_message
from raysaga.actors.brokers.ingress import OrderIngress
from raysaga.actors.errors import IdempotencyConflictError, OverloadedError
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.tables import Phase

from .amqp_proxy import AmqpProxy
from .rabbit_process import RabbitProcess
from .shop import AnyBroker, Shop, put, queue, until


@asynccontextmanager
async def ordering(shop: Shop, address: str, **options: Any) -> AsyncIterator[OrderIngress]:
    """Give an ingress that submits to a shop."""
    ingress = OrderIngress(
        open_broker(parse_address(address)),
        {shop.definition.name: shop.definition},
        options.pop("submit", None) or shop.submit_order,
        **options,
    )
    ingress.start()
    await asyncio.wait_for(ingress.up(), 30)
    yield ingress
    await ingress.stop()


def an_order(shop: Shop, key: str, **changes: Any) -> Message:
    return order_message(
        Order(shop.definition.name, key, shop.plain_order(key), None)._replace(**changes)
    )


async def test_orders_become_sagas_once_each_however_often_they_come(
    broker: AnyBroker, open_shop: Callable[..., Shop], request: pytest.FixtureRequest
) -> None:
    address = queue(broker, request)
    shop = await open_shop(brokered={}).open()
    async with ordering(shop, address) as ingress:
        messages = [an_order(shop, f"q-{i % 5}") for i in range(15)]
        await put(address, *messages)
        await until(lambda: ingress.accepted_count == 15, "all are acknowledged")
    phases = [shop.phase(f"order:q-{i}") for i in range(5)]
    await until(lambda: not shop.host.sagas, "they come to their ends")
    assert all(phases)
    assert shop.journal.counts()[Phase.COMPLETED] == 5


@pytest.mark.parametrize("passes", [False, True])
async def test_an_acknowledgement_that_is_lost_brings_the_order_again_as_the_same_saga(
    rabbit: RabbitProcess,
    open_shop: Callable[..., Shop],
    request: pytest.FixtureRequest,
    passes: bool,
) -> None:
    address = queue(rabbit, request)
    shop = await open_shop(brokered={}).open()
    submitted: list[str] = []

    async def submit(definition: SagaDefinition, order: Order) -> None:
        await shop.submit_order(definition, order)
        assert shop.phase(f"order:{order.key}"), "accepted, and not on disk"
        submitted.append(order.key)

    async with AmqpProxy(rabbit.port) as proxy:
        proxy.cut_at = ("basic.ack", "out", passes)
        async with ordering(shop, queue(proxy, request), submit=submit) as ingress:
            await put(address, an_order(shop, "q-1"))
            await until(lambda: proxy.cuts, "the acknowledgement is cut off")
            await put(address, an_order(shop, "q-2"))
            await until(lambda: "q-2" in submitted, "the next one is taken")
            await until(lambda: ingress.accepted_count >= 2, "it is acknowledged")
    assert set(submitted) == {"q-1", "q-2"}
    await until(lambda: not shop.host.sagas, "they come to their ends")


async def test_what_can_never_be_a_saga_goes_to_the_dead_letters_with_the_code(
    broker: AnyBroker, open_shop: Callable[..., Shop], request: pytest.FixtureRequest
) -> None:
    address = queue(broker, request)
    shop = await open_shop(brokered={}).open()

    async def submit(definition: SagaDefinition, order: Order) -> None:
        raise IdempotencyConflictError(f"order:{order.key}")

    async with ordering(shop, address, submit=submit) as ingress:
        await put(
            address,
            an_order(shop, "q-1"),
            an_order(shop, "q-2", definition="voyage"),
            Message(b"\x00", "application/json", ORDER, "m", ""),
        )
        await until(lambda: ingress.dead_letter_count == 3, "all are put aside")
    letters = await broker.dead_letters(parse_address(address).queue, 3)
    reasons = {letter["raysaga-reason"] for letter in letters}
    assert reasons == {"IDEMPOTENCY_CONFLICT", "UNKNOWN_DEFINITION", "UNDECODABLE"}


async def test_an_engine_without_room_is_asked_again_and_the_broker_keeps_the_rest(
    broker: AnyBroker, open_shop: Callable[..., Shop], request: pytest.FixtureRequest
) -> None:
    address = queue(broker, request)
    shop = await open_shop(brokered={}).open()
    answers: list[Exception] = [OverloadedError(5), OverloadedError(5)]
    at_once, most = 0, 0

    async def submit(definition: SagaDefinition, order: Order) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            await asyncio.sleep(0)
            if answers:
                raise answers.pop()
            await shop.submit_order(definition, order)
        finally:
            at_once -= 1

    async with ordering(shop, address, submit=submit, prefetch=3) as ingress:
        await put(address, *(an_order(shop, f"q-{i}") for i in range(10)))
        await until(lambda: ingress.accepted_count == 10, "all are acknowledged")
    assert 1 <= most <= 3
    assert ingress.dead_letter_count == 0
    await until(lambda: not shop.host.sagas, "they come to their ends")
