"""Stock is exact under every strategy, however many orders want it at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from raysaga.actors.clock import SystemClock
from raysaga.actors.participant_server import ParticipantLimits
from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.inventory_stock import (
    Stock,
    StockConflictError,
    StockLine,
    stock_lines,
)
from raysaga.actors.services.inventory_strategies import StrategyName
from raysaga.actors.services.service import Service
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import Code, LedgerStatus, Outcome, StepReply

from ..service_house import House, OpenHouse, items, order

EVERY_STRATEGY = pytest.mark.parametrize("strategy", list(StrategyName))


def inventory(
    strategy: str = "escrow", default: int | None = None, think_ms: float = 0.0, **stock: int
) -> Callable[[], Service]:
    settings = ServicesSettings.calm(
        inventory={
            "strategy": strategy,
            "think_ms": think_ms,
            "bucket_count": 4,
            "stock": {"items": stock, "default": default},
        }
    )
    return lambda: build_participant("inventory", settings)


def lines(house: House) -> dict[str, StockLine]:
    found = {line.item_id: line for line in stock_lines(house.ledger)}
    for line in found.values():
        assert line.is_balanced, line
    return found


async def insist(send: Callable[[int], Any]) -> StepReply:
    """Call again for as long as the answer concerns the attempt only, as a host does."""
    attempt = 1
    while True:
        reply: StepReply = await send(attempt)
        if reply.outcome != Outcome.UNKNOWN:
            return reply
        assert reply.code in (Code.CONFLICT, Code.OVERLOADED), reply
        attempt += 1


async def reserve(house: House, saga: str, **wanted: int) -> StepReply:
    request = order(order_id=saga, items=items(**wanted))
    return await insist(lambda attempt: house.act(saga, request, attempt=attempt))


async def release(house: House, saga: str, **wanted: int) -> StepReply:
    return await house.undo(saga, order(order_id=saga, items=items(**wanted)))


@EVERY_STRATEGY
async def test_an_order_gets_all_of_its_items_or_none(strategy: str, open_house: OpenHouse) -> None:
    house = await open_house(inventory(strategy, milk=5, bread=1))
    given = await reserve(house, "a", milk=2, bread=1)
    assert given.outcome == Outcome.SUCCEEDED
    assert given.result is not None
    assert sum(pieces for _, _, pieces in given.result["taken"]) == 3
    refused = await reserve(house, "b", milk=2, bread=1)
    assert (refused.outcome, refused.code) == (Outcome.REFUSED, "INSUFFICIENT_STOCK")
    assert refused.stored
    assert refused.message == "bread: 1 wanted, 0 available"
    assert lines(house) == {
        "milk": StockLine("milk", 5, 3, 2, 0),
        "bread": StockLine("bread", 1, 0, 1, 0),
    }


@EVERY_STRATEGY
async def test_with_less_stock_than_demand_exactly_the_stock_is_given(
    strategy: str, open_house: OpenHouse
) -> None:
    """Two hundred orders want one piece each of forty, all at once."""
    house = await open_house(inventory(strategy, think_ms=1.0, milk=40))
    replies = await asyncio.gather(*(reserve(house, f"s{n}", milk=1) for n in range(200)))
    outcomes = Counter(reply.code or "given" for reply in replies)
    assert outcomes == {"given": 40, "INSUFFICIENT_STOCK": 160}
    assert lines(house)["milk"] == StockLine("milk", 40, 0, 40, 0)


@EVERY_STRATEGY
async def test_orders_over_the_same_items_in_any_order_never_wait_for_each_other(
    strategy: str, open_house: OpenHouse
) -> None:
    """Each order wants three of five items, listed in an order of its own.

    With locks taken as listed, two such orders would soon hold what the other wants.
    """
    names = [f"item-{n}" for n in range(5)]
    house = await open_house(inventory(strategy, think_ms=1.0, **dict.fromkeys(names, 30)))
    chance = random.Random(4711)
    wishes = [chance.sample(names, 3) for _ in range(100)]

    async def one(number: int) -> StepReply:
        wanted = dict.fromkeys(wishes[number], 1 + number % 2)
        return await reserve(house, f"s{number}", **wanted)

    async with asyncio.timeout(60):
        replies = await asyncio.gather(*map(one, range(100)))
    taken: Counter[str] = Counter()
    for reply in replies:
        if reply.outcome == Outcome.SUCCEEDED:
            assert reply.result is not None
            for name, _, pieces in reply.result["taken"]:
                taken[name] += pieces
        else:
            assert reply.code == "INSUFFICIENT_STOCK"
    assert {name: line.reserved for name, line in lines(house).items()} == {
        name: taken[name] for name in names
    }


@EVERY_STRATEGY
async def test_released_stock_is_reserved_again(strategy: str, open_house: OpenHouse) -> None:
    """Orders reserve and give back while others want the same few pieces."""
    house = await open_house(inventory(strategy, think_ms=1.0, milk=3))

    async def come_and_go(number: int) -> bool:
        reply = await reserve(house, f"s{number}", milk=1)
        if reply.outcome != Outcome.SUCCEEDED:
            return False
        assert (await release(house, f"s{number}", milk=1)).outcome == Outcome.SUCCEEDED
        return True

    results = await asyncio.gather(*map(come_and_go, range(60)))
    assert any(results)
    assert lines(house)["milk"] == StockLine("milk", 3, 3, 0, 0)
    again = await reserve(house, "last", milk=3)
    assert again.outcome == Outcome.SUCCEEDED
    assert lines(house)["milk"] == StockLine("milk", 3, 0, 3, 0)


@EVERY_STRATEGY
async def test_a_release_never_waits_for_orders_that_think(
    strategy: str, open_house: OpenHouse
) -> None:
    """While an order holds the item for a minute, another one gives its piece back."""
    house = await open_house(inventory(strategy, think_ms=1.0, milk=5))
    assert (await reserve(house, "a", milk=5)).outcome == Outcome.SUCCEEDED
    thinking = house.service
    thinking._strategy.think_ms = 60_000  # type: ignore[attr-defined]
    request = order(items=items(milk=1))
    waiting = asyncio.create_task(house.act("b", request))
    async with asyncio.timeout(30):
        assert (await release(house, "a", milk=5)).outcome == Outcome.SUCCEEDED
    assert not waiting.done()
    waiting.cancel()


@EVERY_STRATEGY
async def test_what_a_completed_order_reserved_is_sold(
    strategy: str, open_house: OpenHouse
) -> None:
    house = await open_house(inventory(strategy, milk=5))
    await reserve(house, "a", milk=3)
    await reserve(house, "b", milk=1)
    await release(house, "b", milk=1)
    await house.release("b", "compensated")
    for _ in range(2):
        assert (await house.release("a", "completed")).outcome == Outcome.SUCCEEDED
    assert lines(house)["milk"] == StockLine("milk", 5, 2, 0, 3)


@EVERY_STRATEGY
async def test_a_call_that_comes_twice_takes_once(strategy: str, open_house: OpenHouse) -> None:
    house = await open_house(inventory(strategy, think_ms=1.0, milk=5))
    request = order(items=items(milk=2))
    replies = await asyncio.gather(*(house.act("a", request, attempt=n) for n in (1, 2, 3)))
    assert {str(reply.result) for reply in replies} == {str(replies[0].result)}
    assert lines(house)["milk"].reserved == 2
    for attempt in (1, 2):
        assert (await house.undo("a", request, attempt=attempt)).outcome == Outcome.SUCCEEDED
    assert lines(house)["milk"].reserved == 0


@EVERY_STRATEGY
async def test_an_undo_that_comes_first_leaves_nothing_to_take(
    strategy: str, open_house: OpenHouse
) -> None:
    house = await open_house(inventory(strategy, milk=5))
    request = order(items=items(milk=2))
    assert (await house.undo("a", request)).outcome == Outcome.SUCCEEDED
    late = await house.act("a", request)
    assert (late.outcome, late.code) == (Outcome.REFUSED, Code.CANCELLED_BEFORE_START)
    assert lines(house)["milk"].on_hand == 5


async def test_the_last_pieces_are_found_wherever_they_lie(open_house: OpenHouse) -> None:
    """Seven pieces on four shelves satisfy an order of seven, and no order of eight."""
    house = await open_house(inventory("buckets", milk=7))
    assert (await reserve(house, "a", milk=8)).code == "INSUFFICIENT_STOCK"
    given = await reserve(house, "b", milk=7)
    assert given.result is not None
    assert len(given.result["taken"]) == 4
    await release(house, "b", milk=7)
    assert lines(house)["milk"] == StockLine("milk", 7, 7, 0, 0)


async def test_only_hot_items_are_spread(open_house: OpenHouse) -> None:
    settings = ServicesSettings.calm(
        inventory={
            "strategy": "buckets",
            "hot_items": ["milk"],
            "stock": {"items": {"milk": 16, "bread": 16}},
        }
    )
    house = await open_house(lambda: build_participant("inventory", settings))
    await reserve(house, "a", milk=1, bread=1)
    assert len(list(house.ledger.scan("shelves", "milk/"))) == 7
    assert not list(house.ledger.scan("shelves", "bread/"))


@pytest.mark.parametrize("first", list(StrategyName))
@pytest.mark.parametrize("then", list(StrategyName))
async def test_the_strategy_can_be_changed_between_runs(
    first: str, then: str, open_house: OpenHouse
) -> None:
    house = await open_house(inventory(first, milk=10))
    await reserve(house, "a", milk=4)
    await house.close()
    house._build = inventory(then, milk=10)
    await house.open()
    await reserve(house, "b", milk=5)
    await release(house, "a", milk=4)
    await house.release("b", "completed")
    assert (await reserve(house, "c", milk=6)).code == "INSUFFICIENT_STOCK"
    assert (await reserve(house, "d", milk=5)).outcome == Outcome.SUCCEEDED
    assert lines(house)["milk"] == StockLine("milk", 10, 0, 5, 5)


async def test_an_item_without_stock_is_unknown_unless_there_is_a_default(
    open_house: OpenHouse,
) -> None:
    house = await open_house(inventory(milk=5))
    refused = await reserve(house, "a", soap=1)
    assert (refused.code, refused.stored) == ("UNKNOWN_SKU", True)
    assert "soap" in refused.message
    other = await open_house(inventory(default=3, milk=5), "other")
    assert (await reserve(other, "a", soap=2)).outcome == Outcome.SUCCEEDED
    assert (await reserve(other, "b", soap=2)).message == "soap: 2 wanted, 1 available"
    # A refusal leaves no trace of the item that it looked at.
    assert (await reserve(other, "c", wax=9)).code == "INSUFFICIENT_STOCK"
    assert set(lines(other)) == {"milk", "soap"}


@pytest.mark.parametrize(
    "request_",
    [
        {},
        order(order_id="a\nb"),
        order(items=[]),
        order(items=["milk"]),
        order(items=[{"item_id": "milk"}]),
        order(items=[{"item_id": "milk", "quantity": 0}]),
        order(items=[{"item_id": "milk", "quantity": True}]),
        order(items=[{"item_id": "milk", "quantity": 1.0}]),
        order(items=[{"item_id": "a/b", "quantity": 1}]),
        order(items=[{"item_id": "milk", "quantity": 10**9}]),
    ],
)
@EVERY_STRATEGY
async def test_a_request_that_makes_no_sense_is_refused_for_good(
    strategy: str, request_: dict[str, Any], open_house: OpenHouse
) -> None:
    house = await open_house(inventory(strategy, think_ms=1.0, milk=5))
    reply = await house.act("a", request_)
    assert (reply.outcome, reply.code, reply.stored) == (
        Outcome.REFUSED,
        Code.INVALID_REQUEST,
        True,
    )


async def test_the_same_stock_is_loaded_once(open_house: OpenHouse) -> None:
    house = await open_house(inventory(milk=5, bread=2))
    await reserve(house, "a", milk=2)
    await house.reopen()
    assert lines(house)["milk"] == StockLine("milk", 5, 3, 2, 0)


async def test_another_stock_is_refused_and_nothing_changes(open_house: OpenHouse) -> None:
    house = await open_house(inventory(milk=5))
    await house.close()
    house._build = inventory(milk=6)
    with pytest.raises(StockConflictError) as caught:
        await house.open()
    assert caught.value.code == "STOCK_CONFLICT"
    await house.close()
    house._build = inventory(milk=5)
    await house.open()
    assert lines(house)["milk"].initial == 5


async def test_a_stock_can_be_topped_up_any_number_of_times(open_house: OpenHouse) -> None:
    house = await open_house(inventory(milk=5, bread=2))
    await reserve(house, "a", milk=4)
    more = Stock(items={"milk": 8, "eggs": 12})
    service: Any = house.service
    for expected in (True, False):
        assert service.load(house.ledger, more, top_up=True) is expected
    found = lines(house)
    assert found["milk"] == StockLine("milk", 8, 4, 4, 0)
    assert found["eggs"] == StockLine("eggs", 12, 12, 0, 0)
    assert found["bread"] == StockLine("bread", 2, 2, 0, 0)
    with pytest.raises(StockConflictError):
        service.load(house.ledger, Stock(items={"milk": 1}), top_up=True)
    assert lines(house)["milk"].initial == 8


async def test_pessimistic_orders_are_served_in_the_order_in_which_they_came(
    open_house: OpenHouse,
) -> None:
    house = await open_house(inventory("pessimistic", think_ms=1.0, milk=10))
    finished: list[str] = []

    async def one(saga: str) -> None:
        await reserve(house, saga, milk=1)
        finished.append(saga)

    await asyncio.gather(*(one(f"s{n}") for n in range(15)))
    assert finished == [f"s{n}" for n in range(15)]


async def test_locks_that_nobody_holds_take_no_memory(open_house: OpenHouse) -> None:
    """Some orders are called back while they wait for a lock, or hold one."""
    house = await open_house(inventory("pessimistic", think_ms=50.0, milk=5, bread=5))
    calls = [
        house.act(f"s{n}", order(items=items(milk=1, bread=1)), timeout_ms=30) for n in range(8)
    ]
    replies = await asyncio.gather(*calls)
    assert {reply.code for reply in replies} == {Code.TIMEOUT}
    locks = house.service._strategy._locks  # type: ignore[attr-defined]
    assert len(locks) == 0
    assert lines(house)["milk"].reserved == 0


async def test_optimistic_orders_notice_that_the_stock_changed(open_house: OpenHouse) -> None:
    limits = ParticipantLimits(conflict_retries_max=0)
    house = await open_house(inventory("optimistic", think_ms=20.0, milk=5), limits=limits)
    request = order(items=items(milk=1))
    replies = await asyncio.gather(*(house.act(f"s{n}", request) for n in range(3)))
    assert Counter(reply.code for reply in replies) == {"": 1, Code.CONFLICT: 2}
    conflict = next(reply for reply in replies if reply.code)
    assert not conflict.stored
    assert conflict.retry_after_ms == 20
    assert lines(house)["milk"].reserved == 1


async def test_after_a_crash_the_stock_is_what_was_answered(open_house: OpenHouse) -> None:
    """The next incarnation answers the repeat of a call from the ledger."""
    house = await open_house(inventory("escrow", milk=5))
    request = order(items=items(milk=2))
    before = await house.act("a", request)
    await house.reopen()
    after = await house.act("a", request, attempt=2)
    assert after.duplicate
    assert dict(after.result or {}) == dict(before.result or {})
    told = await house.ask("a")
    assert told.result is not None
    assert told.result["status"] == LedgerStatus.APPLIED
    assert lines(house)["milk"].reserved == 2


@pytest.mark.parametrize(
    ("strategy", "together_max"),
    [("pessimistic", 1), ("buckets", 4), ("escrow", 60), ("optimistic", 60)],
)
async def test_strategies_differ_in_how_many_orders_can_think_about_one_item(
    strategy: str, together_max: int, open_house: OpenHouse
) -> None:
    """Every order thinks until nobody else joins it; the most that thought at once is told."""
    clock = Thinkers()
    settings = ServicesSettings.calm(
        inventory={
            "strategy": strategy,
            "think_ms": 1.0,
            "bucket_count": 4,
            "stock": {"items": {"milk": 60}},
        }
    )
    house = await open_house(lambda: build_participant("inventory", settings, clock=clock))
    await asyncio.gather(*(reserve(house, f"s{n}", milk=1) for n in range(60)))
    assert clock.together_max == together_max
    assert lines(house)["milk"].reserved == 60


class Thinkers(SystemClock):
    """Counts who waits at the same time; a wait ends when nothing else is ready to run."""

    def __init__(self) -> None:
        self.together = 0
        self.together_max = 0

    async def sleep_ms(self, delay_ms: float) -> None:
        self.together += 1
        self.together_max = max(self.together_max, self.together)
        for _ in range(100):
            await asyncio.sleep(0)
        self.together -= 1


async def test_the_clock_of_a_strategy_is_the_one_that_it_was_given() -> None:
    waited: list[float] = []

    class Watched(SystemClock):
        async def sleep_ms(self, delay_ms: float) -> None:
            waited.append(delay_ms)

    settings = ServicesSettings.calm(inventory={"think_ms": 77.0})
    service: Any = build_participant("inventory", settings, clock=Watched())
    async with service._strategy.look(None, {}, None):
        pass
    assert waited == [77.0]
