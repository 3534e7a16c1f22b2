"""Sends calls to one participant, and gives each exactly one answer.

Bounded: calls in flight, calls queued. Compensations go before actions, actions
before releases. An answer is the participant's reply, or one made here that
says that nothing is known: no reply in time, a lost exchange, an open circuit,
a full queue. A reply that does not echo what was sent is ignored.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from raysaga.actors.breaker import CircuitBreaker, RetryBudget
from raysaga.actors.clock import Clock
from raysaga.actors.lane import Lane
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    RELEASE,
    Code,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)

Answered = Callable[[StepReply], None]

RETRY_PAUSE_MS = 100
"""How long a retry waits when the budget has none left."""

_NO_SIGN_OF_LIFE = frozenset({Code.TIMEOUT.value, Code.SERVICE_UNAVAILABLE.value})


class Dispatcher:
    """One host's way to one participant."""

    def __init__(
        self,
        *,
        participant: str,
        sender: str,
        exchange: Callable[[bytes], Awaitable[bytes]],
        clock: Clock,
        settings: EngineSettings,
    ) -> None:
        self.participant = participant
        self._clock = clock
        self._settings = settings
        self.breaker = CircuitBreaker(settings)
        self._budget = RetryBudget(settings, clock.monotonic_ms())
        self._lane = Lane(
            sender=sender,
            exchange=exchange,
            receive=self._received,
            failed=self._exchange_lost,
            expects=lambda: bool(self._in_flight),
            clock=clock,
            settings=settings,
        )
        self._urgent: deque[tuple[StepCall, Answered]] = deque()
        self._queue: deque[tuple[StepCall, Answered]] = deque()
        self._last: deque[tuple[StepCall, Answered]] = deque()
        self._in_flight: dict[int, tuple[StepCall, Answered]] = {}
        self._timeouts: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.sent_count = 0
        self.timeout_count = 0

    @property
    def queued_count(self) -> int:
        """Calls that wait for their turn."""
        return len(self._urgent) + len(self._queue) + len(self._last)

    @property
    def in_flight_count(self) -> int:
        """Calls sent and not answered."""
        return len(self._in_flight)

    @property
    def exchange_count(self) -> int:
        """Exchanges opened so far: the messages that Ray carried for us."""
        return self._lane.exchange_count

    def send(self, call: StepCall, answered: Answered) -> None:
        """Send `call` when its turn comes; `answered` is called once, never before this returns."""
        if self.queued_count >= self._settings.participant_queued_max:
            self._answer_here(
                call,
                answered,
                Code.OVERLOADED,
                "too many calls wait for this participant",
                self._settings.overloaded_retry_after_ms,
            )
            return
        if call.attempt > 1 and call.verb in (ACTION, COMPENSATION):
            if not self._budget.spend(self._clock.monotonic_ms()):
                asyncio.get_running_loop().call_later(
                    RETRY_PAUSE_MS / 1_000, self.send, call, answered
                )
                return
        else:
            self._budget.earn()
        self._queue_of(call).append((call, answered))
        self._fill()

    def _queue_of(self, call: StepCall) -> deque[tuple[StepCall, Answered]]:
        if call.verb == COMPENSATION:
            return self._urgent
        return self._last if call.verb == RELEASE else self._queue

    def _fill(self) -> None:
        """Send what the bound on calls in flight allows, the most urgent first."""
        room = self._settings.participant_in_flight_max - len(self._in_flight)
        now_ms = self._clock.monotonic_ms()
        for queue in (self._urgent, self._queue, self._last):
            while queue and room > 0:
                call, answered = queue.popleft()
                wait_ms = self.breaker.wait_ms(now_ms)
                if wait_ms:
                    what = f"{self.participant} does not answer; its circuit is open"
                    self._answer_here(call, answered, Code.SERVICE_UNAVAILABLE, what, wait_ms)
                    continue
                room -= 1
                self._in_flight[call.call_id] = (call, answered)
                heapq.heappush(self._timeouts, (now_ms + call.timeout_ms, call.call_id))
                self._lane.put(call)
                self.sent_count += 1
        self._set_timer()

    def _answer_here(
        self, call: StepCall, answered: Answered, code: Code, message: str, retry_after_ms: int
    ) -> None:
        reply = reply_to(
            call, Outcome.UNKNOWN, code=code, message=message, retry_after_ms=retry_after_ms
        )
        asyncio.get_running_loop().call_soon(answered, reply)

    def _received(self, replies: list[list[Any]]) -> None:
        for fields in replies:
            reply = StepReply._make(fields)
            waiting = self._in_flight.get(reply.call_id)
            if waiting is None:
                continue
            call, answered = waiting
            if (reply.saga_id, reply.step, reply.verb, reply.epoch, reply.attempt) != (
                call.saga_id,
                call.step,
                call.verb,
                call.epoch,
                call.attempt,
            ):
                continue
            del self._in_flight[reply.call_id]
            if reply.outcome == Outcome.UNKNOWN and reply.code in _NO_SIGN_OF_LIFE:
                self.breaker.unanswered(self._clock.monotonic_ms())
            else:
                self.breaker.answered()
            answered(reply)
        self._fill()

    def _exchange_lost(self, error: BaseException) -> None:
        """Give up on every call in flight: nobody knows which replies were lost."""
        lost = list(self._in_flight.values())
        self._in_flight.clear()
        self._lane.drop_queued()
        now_ms = self._clock.monotonic_ms()
        what = f"{self.participant} cannot be reached ({type(error).__name__})"
        for call, answered in lost:
            self.breaker.unanswered(now_ms)
            answered(reply_to(call, Outcome.UNKNOWN, code=Code.SERVICE_UNAVAILABLE, message=what))
        self._fill()

    def _set_timer(self) -> None:
        if self._timer is None and self._timeouts:
            wait_ms = self._timeouts[0][0] - self._clock.monotonic_ms()
            # A little late is fine, and one wake-up serves many.
            delay_s = max(wait_ms, 5.0) / 1_000
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        now_ms = self._clock.monotonic_ms()
        while self._timeouts and self._timeouts[0][0] <= now_ms:
            _, call_id = heapq.heappop(self._timeouts)
            waiting = self._in_flight.pop(call_id, None)
            if waiting is None:
                continue
            call, answered = waiting
            self.timeout_count += 1
            self.breaker.unanswered(now_ms)
            what = f"{self.participant} gave no answer within {call.timeout_ms} ms"
            answered(reply_to(call, Outcome.UNKNOWN, code=Code.TIMEOUT, message=what))
        self._fill()

    async def close(self) -> None:
        """Send and answer nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._urgent.clear()
        self._queue.clear()
        self._last.clear()
        self._in_flight.clear()
        await self._lane.close()
