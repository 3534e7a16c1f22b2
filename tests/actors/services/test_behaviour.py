"""Trouble is reproducible, strikes as often as it was told to, and changes no result."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raysaga.actors.services.behaviour import (
    DELAY_MS_MAX,
    Latency,
    ScriptedFault,
    SeededBehaviour,
    ServiceBehaviour,
    Trouble,
)
from raysaga.actors.services.catalogue import build_participant
from raysaga.actors.services.inventory_stock import stock_lines
from raysaga.actors.services.settings import ServicesSettings
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    Code,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)

from ..service_house import House, OpenHouse, items, order

LATENCIES: TypeAdapter[Any] = TypeAdapter(Latency)


class Stopwatch:
    """A clock that does not wait, and writes down what it was asked to."""

    def __init__(self) -> None:
        self.waits_ms: list[float] = []

    def now_ms(self) -> int:
        return 0

    def monotonic_ms(self) -> float:
        return 0.0

    async def sleep_ms(self, delay_ms: float) -> None:
        self.waits_ms.append(delay_ms)
        await asyncio.sleep(0)


def call(saga: str, verb: int = ACTION, attempt: int = 1, operation: str = "charge") -> StepCall:
    return StepCall(
        1, verb, "journal", saga, "step", operation, {}, "scope", 1, attempt, None, 1_000
    )


async def observe(behaviour: SeededBehaviour, one: StepCall) -> str:
    """Say what the call meets, as its sender would notice."""
    instead = await behaviour.before(one)
    if instead is not None:
        return str(instead.code)
    reply: StepReply | None = reply_to(one, Outcome.SUCCEEDED)
    assert reply is not None
    reply = await behaviour.after(one, reply)
    return "lost" if reply is None else "answered"


def troubled(seed: int = 7, **changed: Any) -> SeededBehaviour:
    return SeededBehaviour(ServiceBehaviour(**changed), seed=seed, clock=Stopwatch())


EVERYTHING = {
    "chance_unavailable": 0.2,
    "chance_hang": 0.1,
    "chance_lose_reply": 0.3,
    "chance_slow": 0.2,
    "chance_refuse": 0.2,
}


async def test_the_same_seed_gives_the_same_trouble_in_any_order() -> None:
    """Two runs of the same calls, shuffled and interleaved differently, meet the same."""
    calls = [call(f"s{n}", attempt=attempt) for n in range(60) for attempt in (1, 2)]
    stories = []
    for shuffle in range(3):
        behaviour = troubled(**EVERYTHING)
        shuffled = random.Random(shuffle).sample(calls, len(calls))
        met = await asyncio.gather(*(observe(behaviour, one) for one in shuffled))
        refused = {one.saga_id for one in shuffled if behaviour.refuses(one)}
        by_call = dict(zip(((c.saga_id, c.attempt) for c in shuffled), met, strict=True))
        stories.append((by_call, refused))
    assert stories[0] == stories[1] == stories[2]
    assert len(set(stories[0][0].values())) == 4


async def test_another_seed_gives_other_trouble() -> None:
    calls = [call(f"s{n}") for n in range(60)]
    met = [[await observe(troubled(seed, **EVERYTHING), one) for one in calls] for seed in (1, 2)]
    assert met[0] != met[1]


async def test_a_retry_and_an_undo_draw_anew() -> None:
    behaviour = troubled(chance_unavailable=0.5)
    met = {
        (verb, attempt): [await observe(behaviour, call(f"s{n}", verb, attempt)) for n in range(40)]
        for verb in (ACTION, COMPENSATION)
        for attempt in (1, 2)
    }
    assert len({tuple(story) for story in met.values()}) == 4


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
async def test_trouble_strikes_as_often_as_it_was_told_to(chance: float) -> None:
    behaviour = troubled(chance_unavailable=chance)
    met = Counter([await observe(behaviour, call(f"s{n}")) for n in range(2_000)])
    # Four standard deviations; the draws are fixed by the seed, so this never flickers.
    tolerance = 4 * (2_000 * chance * (1 - chance)) ** 0.5
    assert abs(met[Code.SERVICE_UNAVAILABLE] - 2_000 * chance) <= tolerance


async def test_a_refusal_by_chance_is_the_same_on_every_attempt() -> None:
    behaviour = troubled(chance_refuse=0.5)
    for n in range(50):
        answers = {behaviour.refuses(call(f"s{n}", attempt=attempt)) for attempt in range(1, 6)}
        assert len(answers) == 1
        assert not behaviour.refuses(call(f"s{n}", COMPENSATION))


async def test_compensations_can_be_spared() -> None:
    behaviour = troubled(chance_unavailable=1.0, compensations_spared=True)
    assert await observe(behaviour, call("a")) == Code.SERVICE_UNAVAILABLE
    assert await observe(behaviour, call("a", COMPENSATION)) == "answered"


@pytest.mark.parametrize("verb", [QUESTION, RELEASE])
async def test_questions_and_releases_meet_no_trouble(verb: int) -> None:
    behaviour = troubled(
        chance_unavailable=1.0,
        chance_lose_reply=1.0,
        latency={"distribution": "constant", "constant_ms": 5},
    )
    assert await observe(behaviour, call("a", verb)) == "answered"


@pytest.mark.parametrize(
    ("latency", "median_ms"),
    [
        ({"distribution": "none"}, 0.0),
        ({"distribution": "constant", "constant_ms": 5}, 5.0),
        ({"distribution": "uniform", "low_ms": 2, "high_ms": 4}, 3.0),
        ({"distribution": "exponential", "mean_ms": 10}, 6.931),
        ({"distribution": "lognormal", "median_ms": 8, "sigma": 0.7}, 8.0),
    ],
)
async def test_latency_follows_its_distribution(latency: Any, median_ms: float) -> None:
    clock = Stopwatch()
    behaviour = SeededBehaviour(ServiceBehaviour(latency=latency), seed=1, clock=clock)
    for n in range(999):
        await behaviour.before(call(f"s{n}"))
    waits_ms = sorted(clock.waits_ms) or [0.0]
    assert waits_ms[len(waits_ms) // 2] == pytest.approx(median_ms, rel=0.12)
    assert all(0 <= wait_ms <= DELAY_MS_MAX for wait_ms in waits_ms)


@pytest.mark.parametrize(
    "latency",
    [
        {"distribution": "uniform", "low_ms": 4, "high_ms": 2},
        {"distribution": "constant", "constant_ms": -1},
        {"distribution": "gamma"},
        {"constant_ms": 1},
        {"distribution": "none", "mean_ms": 1},
    ],
)
def test_latencies_that_make_no_sense_are_refused(latency: Any) -> None:
    with pytest.raises(ValidationError):
        LATENCIES.validate_python(latency)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0 - 2**-53])
def test_every_draw_gives_a_delay(draw: float) -> None:
    for latency in (
        {"distribution": "exponential", "mean_ms": 10},
        {"distribution": "lognormal", "median_ms": 8, "sigma": 5},
        {"distribution": "uniform", "low_ms": 0, "high_ms": 1},
    ):
        delay_ms = LATENCIES.validate_python(latency).delay_ms(draw)
        assert 0.0 <= delay_ms < float("inf")


async def test_a_slow_call_is_slow_even_without_latency() -> None:
    clock = Stopwatch()
    behaviour = SeededBehaviour(
        ServiceBehaviour(chance_slow=1.0, slow_ms_min=70.0), seed=1, clock=clock
    )
    await behaviour.before(call("a"))
    assert clock.waits_ms == [70.0]
    behaviour = SeededBehaviour(
        ServiceBehaviour(
            chance_slow=1.0,
            slow_factor=20.0,
            latency={"distribution": "constant", "constant_ms": 5},
        ),
        clock=clock,
    )
    await behaviour.before(call("a"))
    assert clock.waits_ms == [70.0, 100.0]


async def test_a_hanging_call_ends_when_it_is_cancelled(open_house: OpenHouse) -> None:
    """The sender's time-out frees the slot, and nothing was done."""
    house = await open_house(inventory(scripted=[{"trouble": "hang"}]))
    request = order(items=items(milk=1))
    reply = await house.act("a", request, timeout_ms=30)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.TIMEOUT)
    assert house.server.stats()["in_flight"] == 0
    assert [line.reserved for line in stock_lines(house.ledger)] == [0]
    assert (await house.act("a", request, attempt=2)).outcome == Outcome.SUCCEEDED


