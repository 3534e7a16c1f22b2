"""What keeps a failing participant from being hammered: a circuit and a budget.

Plain arithmetic on a monotonic reading that the caller passes in.
"""

from __future__ import annotations

from enum import StrEnum

from raysaga.actors.settings import EngineSettings


class CircuitState(StrEnum):
    """Closed lets calls through; open does not; half-open lets a few through as probes."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Opens after a run of unanswered calls, and probes before it closes again.

    After M. Nygard, "Release It!", 2007. An answer of any kind, a refusal
    included, is a sign of life.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._failures = 0
        self._open_until_ms = 0.0
        self._open_ms = settings.breaker_open_ms_first
        self._probes_left = 0
        self.state = CircuitState.CLOSED

    def wait_ms(self, now_ms: float) -> int:
        """Return 0 if a call may be sent now, else how long to wait; a probe is counted."""
        if self.state is CircuitState.CLOSED:
            return 0
        if self.state is CircuitState.OPEN:
            if now_ms < self._open_until_ms:
                return int(self._open_until_ms - now_ms) + 1
            self.state = CircuitState.HALF_OPEN
            self._probes_left = self._settings.breaker_probes
        if self._probes_left > 0:
            self._probes_left -= 1
            return 0
        return self._open_ms

    def not_sent(self) -> None:
        """Note that a call that might be sent was not, so that no probe is waited for in vain."""
        if self.state is CircuitState.HALF_OPEN:
            self._probes_left += 1

    def answered(self) -> None:
        """Note a sign of life."""
        self._failures = 0
        if self.state is not CircuitState.CLOSED:
            self.state = CircuitState.CLOSED
            self._open_ms = self._settings.breaker_open_ms_first

    def unanswered(self, now_ms: float) -> None:
        """Note a call that came to nothing."""
        self._failures += 1
        if self.state is CircuitState.HALF_OPEN:
            self._open_ms = min(self._open_ms * 2, self._settings.breaker_open_ms_max)
            self._open(now_ms)
        elif (
            self.state is CircuitState.CLOSED
            and self._failures >= self._settings.breaker_failures_min
        ):
            self._open(now_ms)

    def _open(self, now_ms: float) -> None:
        self.state = CircuitState.OPEN
        self._open_until_ms = now_ms + self._open_ms


REPAID = 2.0
"""Retries for which one that has come to an end makes room: its own, and one more."""


class RetryBudget:
    """Bounds retries that come to nothing to a share of first tries, lest they feed an outage.

    After "Addressing Cascading Failures" in Site Reliability Engineering, 2016. A retry that
    comes to an end takes nothing from it and makes room for one more, so that after an outage
    their number doubles with each round trip (as in TCP's slow start; V. Jacobson, "Congestion
    Avoidance and Control", 1988). That success pays for retries is gRPC's rule, too (gRFC A6).
    """

    def __init__(self, settings: EngineSettings, now_ms: float) -> None:
        self._settings = settings
        self._tokens = settings.retry_budget_max
        self._filled_at_ms = now_ms

    def earn(self) -> None:
        """Note a first try."""
        self._tokens = min(
            self._tokens + self._settings.retry_budget_ratio, self._settings.retry_budget_max
        )

    def repay(self) -> None:
        """Note a retry that has come to an end: a result, or a refusal for good."""
        self._tokens = min(self._tokens + REPAID, self._settings.retry_budget_max)

    def spend(self, now_ms: float) -> bool:
        """Take one retry from the budget, or return False."""
        passed_s = max(now_ms - self._filled_at_ms, 0.0) / 1_000
        self._filled_at_ms = now_ms
        self._tokens = min(
            self._tokens + passed_s * self._settings.retry_budget_per_s,
            self._settings.retry_budget_max,
        )
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
