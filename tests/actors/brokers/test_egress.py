"""How sagas ended is told: each end at least once, under one id, and in order for each saga."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import jsonschema
import pytest

from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.egress import OutcomeEgress
from raysaga.actors.brokers.envelope import OUTCOME, Message
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import RetryOrdered

from .amqp_proxy import AmqpProxy
from .rabbit_process import RabbitProcess
from .shop import AnyBroker, Shop, hearing, impatient, queue, until
from .test_envelope import body_of, check_against_schema
from .test_rabbitmq_faults import ready_to_be_killed

OpenShop = Callable[..., Shop]


@asynccontextmanager
async def telling(shop: Shop, address: str, **options: Any) -> AsyncIterator[OutcomeEgress]:
    """Give an egress of a shop's journal."""
    egress = OutcomeEgress(open_broker(parse_address(address)), [shop.journal], **options)
    egress.start()
    await asyncio.wait_for(egress.up(), 30)
    yield egress
    await egress.stop()


def outcomes(heard: Sequence[Message]) -> list[dict[str, Any]]:
    """Return what was told, without repeats; each saga's must come in order."""
    found: list[dict[str, Any]] = []
    newest: dict[str, int] = {}
    told: dict[str, bytes] = {}
    for message in heard:
        check_against_schema(message)
        body = body_of(message)
        assert (message.type, message.message_id) == (OUTCOME, body["id"])
        assert told.setdefault(body["id"], message.body) == message.body, "a repeat differs"
        if body["seq"] > newest.get(body["saga_id"], -1):
            newest[body["saga_id"]] = body["seq"]
            found.append(body)
    assert len(found) == len(told), "an older outcome was told first after a newer one"
    return found