def inventory(**behaviour: Any) -> Any:
    settings = ServicesSettings.calm(
        inventory={"stock": {"items": {"milk": 9}}, "behaviour": behaviour}
    )
    return lambda: build_participant("inventory", settings)


async def deliver(house: House, one: StepCall) -> list[StepReply]:
    """Deliver one call, and return what has come back when the server is at rest."""
    replies: list[StepReply] = []
    house.server.deliver([one], replies.append)
    # Nobody is told of a reply that is lost, so there is nothing else to wait on.
    while house.server.stats()["unanswered"]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return replies


async def test_a_lost_reply_was_done_once(open_house: OpenHouse) -> None:
    house = await open_house(inventory(scripted=[{"trouble": "lose_reply", "calls": 2}]))
    request = order(items=items(milk=1))
    for attempt in (1, 2):
        one = house.call(ACTION, "a", request, operation="reserve", attempt=attempt)
        assert await deliver(house, one) == []
    third = await house.act("a", request, attempt=3)
    assert third.outcome == Outcome.SUCCEEDED
    assert third.duplicate
    assert [line.reserved for line in stock_lines(house.ledger)] == [1]


async def test_a_refusal_by_chance_is_stored_like_any_other(open_house: OpenHouse) -> None:
    house = await open_house(inventory(chance_refuse=1.0))
    request = order(items=items(milk=1))
    for attempt in (1, 2):
        reply = await house.act("a", request, attempt=attempt)
        assert (reply.outcome, reply.code, reply.stored) == (
            Outcome.REFUSED,
            "INSUFFICIENT_STOCK",
            True,
        )
    assert reply.duplicate
    assert (await house.undo("a", request)).outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("inventory", "INSUFFICIENT_STOCK"),
        ("payment", "PAYMENT_DECLINED"),
        ("shipping", "NO_CARRIER_CAPACITY"),
        ("notification", "RECIPIENT_REFUSED"),
    ],
)
async def test_every_service_refuses_by_chance_with_a_code_of_its_own(
    name: str, code: str, open_house: OpenHouse
) -> None:
    settings = ServicesSettings.calm(**{name: {"behaviour": {"chance_refuse": 1.0}}})
    house = await open_house(lambda: build_participant(name, settings))
    if name == "inventory":
        house.service.load(house.ledger, settings_stock())  # type: ignore[attr-defined]
    reply = await house.act("a", order())
    assert (reply.outcome, reply.code) == (Outcome.REFUSED, code)
    assert reply.message.startswith("simulated")


