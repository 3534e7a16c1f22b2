"""What must hold with whatever broker: all goes well, or the messages themselves are the trouble.

At the end of each test the shop's books are checked: journal and ledgers are sound, and
money, stock and parcels agree with the ends that were told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.envelope import CALL, Message, call_message, read_reply
from raysaga.actors.brokers.errors import NotPublishedError
from raysaga.actors.wire import MESSAGE_BYTES_MAX, pack_message
from raysaga.statemachines.calls import COMPENSATION, Outcome

from .shop import RUN, SERVICES, AnyBroker, Shop, impatient, put, queue, until

OpenShop = Callable[..., Shop]


@pytest.mark.parametrize("body_format", ["msgpack", "json"])
async def test_an_order_completes_with_every_service_behind_the_broker(
    broker: AnyBroker, open_shop: Callable[..., Shop], body_format: str
) -> None:
    queues = {
        name: f"{broker.url}/?queue={RUN}-{body_format}-{name}&format={body_format}"
        for name in SERVICES
    }
    shop = await open_shop(brokered=queues).open()
    outcomes = await asyncio.gather(*(shop.order() for _ in range(50)))
    assert {outcome["phase"] for outcome in outcomes} == {"completed"}
    refused = await shop.order(item="rare")
    assert (refused["phase"], refused["step"]) == ("compensated", "reserve_inventory")


GARBAGE = {
    "UNDECODABLE": b"\xc1 this is no message",
    "MALFORMED": pack_message({"type": CALL, "version": 1, "call_id": "x"}),
    "UNKNOWN_VERSION": pack_message({"type": CALL, "version": 2}),
    "OVERSIZED": bytes(MESSAGE_BYTES_MAX + 1),
}


async def test_duplicates_take_effect_once_and_what_comes_too_late_never(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    """An action three times; an undo before its action; an action beyond its expiry."""
    address = queue(broker, request)
    shop = await open_shop(brokered={"payment": address}).open()
    sample = await shop.order()
    assert sample["phase"] == "completed"
    twice = shop.recorded_call("payment")
    undone_first = {"saga_id": "order:undone", "journal_uuid": "elsewhere", "scope": "elsewhere/0"}
    late = {"saga_id": "order:late", "journal_uuid": "elsewhere", "scope": "elsewhere/0"}
    action = twice._replace(**undone_first)
    undo = action._replace(verb=COMPENSATION, operation="refund", expires_at_ms=None)
    expired = twice._replace(**late, expires_at_ms=1)
    calls = [twice, twice, undo, action, undo, expired]
    numbered = [call._replace(call_id=900 + i) for i, call in enumerate(calls)]
    heard: list[Message] = []
    link = await open_broker(parse_address(address)).connect()
    back = await link.consume_replies("heard", heard.append)
    for call in numbered:
        message = call_message(call, reply_to=back, body_format="json")
        await link.publish(parse_address(address).queue, message)
    await until(lambda: len(heard) == len(numbered), "all are answered")
    await link.close()
    replies = {reply.call_id - 900: reply for reply in map(read_reply, heard)}
    assert [replies[i].code for i in (3, 5)] == ["CANCELLED_BEFORE_START", "EXPIRED"]
    assert all(replies[i].outcome == Outcome.SUCCEEDED for i in (0, 1, 2, 4))
    effects = shop.effects("payment")
    assert [kind for saga, kind in effects if saga == twice.saga_id] == ["action"]
    assert not [kind for saga, kind in effects if saga == "order:late"]
    assert "action" not in [kind for saga, kind in effects if saga == "order:undone"]


async def test_what_nobody_can_read_goes_to_the_dead_letters_with_the_reason(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    address = queue(broker, request)
    shop = await open_shop(brokered={"payment": address}).open()
    await put(
        address,
        *(Message(body, "application/msgpack", CALL, f"m-{reason}", "")
          for reason, body in GARBAGE.items()),
        Message(b"<call/>", "text/xml", CALL, "m-xml", ""),
    )  # fmt: skip
    letters = await broker.dead_letters(parse_address(address).queue, len(GARBAGE) + 1)
    reasons = sorted(letter["raysaga-reason"] for letter in letters)
    assert reasons == sorted([*GARBAGE, "UNDECODABLE"])
    assert (await shop.order())["phase"] == "completed"


async def test_a_slow_service_is_handed_no_more_than_it_has_room_for(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    definition = impatient(timeout_ms=30_000)
    shop = open_shop(
        brokered={"payment": queue(broker, request)},
        definition=definition,
        prefetch=4,
        services={
            "payment": {"behaviour": {"latency": {"distribution": "constant", "constant_ms": 20.0}}}
        },
    )
    await shop.open()
    outcomes = [shop.submit() for _ in range(30)]
    most = 0
    while not all(outcome.done() for outcome in outcomes):
        most = max(most, shop.runners["payment"].unanswered_count)
        await asyncio.sleep(0.001)
    assert {outcome.result()["phase"] for outcome in outcomes} == {"completed"}
    assert 1 <= most <= 4


async def test_a_missing_queue_is_told_and_mended_by_making_it(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    shop = open_shop(brokered={"inventory": queue(broker, request)})
    await shop.open(runs=())
    waiting = shop.submit()
    message = Message(b"", "", CALL, "", "")
    link = await open_broker(parse_address(broker.url)).connect()
    with pytest.raises(NotPublishedError, match="no such"):
        await link.publish("raysaga.nobody", message)
    await link.close()
    dispatchers = shop.host.dispatchers
    await until(
        lambda: "inventory" in dispatchers and dispatchers["inventory"].sent_count >= 2,
        "it is sent again",
    )
    await shop.run("inventory")
    assert (await asyncio.wait_for(waiting, 60))["phase"] == "completed"


async def test_a_stand_by_takes_over_when_the_one_before_it_is_gone(
    broker: AnyBroker, open_shop: OpenShop, request: pytest.FixtureRequest
) -> None:
    shop = await open_shop(brokered={"payment": queue(broker, request)}).open()
    await shop.order()
    first = shop.leave_runner("payment")
    second = asyncio.ensure_future(shop.run("payment"))
    done, _ = await asyncio.wait({second}, timeout=0.5)
    assert not done
    await first.aclose()
    await second
    assert (await shop.order())["phase"] == "completed"
