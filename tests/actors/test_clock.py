"""A wall clock that jumps expires nothing at once."""

from __future__ import annotations

from raysaga.actors.clock import JumpGuard, SystemClock


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000
        self.steady_ms = 500.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_ms(self) -> float:
        return self.steady_ms

    async def sleep_ms(self, delay_ms: float) -> None:
        self.wall_ms += int(delay_ms)
        self.steady_ms += delay_ms


def test_time_that_passes_is_no_jump() -> None:
    clock = SetClock()
    guard = JumpGuard(clock, jump_ms=5_000, grace_ms=10_000)
    clock.wall_ms += 3_600_000
    clock.steady_ms += 3_600_000
    assert (guard.grace_left_ms(), guard.jump_count) == (0, 0)


def test_a_jump_forward_grants_one_grace_period() -> None:
    clock = SetClock()
    guard = JumpGuard(clock, jump_ms=5_000, grace_ms=10_000)
    clock.wall_ms += 3_600_000
    assert guard.grace_left_ms() == 10_000
    clock.wall_ms += 4_000
    clock.steady_ms += 4_000
    assert guard.grace_left_ms() == 6_000
    clock.wall_ms += 6_000
    clock.steady_ms += 6_000
    assert (guard.grace_left_ms(), guard.jump_count) == (0, 1)


def test_a_jump_back_grants_none_and_a_later_one_forward_is_seen() -> None:
    clock = SetClock()
    guard = JumpGuard(clock, jump_ms=5_000, grace_ms=10_000)
    clock.wall_ms -= 3_600_000
    assert guard.grace_left_ms() == 0
    clock.wall_ms += 3_600_000
    assert guard.grace_left_ms() == 10_000


async def test_the_system_clock_sleeps_for_as_long_as_it_says() -> None:
    clock = SystemClock()
    began_at = clock.monotonic_ms()
    await clock.sleep_ms(5)
    assert clock.monotonic_ms() - began_at >= 4
