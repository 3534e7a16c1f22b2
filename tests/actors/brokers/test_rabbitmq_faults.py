"""What goes wrong between a host, a RabbitMQ and a service, and what must hold all the same.

At the end of each test the shop's books are checked: journal and ledgers are sound, and
money, stock and parcels agree with the ends that were told.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.envelope import CALL, Message
from raysaga.actors.brokers.errors import (
    BrokerRefusedError,
    BrokerUnavailableError,
)

from .amqp_proxy import AmqpProxy
from .rabbit_process import RabbitProcess
from .shop import Shop, impatient, queue, until

OpenShop = Callable[..., Shop]


async def ready_to_be_killed(rabbit: RabbitProcess) -> None:
    """Make one more queue: RabbitMQ 3.10 writes down only then who votes on the others.

    Killed within two seconds after it made a quorum queue, it comes back without it.
    """
    link = await open_broker(parse_address(rabbit.url)).connect()
    await link.ensure(f"newest-{secrets.token_hex(4)}")
    await link.close()


STAGES = [
    (method, direction, passes)
    for method, direction in (
        ("connection.tune-ok", "out"),
        ("connection.open", "out"),
        ("channel.open", "out"),
        ("queue.declare", "out"),
        ("queue.declare-ok", "in"),
        ("basic.consume", "out"),
        ("basic.publish", "out"),
        ("basic.ack", "in"),
        ("basic.deliver", "in"),
        ("basic.ack", "out"),
    )
    for passes in (False, True)
]


@pytest.mark.parametrize(
    ("end", "stage"),
    [
        pytest.param(end, stage, id=f"{end}-{stage[0]}-{stage[1]}-{'after' * stage[2]}")
        for stage in STAGES
        for end in ("host", "service")
        # A host acknowledges no replies.
        if (end, stage[:2]) != ("host", ("basic.ack", "out"))
    ],
)
async def test_a_connection_that_is_cut_at_any_stage_costs_no_order(
    rabbit: RabbitProcess,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    end: str,
    stage: tuple[str, str, bool],
) -> None:
    """Each frame that matters is lost, or passes as the last one, at each end of the way."""
    async with AmqpProxy(rabbit.port) as proxy:
        through, past = queue(proxy, request), queue(rabbit, request)
        proxy.cut_at = stage
        shop = open_shop(brokered={"payment": past if end == "host" else through})
        await shop.open()
        if end == "host":
            await shop.close_host()
            shop.brokered["payment"] = through
            await shop.open_host()
        outcomes = await asyncio.gather(*(shop.order() for _ in range(3)))
        assert {outcome["phase"] for outcome in outcomes} == {"completed"}
        assert proxy.cuts == 1
    assert sorted(kind for _, kind in shop.effects("payment")) == ["action"] * 3


async def test_a_broker_that_is_killed_with_messages_in_flight_loses_none(
    rabbit: RabbitProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    shop = await open_shop(brokered={"inventory": queue(rabbit, request)}).open()
    await shop.order()
    await ready_to_be_killed(rabbit)
    under_way = [shop.submit() for _ in range(40)]
    await until(lambda: shop.runners["inventory"].unanswered_count, "calls are in flight")
    rabbit.kill()
    under_way += [shop.submit() for _ in range(5)]
    await asyncio.to_thread(rabbit.start)
    outcomes = await asyncio.wait_for(asyncio.gather(*under_way), 60)
    assert {outcome["phase"] for outcome in outcomes} == {"completed"}


async def test_a_broker_that_is_stopped_in_good_order_is_found_again(
    rabbit: RabbitProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    shop = await open_shop(brokered={"shipping": queue(rabbit, request)}).open()
    under_way = [shop.submit() for _ in range(10)]
    rabbit.stop()
    await asyncio.to_thread(rabbit.start)
    outcomes = await asyncio.wait_for(asyncio.gather(*under_way), 60)
    assert {outcome["phase"] for outcome in outcomes} == {"completed"}


async def test_a_broker_that_stands_still_delays_orders_and_loses_none(
    rabbit: RabbitProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """Calls time out and are sent again; when all of them arrive, one takes effect."""
    async with AmqpProxy(rabbit.port) as proxy:
        definition = impatient(timeout_ms=200)
        shop = open_shop(brokered={"payment": queue(proxy, request)}, definition=definition)
        await shop.open()
        await shop.order()
        proxy.stalled.clear()
        waiting = shop.submit()
        timeouts = shop.host.dispatchers["payment"]
        await until(lambda: timeouts.timeout_count >= 2, "attempts time out")
        proxy.stalled.set()
        assert (await asyncio.wait_for(waiting, 60))["phase"] == "completed"


async def test_a_message_that_kills_each_consumer_ends_as_a_dead_letter(
    rabbit: RabbitProcess, request: pytest.FixtureRequest
) -> None:
    """The broker counts deliveries; nobody else can, if whoever takes it dies."""
    address = parse_address(queue(rabbit, request))
    first = await open_broker(address).connect()
    await first.ensure(address.queue)
    await first.publish(address.queue, Message(b"poison", "text/plain", CALL, "poison", ""))
    await first.close()
    deliveries = 0
    dead: list[dict[str, Any]] = []
    while not dead:
        arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link = await open_broker(address).connect()
        await link.consume(
            address.queue, lambda d, a=arrived: a.done() or a.set_result(d), prefetch=1
        )
        found = asyncio.ensure_future(rabbit.dead_letters(address.queue, 1))
        await asyncio.wait({arrived, found}, return_when=asyncio.FIRST_COMPLETED)
        deliveries += arrived.done()
        if found.done():
            dead = found.result()
        found.cancel()
        await asyncio.gather(found, return_exceptions=True)
        await link.close()
        assert deliveries < 50
    assert dead[0]["x-death"][0]["reason"] == "delivery_limit"


async def test_a_service_that_dies_between_effect_and_answer_does_not_act_twice(
    rabbit: RabbitProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """The call comes again, to the next runner, and the ledger has the answer."""
    async with AmqpProxy(rabbit.port) as proxy:
        shop = open_shop(brokered={"payment": queue(rabbit, request)})
        await shop.open(runs=())
        waiting = shop.submit()
        await until(lambda: "payment" in shop.wires, "the host has its own way there")
        shop.brokered["payment"] = queue(proxy, request)
        proxy.cut_at = ("basic.publish", "out", False)
        await shop.run("payment")
        await until(lambda: proxy.cuts, "the answer is about to leave")
        assert [kind for _, kind in shop.effects("payment")] == ["action"]
        await shop.stop_runner("payment")
        await shop.run("payment")
        assert (await asyncio.wait_for(waiting, 60))["phase"] == "completed"


async def test_an_order_turns_back_when_the_broker_stays_away(
    open_shop: OpenShop, request: pytest.FixtureRequest, rabbit: RabbitProcess
) -> None:
    """Nothing listens there; the steps before are undone, as for any service that is gone."""
    retry = {"attempts_max": 2, "delay_ms_first": 1, "delay_ms_max": 5}
    shop = open_shop(
        brokered={"payment": queue(rabbit, request)},
        definition=impatient(retry=retry, timeout_ms=300),
    )
    address = shop.brokered["payment"]
    shop.brokered["payment"] = "amqp://guest:guest@127.0.0.1:1/"
    await shop.open(runs=())
    shop.submit()
    await until(lambda: shop.phase("order:o-1") == "compensating", "it turns back")
    await shop.close_host()
    shop.brokered["payment"] = address
    await shop.run("payment")
    await shop.open_host()
    await until(lambda: shop.phase("order:o-1") == "compensated", "it is undone")
    assert "action" not in dict(shop.effects("payment")).values()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("guest:guest@", "guest:wrong@"), "Authentication"),
        (("/?", "/nowhere?"), "virtual host"),
    ],
)
async def test_wrong_credentials_are_told_without_the_password(
    rabbit: RabbitProcess,
    request: pytest.FixtureRequest,
    change: tuple[str, str],
    reason: str,
) -> None:
    address = parse_address(queue(rabbit, request).replace(*change))
    with pytest.raises((BrokerRefusedError, BrokerUnavailableError), match=reason) as caught:
        await open_broker(address).connect()
    assert isinstance(caught.value, BrokerRefusedError)
    assert "wrong" not in str(caught.value)


async def test_a_certificate_is_trusted_only_if_somebody_known_has_signed_it(
    rabbit: RabbitProcess, certificates: tuple[Any, ...], request: pytest.FixtureRequest
) -> None:
    bare = f"amqps://guest:guest@localhost:{rabbit.tls_port}/"
    with pytest.raises(BrokerRefusedError, match="certificate"):
        await open_broker(parse_address(bare)).connect()
    other_name = bare.replace("localhost", "127.0.0.1")
    trusting = f"?cafile={certificates[0]}"
    with pytest.raises(BrokerRefusedError, match="127"):
        await open_broker(parse_address(other_name + trusting)).connect()
    link = await open_broker(parse_address(bare + trusting)).connect()
    assert not link.lost.done()
    await link.close()
