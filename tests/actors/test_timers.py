"""Timers: each saga is looked at in time, soon after, and only as long as it is there."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.actors.timers import GRAIN_MS, STALE_MAX, Timers

from .virtual_time import VirtualClock, in_virtual_time, virtual_loop


class Bell:
    """Timers that note who was woken, and when."""

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())  # type: ignore[arg-type]
        self.began_at_ms = self.clock.now_ms()
        self.rung: list[tuple[str, int]] = []
        self.timers = Timers(
            self.clock, lambda who: self.rung.append((who, self.clock.now_ms() - self.began_at_ms))
        )

    def set(self, who: str, after_ms: int) -> None:
        self.timers.set(who, self.began_at_ms + after_ms)  # type: ignore[arg-type]


@in_virtual_time
async def test_who_is_due_first_is_woken_first_and_nobody_too_early() -> None:
    bell = Bell()
    for who, after_ms in (("c", 9_000), ("a", 40), ("b", 700)):
        bell.set(who, after_ms)
    await asyncio.sleep(20.0)
    assert [who for who, _ in bell.rung] == ["a", "b", "c"]
    for (_, at_ms), due_ms in zip(bell.rung, (40, 700, 9_000), strict=True):
        assert due_ms <= at_ms <= due_ms + GRAIN_MS + 1


@in_virtual_time
async def test_what_is_due_already_is_woken_at_once() -> None:
    bell = Bell()
    bell.set("late", -500)
    await asyncio.sleep(0.01)
    assert [who for who, _ in bell.rung] == ["late"]


@in_virtual_time
async def test_a_wall_clock_that_jumps_forward_is_noticed_within_a_second() -> None:
    bell = Bell()
    bell.set("a", 3_600_000)
    await asyncio.sleep(2.0)
    bell.clock.wall_offset_ms = 3_600_000
    await asyncio.sleep(1.1)
    assert [who for who, _ in bell.rung] == ["a"]


@in_virtual_time
async def test_a_wall_clock_that_jumps_back_puts_off_and_forgets_nothing() -> None:
    bell = Bell()
    bell.set("a", 500)
    bell.clock.wall_offset_ms = -60_000
    await asyncio.sleep(30.0)
    assert bell.rung == []
    await asyncio.sleep(31.0)
    assert [who for who, _ in bell.rung] == ["a"]


@in_virtual_time
async def test_a_later_instant_does_not_replace_an_earlier_one_and_an_earlier_one_does() -> None:
    """Who is woken too early looks, and says when he wants to be woken again."""
    bell = Bell()
    bell.set("a", 500)
    bell.set("a", 9_000)
    bell.set("b", 9_000)
    bell.set("b", 500)
    await asyncio.sleep(20.0)
    assert sorted(who for who, _ in bell.rung) == ["a", "b"]
    assert all(500 <= at_ms <= 510 for _, at_ms in bell.rung)


@in_virtual_time
async def test_who_is_forgotten_is_not_woken_and_can_come_back() -> None:
    bell = Bell()
    bell.set("a", 100)
    bell.set("b", 100)
    bell.timers.forget("a")  # type: ignore[arg-type]
    bell.timers.forget("never set")  # type: ignore[arg-type]
    await asyncio.sleep(1.0)
    assert [who for who, _ in bell.rung] == ["b"]
    bell.set("a", 2_000)
    await asyncio.sleep(3.0)
    assert [who for who, _ in bell.rung] == ["b", "a"]


@in_virtual_time
async def test_instants_of_the_forgotten_are_swept_out() -> None:
    bell = Bell()
    for i in range(50_000):
        bell.set(str(i), 3_600_000 + i)
        bell.timers.forget(str(i))  # type: ignore[arg-type]
    assert len(bell.timers) <= STALE_MAX + 2


@in_virtual_time
async def test_cleared_timers_wake_nobody() -> None:
    bell = Bell()
    bell.set("a", 100)
    bell.timers.clear()
    await asyncio.sleep(1.0)
    assert bell.rung == []


@in_virtual_time
async def test_who_sets_a_timer_when_woken_is_woken_again() -> None:
    bell = Bell()

    def again(who: str) -> None:
        bell.rung.append((who, 0))
        if len(bell.rung) < 5:
            bell.timers.set(who, bell.clock.now_ms() + 10)  # type: ignore[arg-type]

    bell.timers = Timers(bell.clock, again)  # type: ignore[arg-type]
    bell.set("a", 10)
    await asyncio.sleep(1.0)
    assert len(bell.rung) == 5


@given(st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 5)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_everybody_is_woken_soon_after_each_instant_that_was_set(
    plan: list[tuple[int, int]],
) -> None:
    async def story() -> None:
        bell = Bell()
        for after_ms, who in plan:
            bell.set(str(who), after_ms)
        await asyncio.sleep(5.0)
        for who in {str(who) for _, who in plan}:
            first_ms = min(after_ms for after_ms, other in plan if str(other) == who)
            woken = [at_ms for other, at_ms in bell.rung if other == who]
            assert woken
            assert first_ms <= woken[0] <= first_ms + 2 * GRAIN_MS

    with virtual_loop() as loop:
        loop.run(story())