async def test_every_end_is_told_as_its_caller_was_told_it(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """Those that ended before anybody told them as well as those after."""
    address = queue(broker, request) + "&format=json"
    shop = await open_shop(brokered={}).open()
    ended = [await shop.order() for _ in range(3)]
    async with telling(shop, address) as egress, hearing(address) as heard:
        ended += await asyncio.gather(*(shop.order() for _ in range(20)), shop.order(item="rare"))
        await until(lambda: len(heard) >= len(ended), "all are told")
        assert egress.is_all_told()
    told = {body["saga_id"]: body for body in outcomes(heard)}
    assert len(told) == len(ended)
    for outcome in ended:
        assert outcome.items() <= told[outcome["saga_id"]].items()
        assert told[outcome["saga_id"]]["definition"] == "order"
    assert {body["phase"] for body in told.values()} == {"completed", "compensated"}


async def test_a_parked_saga_is_told_and_later_its_end(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """Also to a teller that begins when both have happened."""
    address = queue(broker, request)
    tries = {"delay_ms_first": 1, "delay_ms_max": 5}
    definition = impatient(
        timeout_ms=1_000,
        retry={"attempts_max": 1, **tries},
        compensation_retry={"attempts_max": 1, **tries},
    )
    nowhere = "amqp://guest:guest@127.0.0.1:1/"
    shop = await open_shop(brokered={"payment": nowhere}, definition=definition).open(runs=())
    async with telling(shop, address), hearing(address) as heard:
        shop.submit()
        await until(lambda: len(heard) == 1, "it is parked, and told")
        assert body_of(heard[0])["phase"] == "parked_backward"
        assert body_of(heard[0])["remaining"]
        await shop.close_host()
    shop.brokered["payment"] = queue(broker, request) + "-payment"
    await shop.run("payment")
    await shop.open_host()
    head = shop.journal.head(SagaId("order:o-1"))
    assert head is not None
    running = shop.host.activate(head)
    assert running is not None
    shop.host.give(running, RetryOrdered("ops", ""))
    async with telling(shop, address), hearing(address) as heard_later:
        await until(lambda: heard_later, "its end is told")
    assert [body["phase"] for body in outcomes([*heard, *heard_later])] == [
        "parked_backward",
        "compensated",
    ]
    again = address + "-again"
    async with telling(shop, again, name="other"), hearing(again) as heard_again:
        await until(lambda: len(heard_again) == 2, "both are told again")
    assert outcomes(heard_again) == outcomes([*heard, *heard_later])


async def test_a_new_bookmark_can_pass_over_what_has_ended_before(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    address = queue(broker, request)
    shop = await open_shop(brokered={}).open()
    await shop.order()
    async with telling(shop, address, from_now=True), hearing(address) as heard:
        later = await shop.order()
        await until(lambda: heard, "it is told")
    assert [body["saga_id"] for body in outcomes(heard)] == [later["saga_id"]]


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize(
    "stage", [("basic.publish", "out"), ("basic.ack", "in"), ("queue.declare", "out")]
)
async def test_a_connection_that_is_cut_while_telling_loses_no_outcome(
    rabbit: RabbitProcess,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    stage: tuple[str, str],
    passes: bool,
) -> None:
    address = queue(rabbit, request)
    shop = await open_shop(brokered={}).open()
    ended = await asyncio.gather(*(shop.order() for _ in range(10)))
    async with AmqpProxy(rabbit.port) as proxy, hearing(address) as heard:
        proxy.cut_at = (*stage, passes)
        async with telling(shop, queue(proxy, request)) as egress:
            await until(egress.is_all_told, "all is told")
        assert proxy.cuts == 1
        await until(lambda: len(outcomes(heard)) == len(ended), "all are heard")


async def test_a_broker_that_is_killed_while_it_is_told_has_all_outcomes_in_the_end(
    rabbit: RabbitProcess, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    address = queue(rabbit, request)
    shop = await open_shop(brokered={}).open()
    async with telling(shop, address) as egress:
        await asyncio.gather(*(shop.order() for _ in range(30)))
        await ready_to_be_killed(rabbit)
        under_way = [shop.submit() for _ in range(100)]
        await until(lambda: egress.told_count > 30, "they are being told")
        rabbit.kill()
        await asyncio.gather(*under_way)
        await asyncio.to_thread(rabbit.start)
        await until(egress.is_all_told, "all is told")
    async with hearing(address) as heard:
        await until(lambda: len(outcomes(heard)) >= 130, "all are heard")
    assert {body["phase"] for body in outcomes(heard)} == {"completed"}


async def test_a_teller_that_forgets_where_it_was_tells_it_again_under_the_same_ids(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """As after a crash in the second between two moves of the bookmark."""
    address = queue(broker, request)
    shop = await open_shop(brokered={}).open()
    await asyncio.gather(*(shop.order() for _ in range(5)))
    for _ in range(2):
        async with telling(shop, address) as egress:
            await until(egress.is_all_told, "all is told")
            assert egress.told_count == 5
        for note in shop.folder.journal_path(0).glob("told-*"):
            note.unlink()
    async with hearing(address) as heard:
        await until(lambda: len(heard) == 10, "all are heard, twice")
    assert len(outcomes(heard)) == 5


async def test_results_that_are_too_large_for_a_message_are_left_out(
    broker: AnyBroker,
    open_shop: OpenShop,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = queue(broker, request) + "&format=json"
    shop = await open_shop(brokered={}).open()
    done = await shop.order()
    assert done["results"]
    monkeypatch.setattr("raysaga.actors.brokers.envelope.MESSAGE_BYTES_MAX", 600)
    async with telling(shop, address), hearing(address) as heard:
        await until(lambda: heard, "it is told")
    (told,) = outcomes(heard)
    assert (told["phase"], told["results"]) == ("completed", {})


def test_an_outcome_that_lacks_a_field_is_not_what_the_schema_says() -> None:
    message = Message(b'{"type": "raysaga.outcome", "version": 1}', "application/json", "", "", "")
    with pytest.raises(jsonschema.ValidationError):
        check_against_schema(message)
