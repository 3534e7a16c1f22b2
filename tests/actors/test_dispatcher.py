"""One way to one participant: one answer to each call, whatever happens, within bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.actors.breaker import CircuitState
from raysaga.actors.settings import EngineSettings
from raysaga.actors.wire import MESSAGE_BYTES_MAX
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

from .far_end import Desk, call_of, done
from .virtual_time import in_virtual_time, turns, until, virtual_loop


@in_virtual_time
async def test_a_call_is_answered_with_the_reply_to_it() -> None:
    desk = Desk()
    desk.send(call_of(1))
    reply = await desk.answer(1)
    assert (reply.outcome, reply.result, reply.stored) == (Outcome.SUCCEEDED, {"n": 1}, True)
    assert desk.dispatcher.in_flight_count == desk.dispatcher.queued_count == 0


@in_virtual_time
async def test_a_refusal_is_handed_over_as_it_is() -> None:
    desk = Desk()
    desk.respond = lambda call: reply_to(call, Outcome.REFUSED, code="NO", stored=True)
    desk.send(call_of(1))
    reply = await desk.answer(1)
    assert (reply.outcome, reply.code, reply.stored) == (Outcome.REFUSED, "NO", True)


@in_virtual_time
async def test_a_call_without_a_reply_times_out_and_a_late_reply_changes_nothing() -> None:
    desk = Desk()
    desk.delay_s = lambda _call: 0.4
    desk.send(call_of(1, timeout_ms=200))
    reply = await desk.answer(1)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.TIMEOUT)
    assert 200 <= desk.answered_at_ms[1] <= 210
    desk.send(call_of(2))
    await desk.answer(2)
    await asyncio.sleep(1.0)
    assert desk.answers[1] is reply
    assert desk.dispatcher.timeout_count == 1


@in_virtual_time
async def test_a_short_time_out_is_not_held_up_by_a_longer_one_before_it() -> None:
    """Two steps at one participant may wait for very different times."""
    desk = Desk()
    desk.respond = lambda _call: None
    desk.send(call_of(1, timeout_ms=5_000))
    await turns()
    desk.send(call_of(2, timeout_ms=100))
    await desk.answer(2, within_s=0.2)
    await desk.answer(1)
    assert 5_000 <= desk.answered_at_ms[1] <= 5_010


@in_virtual_time
async def test_a_lost_exchange_answers_every_call_in_flight_and_then_all_is_well() -> None:
    desk = Desk()
    desk.lose_answers = 1
    for n in (1, 2, 3):
        desk.send(call_of(n))
    for n in (1, 2, 3):
        reply = await desk.answer(n)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.SERVICE_UNAVAILABLE)
    desk.send(call_of(4))
    assert (await desk.answer(4)).outcome == Outcome.SUCCEEDED


@in_virtual_time
async def test_a_participant_that_is_not_there_is_a_reply_that_nothing_is_known() -> None:
    desk = Desk()
    desk.is_cut = True
    desk.send(call_of(1))
    assert (await desk.answer(1)).code == Code.SERVICE_UNAVAILABLE
    assert desk.arrived == []


@pytest.mark.parametrize(
    "strange",
    [
        {"saga_id": "d:other"},
        {"step": "other"},
        {"verb": COMPENSATION},
        {"epoch": 2},
        {"attempt": 2},
        {"call_id": 99},
    ],
    ids=lambda strange: next(iter(strange)),
)
def test_a_reply_that_does_not_echo_the_call_is_ignored(strange: dict[str, Any]) -> None:
    @in_virtual_time
    async def story() -> None:
        desk = Desk()
        desk.respond = lambda call: done(call)._replace(**strange)
        desk.send(call_of(1, timeout_ms=300))
        assert (await desk.answer(1)).code == Code.TIMEOUT

    story()


@pytest.mark.parametrize(
    "garbage",
    [
        [],
        [1],
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
        7,
        None,
        ["x"] * 7,
        [[1]] * 13,
        [[1], 0, "d:1", "s", 3, 1, 1, {}, "", "", True, 0, False],
        [1, 0, "d:1", "s", 3, 1, 1, "a result", "", "", True, 0, False],
        [1, 0, "d:1", "s", 3, 1, 1, {}, 5, "", True, 0, False],
    ],
    ids=lambda garbage: f"{garbage}"[:40],
)
def test_garbage_among_the_replies_harms_no_other_call(garbage: Any) -> None:
    """A participant may run a version of its own, or be broken."""

    @in_virtual_time
    async def story() -> None:
        desk = Desk()
        desk.respond = lambda call: garbage if call.call_id == 1 else done(call)
        desk.send(call_of(1, timeout_ms=300))
        desk.send(call_of(2))
        desk.send(call_of(3))
        for n in (2, 3):
            assert (await desk.answer(n)).outcome == Outcome.SUCCEEDED
        assert (await desk.answer(1)).outcome == Outcome.UNKNOWN

    story()


@in_virtual_time
async def test_a_result_that_the_journal_would_refuse_is_no_success() -> None:
    deep: Any = "bottom"
    for _ in range(40):
        deep = {"down": deep}
    desk = Desk()
    desk.respond = lambda call: done(call)._replace(result={"deep": deep})
    desk.send(call_of(1))
    reply = await desk.answer(1, within_s=1.0)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.INTERNAL_ERROR)
    assert (reply.result, reply.stored) == (None, False)
    assert "nested deeper" in reply.message


@in_virtual_time
async def test_a_call_that_cannot_be_sent_is_answered_too() -> None:
    """Too large for a message, or no plain data: nobody else may suffer for it."""
    desk = Desk()
    desk.send(call_of(1, request={"text": "x" * MESSAGE_BYTES_MAX}))
    desk.send(call_of(2, request={"object": object()}))
    desk.send(call_of(3))
    assert (await desk.answer(3)).outcome == Outcome.SUCCEEDED
    for n in (1, 2):
        reply = await desk.answer(n)
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.INVALID_REQUEST)
        assert not reply.stored
    assert [call.call_id for call in desk.arrived] == [3]
    assert desk.dispatcher.in_flight_count == 0


@in_virtual_time
async def test_no_more_calls_are_in_flight_than_the_bound_and_the_rest_follow() -> None:
    desk = Desk(EngineSettings(participant_in_flight_max=3))
    desk.delay_s = lambda _call: 0.1
    for n in range(1, 11):
        desk.send(call_of(n))
    await turns()
    most = 0
    while len(desk.answers) < 10:
        most = max(most, desk.dispatcher.in_flight_count)
        await asyncio.sleep(0.01)
    assert most == 3
    assert all(reply.outcome == Outcome.SUCCEEDED for reply in desk.answers.values())


@in_virtual_time
async def test_a_call_that_had_to_wait_arrives_as_it_was_given() -> None:
    desk = Desk(EngineSettings(participant_in_flight_max=1))
    desk.delay_s = lambda _call: 0.1
    request = {"items": [{"item_id": "milk", "quantity": 2}], "note": None}
    for n in (1, 2, 3):
        desk.send(call_of(n, request=request))
    # A retry waits for the budget first.
    desk.send(call_of(4, attempt=2, request=request))
    await desk.answer(4)
    assert [call.request for call in desk.arrived] == [request] * 4


@in_virtual_time
async def test_beyond_the_queue_an_attempt_ends_as_overloaded_at_once() -> None:
    desk = Desk(EngineSettings(participant_in_flight_max=1, participant_queued_max=2))
    desk.delay_s = lambda _call: 0.1
    for n in range(1, 6):
        desk.send(call_of(n))
    await turns()
    assert sorted(desk.answers) == [4, 5]
    for reply in desk.answers.values():
        assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, Code.OVERLOADED)
        assert reply.retry_after_ms > 0
    await until(lambda: len(desk.answers) == 5)
    assert len(desk.arrived) == 3


@in_virtual_time
async def test_compensations_go_first_then_actions_then_releases() -> None:
    desk = Desk(EngineSettings(participant_in_flight_max=1))
    desk.delay_s = lambda _call: 0.01
    desk.send(call_of(1))
    for n, verb in ((2, RELEASE), (3, ACTION), (4, QUESTION), (5, COMPENSATION), (6, COMPENSATION)):
        desk.send(call_of(n, verb))
    await until(lambda: len(desk.answers) == 6)
    assert [call.call_id for call in desk.arrived] == [1, 5, 6, 3, 4, 2]


@in_virtual_time
async def test_the_circuit_opens_answers_here_probes_and_closes() -> None:
    bounds = EngineSettings(
        exchange_hold_ms=100,
        exchange_grace_ms=100,
        breaker_failures_min=3,
        breaker_open_ms_first=1_000,
        breaker_probes=1,
    )
    desk = Desk(bounds)
    desk.respond = lambda _call: None
    for n in (1, 2, 3):
        desk.send(call_of(n, timeout_ms=50))
    await until(lambda: len(desk.answers) == 3)
    assert desk.dispatcher.breaker.state is CircuitState.OPEN
    desk.send(call_of(4))
    reply = await desk.answer(4, within_s=0.01)
    assert (reply.code, reply.retry_after_ms > 0) == (Code.SERVICE_UNAVAILABLE, True)
    assert len(desk.arrived) == 3
    await asyncio.sleep(1.1)
    desk.respond = done
    desk.send(call_of(5))
    desk.send(call_of(6))
    # One probe passes; until it is answered the others are told to wait.
    assert (await desk.answer(6, within_s=0.01)).code == Code.SERVICE_UNAVAILABLE
    assert (await desk.answer(5)).outcome == Outcome.SUCCEEDED
    assert desk.dispatcher.breaker.state is CircuitState.CLOSED
    desk.send(call_of(7))
    assert (await desk.answer(7)).outcome == Outcome.SUCCEEDED


@in_virtual_time
async def test_a_participant_that_says_it_is_busy_lives() -> None:
    desk = Desk(EngineSettings(breaker_failures_min=3))
    desk.respond = lambda call: reply_to(call, Outcome.UNKNOWN, code=Code.OVERLOADED)
    for n in range(1, 10):
        desk.send(call_of(n))
    await until(lambda: len(desk.answers) == 9)
    assert desk.dispatcher.breaker.state is CircuitState.CLOSED


@in_virtual_time
async def test_a_storm_of_retries_is_no_larger_than_the_budget() -> None:
    """An outage with many sagas under way: their retries must not become the next outage."""
    bounds = EngineSettings(
        retry_budget_max=20,
        retry_budget_per_s=10,
        retry_budget_ratio=0.1,
        breaker_failures_min=100_000,
    )
    desk = Desk(bounds)
    desk.respond = lambda call: reply_to(call, Outcome.UNKNOWN, code="BUSY")
    for n in range(1, 1_001):
        desk.send(call_of(n, attempt=2))
    await asyncio.sleep(10.0)
    arrived = len(desk.arrived)
    assert arrived <= 20 + 10 * 10 + 2
    assert arrived >= 100, "what was earned is used"
    await until(lambda: len(desk.answers) == 1_000)
    assert Counter(reply.code for reply in desk.answers.values()) == {"BUSY": 1_000}


@in_virtual_time
async def test_retries_that_wait_for_the_budget_cost_next_to_nothing_and_have_a_bound() -> None:
    bounds = EngineSettings(retry_budget_max=1, retry_budget_per_s=1, participant_queued_max=5_000)
    desk = Desk(bounds)
    desk.respond = lambda _call: None
    looks = 0
    spend = desk.dispatcher._budget.spend

    def counted(now_ms: float) -> bool:
        nonlocal looks
        looks += 1
        return spend(now_ms)

    desk.dispatcher._budget.spend = counted  # type: ignore[method-assign]
    for n in range(1, 6_001):
        desk.send(call_of(n, attempt=2))
    await turns()
    overloaded = [n for n, r in desk.answers.items() if r.code == Code.OVERLOADED]
    assert len(overloaded) >= 999
    looks = 0
    await asyncio.sleep(10.0)
    assert looks <= 400, "thousands that wait must not each look at the budget ten times a second"


@in_virtual_time
async def test_retries_that_come_to_an_end_make_room_for_others() -> None:
    """After an outage all that waits is a retry, and the participant is well and has nothing to do.

    Seen when every process was killed and the shard was back before a service: two thousand
    sagas went on at fifty a second, for forty seconds.
    """
    desk = Desk(EngineSettings(retry_budget_max=8, retry_budget_per_s=5))
    for n in range(1, 2_001):
        desk.send(call_of(n, ACTION if n % 2 else COMPENSATION, attempt=2))
    await until(lambda: len(desk.answers) == 2_000, within_s=5.0)
    assert {reply.outcome for reply in desk.answers.values()} == {Outcome.SUCCEEDED}


def overloaded(call: StepCall) -> StepReply:
    return reply_to(call, Outcome.UNKNOWN, code=Code.OVERLOADED)


@pytest.mark.parametrize("respond", [overloaded, lambda _call: None], ids=["overloaded", "silent"])
@in_virtual_time
async def test_retries_that_come_to_nothing_stay_within_the_budget(
    respond: Callable[[StepCall], StepReply | None],
) -> None:
    desk = Desk(EngineSettings(retry_budget_max=8, retry_budget_per_s=5))
    desk.respond = respond
    for n in range(1, 1_001):
        desk.send(call_of(n, attempt=2, timeout_ms=100))
    await asyncio.sleep(4.0)
    assert len(desk.arrived) <= 8 + 4 * 5


@in_virtual_time
async def test_a_first_try_needs_no_budget() -> None:
    desk = Desk(EngineSettings(retry_budget_max=1, retry_budget_per_s=0.001))
    for n in range(1, 50):
        desk.send(call_of(n))
    await until(lambda: len(desk.answers) == 49, within_s=1.0)
    assert desk.clock.monotonic_ms() < 1_000


@in_virtual_time
async def test_a_closed_dispatcher_sends_and_answers_nothing_more() -> None:
    desk = Desk(EngineSettings(retry_budget_max=1, retry_budget_per_s=100))
    desk.respond = lambda _call: None
    desk.send(call_of(1, timeout_ms=500))
    desk.send(call_of(2, attempt=2, timeout_ms=500))
    desk.send(call_of(3, attempt=2, timeout_ms=500))
    await asyncio.sleep(0.005)
    arrived = len(desk.arrived)
    await desk.dispatcher.close()
    desk.send(call_of(4, timeout_ms=100))
    await asyncio.sleep(5.0)
    assert desk.answers == {}
    assert len(desk.arrived) == arrived


@in_virtual_time
async def test_who_sends_again_from_within_an_answer_is_served() -> None:
    desk = Desk(EngineSettings(breaker_failures_min=2, breaker_open_ms_first=60_000))
    desk.is_cut = True
    seen: list[str] = []

    def again(reply: StepReply) -> None:
        seen.append(reply.code)
        if len(seen) < 50:
            desk.dispatcher.send(call_of(len(seen) + 1), again)

    desk.dispatcher.send(call_of(1), again)
    await until(lambda: len(seen) == 50, within_s=5.0)
    assert set(seen) == {Code.SERVICE_UNAVAILABLE}


CHAOS = st.lists(
    st.tuples(
        st.integers(0, 40),  # pause in milliseconds
        st.sampled_from([ACTION, COMPENSATION, RELEASE, QUESTION]),
        st.integers(1, 3),  # attempt
        st.sampled_from(["done", "silent", "slow", "wrong"]),
        st.sampled_from([None, None, None, "cut", "heal", "lose"]),
    ),
    min_size=1,
    max_size=60,
)


@given(plan=CHAOS, in_flight=st.integers(1, 6), queued=st.integers(1, 20))
@settings(max_examples=120, deadline=None)
def test_each_call_gets_exactly_one_answer_whatever_happens(
    plan: list[tuple[int, int, int, str, str | None]], in_flight: int, queued: int
) -> None:
    async def story() -> None:
        desk = Desk(
            EngineSettings(
                exchange_hold_ms=50,
                exchange_grace_ms=50,
                participant_in_flight_max=in_flight,
                participant_queued_max=queued,
                breaker_failures_min=4,
                retry_budget_max=3,
                retry_budget_per_s=20,
            )
        )
        moods: dict[int, str] = {}

        def respond(call: StepCall) -> StepReply | None:
            mood = moods[call.call_id]
            if mood == "silent":
                return None
            return done(call)._replace(step="other") if mood == "wrong" else done(call)

        desk.respond = respond
        desk.delay_s = lambda call: 0.3 if moods[call.call_id] == "slow" else 0.0
        for n, (pause_ms, verb, attempt, mood, trouble) in enumerate(plan, 1):
            await asyncio.sleep(pause_ms / 1_000)
            if trouble == "lose":
                desk.lose_answers += 1
            elif trouble is not None:
                desk.is_cut = trouble == "cut"
            moods[n] = mood
            desk.send(call_of(n, verb, attempt=attempt, timeout_ms=100 + 10 * n))
            assert desk.dispatcher.in_flight_count <= in_flight
            assert desk.dispatcher.queued_count <= queued
        await until(lambda: len(desk.answers) == len(plan))
        await asyncio.sleep(5.0)
        assert max(Counter(call.call_id for call in desk.arrived).values(), default=1) == 1
        assert desk.dispatcher.in_flight_count == desk.dispatcher.queued_count == 0

    with virtual_loop() as loop:
        loop.run(story())
