"""What goes wrong between a host, a Kafka and a service, and what must hold all the same.

At the end of each test the shop's books are checked, as with RabbitMQ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from raysaga.actors.brokers import kafka as driver
from raysaga.actors.brokers import kafka_reading
from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import Delivery, Link, open_broker
from raysaga.actors.brokers.envelope import CALL, Message
from raysaga.actors.brokers.errors import BrokerRefusedError, BrokerUnavailableError
from raysaga.actors.wire import MESSAGE_BYTES_MAX
from raysaga.statemachines.errors import ValidationError

from .kafka_process import PASSWORD, USER, KafkaProcess
from .kafka_proxy import KafkaProxy
from .shop import Shop, hearing, impatient, put, queue, until
from .test_egress import outcomes, telling
from .test_ingress import an_order, ordering

OpenShop = Callable[..., Shop]

REQUESTS = (
    *("api-versions", "metadata", "create-topics", "init-producer-id", "produce"),
    *("find-coordinator", "join-group", "sync-group", "offset-fetch", "offset-commit"),
)
OF_A_GROUP = frozenset(REQUESTS[5:])
"""What a host never asks: it reads replies without a group."""

STAGES = [(request, "in", False) for request in REQUESTS]
STAGES += [("produce", "out", False), ("offset-commit", "out", False)]


def proxied(kafka: KafkaProcess) -> KafkaProxy:
    return KafkaProxy(kafka.proxied_port, kafka.proxy_port)


@pytest.mark.parametrize(
    ("end", "stage"),
    [
        pytest.param(end, stage, id=f"{end}-{stage[0]}-{stage[1]}")
        for stage in STAGES
        for end in ("host", "service")
        if end == "service" or stage[0] not in OF_A_GROUP
    ],
)
async def test_a_connection_that_is_cut_at_any_stage_costs_no_order(
    kafka: KafkaProcess,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    end: str,
    stage: tuple[str, str, bool],
) -> None:
    """The response to each request that matters is lost, or a request that moves something."""
    async with proxied(kafka) as proxy:
        through, past = queue(proxy, request), queue(kafka, request)
        proxy.cut_at = stage
        shop = open_shop(brokered={"payment": past if end == "host" else through})
        await shop.open()
        if end == "host":
            await shop.close_host()
            shop.brokered["payment"] = through
            await shop.open_host()
        done = await asyncio.gather(*(shop.order() for _ in range(3)))
        assert {outcome["phase"] for outcome in done} == {"completed"}
        await until(lambda: proxy.cuts == 1, "it was cut")
        assert sorted(kind for _, kind in shop.effects("payment")) == ["action"] * 3
        await shop.close()


async def test_a_broker_that_is_killed_with_messages_in_flight_loses_none(
    kafka: KafkaProcess,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls, replies and outcomes are under way; all are there in the end."""
    monkeypatch.setattr(driver, "CONNECT_TIMEOUT_S", 3.0)
    told = queue(kafka, request) + "-outcomes"
    shop = await open_shop(brokered={"inventory": queue(kafka, request)}).open()
    async with telling(shop, told) as egress:
        await shop.order()
        under_way = [shop.submit() for _ in range(40)]
        await until(lambda: shop.runners["inventory"].unanswered_count, "calls are in flight")
        kafka.kill()
        under_way += [shop.submit() for _ in range(5)]
        await asyncio.to_thread(kafka.start)
        done = await asyncio.wait_for(asyncio.gather(*under_way), 60)
        assert {outcome["phase"] for outcome in done} == {"completed"}
        await until(egress.is_all_told, "all is told")
    async with hearing(told) as heard:
        await until(lambda: len(outcomes(heard)) == 46, "all are heard")


