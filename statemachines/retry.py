"""Retry policies: arithmetic only; who waits and who draws the jitter is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Bounded exponential backoff with full jitter.

    Full jitter keeps sagas that failed together from returning together
    (M. Brooker, "Exponential Backoff And Jitter", AWS, 2015).

    Attributes:
        attempts_max: Attempts in all, the first one included. At least 1.
        delay_ms_first: Ceiling of the first wait, in milliseconds. At least 1.
        delay_ms_max: Ceiling of every wait, in milliseconds.
    """

    attempts_max: int
    delay_ms_first: int
    delay_ms_max: int

    def flaw(self) -> str | None:
        """Return what is wrong with the numbers, or None."""
        numbers = (self.attempts_max, self.delay_ms_first, self.delay_ms_max)
        if not all(type(number) is int for number in numbers):
            return "attempts and delays must be whole numbers"
        if self.attempts_max < 1:
            return "attempts_max must be at least 1"
        if not 0 < self.delay_ms_first <= self.delay_ms_max:
            return "delays must satisfy 0 < delay_ms_first <= delay_ms_max"
        return None

    def delay_ms(self, attempt: int, jitter: float, at_least_ms: int = 0) -> int | None:
        """Return the wait before the next attempt, or None to give up.

        Args:
            attempt: The attempt that has just failed, counted from 1.
            jitter: A draw from [0, 1), made by the caller, so that this stays pure.
            at_least_ms: What the participant asked for (its retry-after).
        """
        assert attempt >= 1
        assert 0.0 <= jitter < 1.0
        if attempt >= self.attempts_max:
            return None
        # Capped before shifting: 2**attempt outgrows any useful wait.
        doublings = min(attempt - 1, 32)
        ceiling_ms = min(self.delay_ms_first << doublings, self.delay_ms_max)
        return max(int(ceiling_ms * jitter), min(at_least_ms, self.delay_ms_max), 1)


ACTION_RETRY = RetryPolicy(attempts_max=10, delay_ms_first=50, delay_ms_max=2_000)
"""Ten tries; their waits add up to 4.6 seconds on average and 9.2 at most. That outlasts the
restart of a participant, which takes one to two seconds (two cores), so that it undoes nothing."""

RETRIABLE_RETRY = RetryPolicy(attempts_max=30, delay_ms_first=100, delay_ms_max=30_000)
"""After the point of no return only forward is left, so a step is tried for minutes."""

COMPENSATION_RETRY = RetryPolicy(attempts_max=30, delay_ms_first=100, delay_ms_max=30_000)
"""An undo that gives up needs a person, so it is tried for minutes first."""