def settings_stock() -> Any:
    stock = ServicesSettings.calm(inventory={"stock": {"default": 9}}).inventory.stock
    assert stock is not None
    return stock


async def test_scripted_faults_strike_the_next_calls_that_match() -> None:
    behaviour = troubled(
        scripted=[
            ScriptedFault(trouble=Trouble.UNAVAILABLE, calls=2, operation="charge"),
            ScriptedFault(trouble=Trouble.LOSE_REPLY, saga_id="special"),
        ]
    )
    assert behaviour.scripted_calls_left == 3
    assert await observe(behaviour, call("a", operation="refund")) == "answered"
    assert await observe(behaviour, call("a")) == Code.SERVICE_UNAVAILABLE
    assert await observe(behaviour, call("b")) == Code.SERVICE_UNAVAILABLE
    assert await observe(behaviour, call("c")) == "answered"
    assert await observe(behaviour, call("special")) == "lost"
    assert await observe(behaviour, call("special", attempt=2)) == "answered"
    behaviour.script(ScriptedFault(trouble=Trouble.HANG))
    assert await observe(behaviour, call("d")) == Code.TIMEOUT
    assert behaviour.scripted_calls_left == 0


async def test_a_scripted_refusal_is_the_same_when_the_handler_runs_again() -> None:
    behaviour = troubled(scripted=[ScriptedFault(trouble=Trouble.REFUSE)])
    assert behaviour.refuses(call("a"))
    assert behaviour.refuses(call("a"))
    assert not behaviour.refuses(call("b"))
    behaviour.script(ScriptedFault(trouble=Trouble.REFUSE, calls=3))
    behaviour.clear_script()
    assert not behaviour.refuses(call("c"))


async def test_scripted_faults_of_many_tasks_strike_the_right_number_of_calls() -> None:
    behaviour = troubled(scripted=[ScriptedFault(trouble=Trouble.UNAVAILABLE, calls=25)])
    met = await asyncio.gather(*(observe(behaviour, call(f"s{n}")) for n in range(200)))
    assert Counter(met) == {Code.SERVICE_UNAVAILABLE: 25, "answered": 175}


@pytest.mark.parametrize(
    "wrong", [{"chance_hang": 1.1}, {"chance_slow": -0.1}, {"chance": 0.5}, {"slow_factor": 0}]
)
def test_behaviours_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ServiceBehaviour(**wrong)


def test_a_calm_service_needs_no_behaviour_around_it() -> None:
    calm = build_participant("payment", ServicesSettings.calm())
    assert calm.behaviour is None
    lively = build_participant("payment", ServicesSettings.lively())
    assert lively.behaviour is lively.trouble
    scripted = ServicesSettings.calm(payment={"behaviour": {"scripted": [{"trouble": "hang"}]}})
    assert build_participant("payment", scripted).behaviour is not None