async def test_a_broker_that_stands_still_delays_orders_and_loses_none(
    kafka: KafkaProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    async with proxied(kafka) as proxy:
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
        await shop.close()


async def test_a_service_that_dies_between_effect_and_answer_does_not_act_twice(
    kafka: KafkaProcess,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connections are cut for good when the answer leaves; the next one finds the call."""
    monkeypatch.setattr(driver, "SESSION_MS", 1_500)
    shop = open_shop(brokered={"payment": queue(kafka, request)})
    await shop.open(runs=())
    waiting = shop.submit()
    await until(lambda: "payment" in shop.wires, "the host has its own way there")
    async with proxied(kafka) as proxy:
        shop.brokered["payment"] = queue(proxy, request)
        proxy.cut_at = ("produce", "out", False)
        await shop.run("payment")
        await until(lambda: proxy.cuts, "the answer is about to leave")
        proxy.stalled.clear()
        assert [kind for _, kind in shop.effects("payment")] == ["action"]
        dying = shop.leave_runner("payment")
        closing = asyncio.ensure_future(dying.aclose())
        proxy.cut()
    await closing
    shop.brokered["payment"] = queue(kafka, request)
    await shop.run("payment")
    assert (await asyncio.wait_for(waiting, 60))["phase"] == "completed"
    assert [kind for _, kind in shop.effects("payment")] == ["action"]


async def took(link: Link, name: str, got: list[Delivery], **options: Any) -> None:
    await link.consume(name, got.append, prefetch=options.pop("prefetch", 8), **options)


async def test_offsets_move_over_what_was_acknowledged_and_not_beyond(
    kafka: KafkaProcess, request: pytest.FixtureRequest
) -> None:
    """Acknowledged in any order: the first one that is missing comes again, with all after."""
    address = parse_address(queue(kafka, request))
    first = await open_broker(address).connect()
    await first.ensure(address.queue, one_at_a_time=True)
    await put(f"{kafka.url}/?queue={address.queue}", *(numbered(i) for i in range(6)))
    got: list[Delivery] = []
    await took(first, address.queue, got, one_at_a_time=True)
    await until(lambda: len(got) == 6, "all are delivered")
    for i in (0, 1, 5, 3):
        await got[i].ack()
    await first.close()
    again: list[Delivery] = []
    second = await open_broker(address).connect()
    await took(second, address.queue, again, one_at_a_time=True)
    await until(lambda: len(again) == 4, "the rest is delivered again")
    assert [delivery.message.message_id for delivery in again] == ["m-2", "m-3", "m-4", "m-5"]
    await second.close()


def numbered(i: int) -> Message:
    return Message(b"x", "text/plain", CALL, f"m-{i}", f"saga-{i}")


async def test_a_rebalance_doubles_orders_at_most_and_each_is_one_saga(
    kafka: KafkaProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """A second ingress joins while the first takes orders, and then the first one leaves."""
    address = queue(kafka, request)
    shop = await open_shop(brokered={}).open()
    async with ordering(shop, address) as first:
        await put(address, *(an_order(shop, f"q-{i}") for i in range(20)))
        await until(lambda: first.accepted_count >= 5, "the first one takes some")
        async with ordering(shop, address) as second:
            await put(address, *(an_order(shop, f"q-{i}") for i in range(20, 40)))
            await until(lambda: second.accepted_count >= 1, "the second one has a share")
            await first.stop()
            await put(address, *(an_order(shop, f"q-{i}") for i in range(40, 50)))
            await until(lambda: all(shop.phase(f"order:q-{i}") for i in range(50)), "all are sagas")
    await until(lambda: not shop.host.sagas, "they come to their ends")
    assert sum(shop.journal.counts().values()) == 50


async def test_a_consumer_that_lost_its_partitions_moves_no_offset_any_more(
    kafka: KafkaProcess, request: pytest.FixtureRequest
) -> None:
    """What it acknowledges then is somebody else's, who has it again."""
    address = parse_address(queue(kafka, request))
    links = [await open_broker(address).connect() for _ in range(2)]
    await links[0].ensure(address.queue)
    await put(f"{kafka.url}/?queue={address.queue}", *(numbered(i) for i in range(30)))
    got: list[list[Delivery]] = [[], []]
    await took(links[0], address.queue, got[0], prefetch=30)
    await until(lambda: len(got[0]) == 30, "the first one has all")
    await took(links[1], address.queue, got[1], prefetch=30)
    await until(lambda: got[1], "the second one has a share of them")
    for delivery in got[0]:
        await delivery.ack()
    await links[1].close()
    await until(lambda: len(got[0]) > 30, "what the second one had comes back")
    assert not links[0].lost.done()
    await links[0].close()


class Life:
    """A consumer that does not survive the message `poison`."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []
        self.is_over = False

    def take(self, delivery: Delivery) -> None:
        if delivery.message.message_id == "poison":
            self.is_over = True
        else:
            self.taken.append(delivery)


async def test_a_message_that_kills_each_consumer_ends_as_a_dead_letter(
    kafka: KafkaProcess, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those taken together with it are acknowledged in the end, though they died with it."""
    monkeypatch.setattr(kafka_reading, "DELIVERIES_MAX", 4)
    address = parse_address(queue(kafka, request))
    first = await open_broker(address).connect()
    await first.ensure(address.queue, one_at_a_time=True)
    await first.close()
    poison = Message(b"poison", "text/plain", CALL, "poison", "")
    await put(f"{kafka.url}/?queue={address.queue}", numbered(0), poison, numbered(1))
    acknowledged: set[str] = set()
    lives = 0
    while acknowledged != {"m-0", "m-1"}:
        lives += 1
        assert lives < 15
        link = await open_broker(address).connect()
        life = Life()
        await link.consume(address.queue, life.take, prefetch=8, one_at_a_time=True)
        while not life.is_over and acknowledged != {"m-0", "m-1"}:
            # One that dies has acknowledged nothing of what it took together with the poison.
            await asyncio.sleep(0.02)
            while life.taken and not life.is_over:
                delivery = life.taken.pop()
                acknowledged.add(delivery.message.message_id)
                await delivery.ack()
        await link.close()
    (letter,) = await kafka.dead_letters(address.queue, 1)
    assert (letter["raysaga-reason"], letter["message-id"]) == ("DELIVERY_LIMIT", "poison")
    assert lives > kafka_reading.DELIVERIES_MAX


async def test_a_body_that_no_topic_of_ours_can_hold_is_refused_before_it_is_sent(
    kafka: KafkaProcess, request: pytest.FixtureRequest
) -> None:
    address = parse_address(queue(kafka, request))
    link = await open_broker(address).connect()
    await link.ensure(address.queue)
    with pytest.raises(ValidationError, match="too many"):
        await link.publish(address.queue, Message(bytes(2 * MESSAGE_BYTES_MAX), "", CALL, "", ""))
    await link.publish(address.queue, numbered(1))
    await link.close()


async def test_wrong_credentials_are_told_without_the_password(kafka: KafkaProcess) -> None:
    right = f"kafka://{USER}:{PASSWORD}@localhost:{kafka.sasl_port}"
    link = await open_broker(parse_address(right)).connect()
    await link.close()
    for wrong in (right.replace(PASSWORD, "wrong-one"), right.replace(USER, "nobody")):
        with pytest.raises(BrokerRefusedError, match=r"closed|Authentication") as caught:
            await open_broker(parse_address(wrong)).connect()
        assert PASSWORD not in str(caught.value)
        assert "wrong-one" not in str(caught.value)


async def test_a_broker_that_is_not_there_is_told_as_one_to_be_tried_again() -> None:
    with pytest.raises(BrokerUnavailableError):
        await open_broker(parse_address("kafka://localhost:1")).connect()


async def test_a_certificate_is_trusted_only_if_somebody_known_has_signed_it(
    kafka: KafkaProcess, certificates: tuple[Any, ...]
) -> None:
    bare = f"kafkas://localhost:{kafka.tls_port}/"
    with pytest.raises(BrokerRefusedError, match="certificate"):
        await open_broker(parse_address(bare)).connect()
    trusting = f"?cafile={certificates[0]}"
    other_name = bare.replace("localhost", "127.0.0.1")
    with pytest.raises(BrokerRefusedError, match="127"):
        await open_broker(parse_address(other_name + trusting)).connect()
    with pytest.raises(BrokerRefusedError, match="cafile"):
        await open_broker(parse_address(bare + "?cafile=/nowhere.pem")).connect()
    link = await open_broker(parse_address(bare + trusting)).connect()
    assert not link.lost.done()
    await link.close()
