"""A lane and a landing: nothing lost, nothing doubled, nothing open when nothing is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.actors.lane import Landing, Lane
from raysaga.actors.settings import EngineSettings
from raysaga.actors.wire import MESSAGE_BYTES_MAX, pack_message, unpack_messages
from raysaga.statemachines.errors import ValidationError

from .virtual_time import VirtualClock, in_virtual_time, turns, until, virtual_loop


class Pair:
    """A sender and a responder that answers `n` with `-n`, after what `delay_s` says.

    Attributes:
        batches: What each exchange carried to the responder.
        open_now: Exchanges under way.
        lose: Asked at each exchange: None, or `before` or `after` delivery.
    """

    def __init__(self, *, under_way: int | None = None, **bounds: Any) -> None:
        loop = asyncio.get_running_loop()
        self.settings = EngineSettings(**bounds)
        self.asked: list[int] = []
        self.replies: list[int] = []
        self.failures: list[BaseException] = []
        self.defects: list[BaseException] = []
        self.batches: list[list[Any]] = []
        self.open_now = 0
        self.open_most = 0
        self.lose: Callable[[list[Any]], str | None] = lambda _messages: None
        self.delay_s: Callable[[int], float | None] = lambda _n: 0.0
        self.wire_s = 0.001
        self.landing = Landing(self._asked, self.settings)
        self.lane = Lane(
            sender="one",
            exchange=self._exchange,
            receive=self._received,
            failed=self.failures.append,
            defect=self.defects.append,
            expects=lambda: len(self.replies) < len(self.asked) and self.is_waiting,
            clock=VirtualClock(loop),  # type: ignore[arg-type]
            settings=self.settings,
            under_way=None if under_way is None else lambda: under_way,
        )
        self.is_waiting = True

    def ask(self, *numbers: int) -> None:
        for n in numbers:
            self.asked.append(n)
            self.lane.put((n,))

    async def _exchange(self, batch: bytes) -> bytes:
        messages = unpack_messages(batch)[1:]
        self.batches.append(messages)
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        how = self.lose(messages)
        try:
            await asyncio.sleep(self.wire_s)
            if how == "before":
                raise ConnectionError("lost on the way there")
            if how == "hangs":
                await asyncio.get_running_loop().create_future()
            answer = await self.landing.exchange(batch)
            await asyncio.sleep(self.wire_s)
            if how == "after":
                raise ConnectionError("lost on the way back")
            return answer
        finally:
            self.open_now -= 1

    def _asked(self, sender: str, messages: list[list[Any]]) -> None:
        loop = asyncio.get_running_loop()
        for (n,) in messages:
            delay_s = self.delay_s(n)
            if delay_s is None:
                continue
            if delay_s:
                loop.call_later(delay_s, self.landing.push, sender, (-n,))
            else:
                self.landing.push(sender, (-n,))

    def _received(self, messages: list[list[Any]]) -> None:
        self.replies.extend(-n for (n,) in messages)

    async def all_answered(self) -> None:
        await until(lambda: len(self.replies) >= len(self.asked))


def replies_in(answer: bytes) -> list[Any]:
    """Return the replies of an answer; before them stands the outbox that they come from."""
    return unpack_messages(answer)[1:]


@in_virtual_time
async def test_what_is_put_in_one_turn_leaves_in_one_exchange_and_comes_back_in_one() -> None:
    pair = Pair()
    pair.ask(1, 2, 3)
    await pair.all_answered()
    assert pair.batches[0] == [[1], [2], [3]]
    assert pair.replies == [1, 2, 3]
    assert pair.lane.exchange_count == 1


@in_virtual_time
async def test_what_queues_while_exchanges_are_under_way_goes_in_the_next_one() -> None:
    pair = Pair()
    pair.delay_s = lambda _n: 0.1
    for n in range(1, 6):
        pair.ask(n)
        await turns()
    await pair.all_answered()
    # Two are open at once; what came while they were goes along together.
    assert pair.batches[:3] == [[[1]], [[2]], [[3], [4], [5]]]
    assert sorted(pair.replies) == [1, 2, 3, 4, 5]


@in_virtual_time
async def test_no_more_exchanges_are_open_than_the_bound_says() -> None:
    pair = Pair(exchanges_open_max=3, batch_items_max=2)
    pair.delay_s = lambda n: 0.02 * (n % 7)
    for n in range(1, 60):
        pair.ask(n)
        await asyncio.sleep(0.003)
    await pair.all_answered()
    assert pair.open_most <= 3
    assert max(map(len, pair.batches)) <= 2


@in_virtual_time
async def test_all_that_is_under_way_does_not_go_in_one_batch() -> None:
    """Else one end would always stand still: it has sent everything, or has everything."""
    for under_way, sizes in ((20, [20]), (64, [32, 32]), (101, [51, 50]), (600, [256, 256, 88])):
        pair = Pair(under_way=under_way)
        pair.ask(*range(1, under_way + 1))
        await pair.all_answered()
        assert [len(batch) for batch in pair.batches if batch] == sizes
        assert sorted(pair.replies) == pair.asked


@in_virtual_time
async def test_a_slow_answer_delays_no_other_one() -> None:
    pair = Pair()
    pair.delay_s = lambda n: 1.0 if n == 1 else 0.0
    pair.ask(1)
    await asyncio.sleep(0.01)
    pair.ask(2)
    await until(lambda: pair.replies == [2], within_s=0.1)
    await pair.all_answered()
    assert pair.replies == [2, 1]


@in_virtual_time
async def test_answers_come_with_whatever_exchange_is_open() -> None:
    """The question came with the first exchange, which a newer one has released."""
    pair = Pair()
    pair.delay_s = lambda n: 0.5 if n == 1 else None
    pair.ask(1)
    await asyncio.sleep(0.1)
    pair.ask(2)
    await until(lambda: pair.replies == [1], within_s=1.0)
    assert pair.batches[:2] == [[[1]], [[2]]]


@in_virtual_time
async def test_a_newer_exchange_releases_the_older_one() -> None:
    pair = Pair()
    landing = pair.landing
    first = asyncio.ensure_future(landing.exchange(pack_message("one")))
    await turns()
    second = asyncio.ensure_future(landing.exchange(pack_message("one")))
    other = asyncio.ensure_future(landing.exchange(pack_message("two")))
    await turns()
    assert (first.done(), second.done(), other.done()) == (True, False, False)
    assert replies_in(first.result()) == []
    landing.push("one", (7,))
    assert replies_in(await second) == [[7]]
    assert not other.done()
    landing.push("two", (8,))
    assert replies_in(await other) == [[8]]


@in_virtual_time
async def test_an_exchange_that_comes_late_hands_over_and_takes_nothing_away() -> None:
    """Its sender has given it up: what it took along would reach nobody, and nobody would know."""
    pair = Pair()
    landing = pair.landing
    waiting = asyncio.ensure_future(landing.exchange(pack_message(("one", 2))))
    await turns()
    pair.delay_s = lambda _n: 0.1
    late = asyncio.ensure_future(landing.exchange(pack_message(("one", 1)) + pack_message((7,))))
    await turns()
    assert (waiting.done(), replies_in(late.result())) == (False, [])
    assert replies_in(await waiting) == [[-7]]
    landing.push("one", (8,))
    again = await landing.exchange(pack_message(("one", 2)))
    assert replies_in(again) == []
    assert replies_in(await landing.exchange(pack_message(("one", 3)))) == [[8]]


@in_virtual_time
async def test_replies_pushed_in_one_turn_come_together() -> None:
    pair = Pair()
    waiting = asyncio.ensure_future(pair.landing.exchange(pack_message("one")))
    await turns()
    for n in range(5):
        pair.landing.push("one", (n,))
    assert replies_in(await waiting) == [[0], [1], [2], [3], [4]]


@in_virtual_time
async def test_an_exchange_is_held_no_longer_than_the_bound_and_then_opened_again() -> None:
    pair = Pair(exchange_hold_ms=100)
    pair.delay_s = lambda _n: 0.55
    pair.ask(1)
    await pair.all_answered()
    assert pair.failures == []
    assert pair.lane.exchange_count == 6


@in_virtual_time
async def test_idle_costs_nothing() -> None:
    pair = Pair(exchange_hold_ms=50)
    pair.ask(1)
    await pair.all_answered()
    before = pair.lane.exchange_count
    await asyncio.sleep(30.0)
    assert (pair.lane.exchange_count, pair.open_now) == (before, 0)


@pytest.mark.parametrize("how", ["before", "after"])
def test_a_lost_exchange_is_told_once_and_the_lane_goes_on(how: str) -> None:
    @in_virtual_time
    async def story() -> None:
        pair = Pair()
        losses = iter([how])
        pair.lose = lambda _messages: next(losses, None)
        pair.ask(1)
        await until(lambda: pair.failures)
        assert pair.replies == []
        pair.asked.clear()
        pair.ask(2)
        await pair.all_answered()
        assert pair.replies == [2]
        assert [type(error) for error in pair.failures] == [ConnectionError]

    story()


@in_virtual_time
async def test_an_exchange_that_hangs_counts_as_lost_after_hold_and_grace() -> None:
    pair = Pair(exchange_hold_ms=200, exchange_grace_ms=300, exchanges_open_max=1)
    losses = iter(["hangs"])
    pair.lose = lambda _messages: next(losses, None)
    pair.ask(1)
    await asyncio.sleep(0.49)
    assert not pair.failures
    await until(lambda: pair.failures, within_s=0.1)
    pair.asked.clear()
    pair.ask(2)
    await pair.all_answered()
    assert pair.replies == [2]


@in_virtual_time
async def test_a_lane_whose_other_end_is_gone_tries_a_few_times_a_second() -> None:
    pair = Pair()
    pair.lose = lambda _messages: "before"
    pair.ask(1)
    await asyncio.sleep(10.0)
    assert 15 <= pair.lane.exchange_count <= 40
    assert len(pair.failures) == pair.lane.exchange_count


@in_virtual_time
async def test_what_was_queued_and_dropped_does_not_leave() -> None:
    pair = Pair()
    pair.ask(1)
    pair.lane.drop_queued()
    pair.asked.clear()
    pair.ask(2)
    await pair.all_answered()
    assert pair.batches == [[[2]]]
    assert pair.lane.queued_count == 0


@in_virtual_time
async def test_an_outbox_keeps_the_newest_and_no_more_than_its_bound() -> None:
    pair = Pair(outbox_messages_max=3)
    for n in range(10):
        pair.landing.push("absent", (n,))
    answer = await pair.landing.exchange(pack_message("absent"))
    assert replies_in(answer) == [[7], [8], [9]]


@in_virtual_time
async def test_what_nobody_fetches_is_forgotten_after_ten_holds() -> None:
    pair = Pair(exchange_hold_ms=100)
    pair.landing.push("gone", (1,))
    for _ in range(12):
        await pair.landing.exchange(pack_message("here"))
    waiting = asyncio.ensure_future(pair.landing.exchange(pack_message("gone")))
    assert replies_in(await waiting) == []


@in_virtual_time
async def test_a_batch_that_cannot_be_read_is_refused_whole() -> None:
    pair = Pair()
    with pytest.raises(ValidationError):
        await pair.landing.exchange(pack_message("one") + b"\xc1")
    assert pair.batches == []


@in_virtual_time
async def test_a_message_that_is_no_plain_data_fails_its_sender_and_no_other() -> None:
    pair = Pair()
    pair.ask(1)
    with pytest.raises(ValidationError):
        pair.lane.put((object(),))
    with pytest.raises(ValidationError):
        pair.lane.put(("x" * MESSAGE_BYTES_MAX,))
    pair.ask(2)
    await pair.all_answered()
    assert pair.replies == [1, 2]


@in_virtual_time
async def test_large_messages_are_spread_over_exchanges_that_are_taken() -> None:
    """Nine of nearly the largest size are more than one batch may be."""
    pair = Pair()
    pair.lane._sender = "a name as long as that of a scope and an epoch"
    text = "x" * (MESSAGE_BYTES_MAX - 8)
    arrived: list[int] = []
    landing = Landing(lambda _s, messages: arrived.extend(m[0] for m in messages), pair.settings)
    pair.lane._exchange = landing.exchange
    for n in range(20):
        pair.lane.put((n, text))
    await until(lambda: len(arrived) == 20 or pair.failures)
    assert arrived == list(range(20))
    assert not pair.failures


@in_virtual_time
async def test_a_responder_that_restarted_between_two_exchanges_is_noticed() -> None:
    """No exchange was open, so none was lost; yet what was asked is known to nobody any more."""
    pair = Pair(exchange_hold_ms=100)
    pair.delay_s = lambda n: 10.0 if n == 1 else 0.0
    pair.ask(1)
    await asyncio.sleep(0.05)
    pair.landing = Landing(pair._asked, pair.settings)
    await until(lambda: pair.failures, within_s=1.0)
    assert len(pair.failures) == 1
    pair.asked.clear()
    pair.ask(2)
    await pair.all_answered()
    await asyncio.sleep(1.0)
    assert (pair.replies, len(pair.failures)) == ([2], 1)


@in_virtual_time
async def test_a_restart_that_broke_an_exchange_is_told_once() -> None:
    pair = Pair(exchange_hold_ms=100, exchanges_open_max=1)
    pair.delay_s = lambda n: 10.0 if n == 1 else 0.3
    losses = iter([None, "after"])
    pair.lose = lambda _messages: next(losses, None)
    pair.ask(1)
    # One exchange has told where the answers come from; the next one breaks.
    await until(lambda: pair.lane.exchange_count == 2)
    pair.landing = Landing(pair._asked, pair.settings)
    await until(lambda: pair.failures)
    pair.asked = [3]
    pair.replies.clear()
    pair.lane.put((3,))
    await until(lambda: 3 in pair.replies)
    await asyncio.sleep(1.0)
    assert [str(error) for error in pair.failures] == ["lost on the way back"]


@in_virtual_time
async def test_replies_that_were_thrown_away_are_noticed() -> None:
    """The sender stood still for a while, as in a debugger or on a closed lid."""
    pair = Pair(outbox_messages_max=3)
    pair.delay_s = lambda _n: 0.2
    pair.ask(1, 2, 3, 4, 5)
    await asyncio.sleep(0.1)
    pair.lane._open_count += pair.settings.exchanges_open_max
    for waiter in pair.landing._open.values():
        waiter.set_result(None)
    await asyncio.sleep(1.0)
    pair.lane._open_count -= pair.settings.exchanges_open_max
    pair.lane._pump_soon()
    await until(lambda: pair.failures, within_s=1.0)
    assert len(pair.replies) == 3


@in_virtual_time
async def test_a_lane_that_was_idle_for_long_takes_nothing_for_lost() -> None:
    pair = Pair(exchange_hold_ms=20)
    for n in range(1, 5):
        pair.ask(n)
        await pair.all_answered()
        await asyncio.sleep(5.0)
        await pair.landing.exchange(pack_message("another"))
        assert "one" not in pair.landing._outboxes
    assert pair.failures == []


@in_virtual_time
async def test_a_closed_lane_abandons_what_is_open_and_sends_nothing_more() -> None:
    pair = Pair()
    pair.delay_s = lambda _n: 1.0
    pair.ask(1)
    await asyncio.sleep(0.1)
    await pair.lane.close()
    pair.ask(2)
    await asyncio.sleep(3.0)
    assert pair.replies == []
    assert pair.failures == []
    assert pair.batches == [[[1]]]


ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 30),  # pause before, in milliseconds
        st.lists(st.integers(0, 60), min_size=1, max_size=12),  # delays of the answers
    ),
    max_size=25,
)


@given(
    arrivals=ARRIVALS,
    open_max=st.integers(1, 4),
    items_max=st.integers(1, 8),
    hold_ms=st.integers(10, 80),
    wire_ms=st.integers(0, 7),
)
@settings(max_examples=150, deadline=None)
def test_each_message_arrives_once_and_each_answer_too_whatever_the_pattern(
    arrivals: list[tuple[int, list[int]]], open_max: int, items_max: int, hold_ms: int, wire_ms: int
) -> None:
    async def story() -> None:
        pair = Pair(
            exchanges_open_max=open_max, batch_items_max=items_max, exchange_hold_ms=hold_ms
        )
        pair.wire_s = wire_ms / 1_000
        delays: dict[int, float] = {}
        pair.delay_s = lambda n: delays[n]
        for pause_ms, group in arrivals:
            await asyncio.sleep(pause_ms / 1_000)
            for delay_ms in group:
                n = len(pair.asked) + 1
                delays[n] = delay_ms / 1_000
                pair.ask(n)
        await pair.all_answered()
        await asyncio.sleep(1.0)
        assert [n for batch in pair.batches for (n,) in batch] == pair.asked
        assert sorted(pair.replies) == pair.asked
        assert pair.open_most <= open_max
        assert (pair.failures, pair.open_now) == ([], 0)

    with virtual_loop() as loop:
        loop.run(story())


@in_virtual_time
async def test_what_the_receiver_raises_is_told_as_a_defect_and_the_lane_goes_on() -> None:
    """A bug in the owner must not vanish with the task of an exchange."""
    pair = Pair()
    pair.landing.push("one", ("two", "fields"))
    pair.ask(1)
    await until(lambda: bool(pair.defects))
    assert isinstance(pair.defects[0], ValueError)
    pair.replies.append(1)
    pair.ask(2)
    await until(lambda: 2 in pair.replies)
    assert pair.failures == []
