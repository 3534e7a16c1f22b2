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
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

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
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.folding import Foldable, fold, unfold
from raysaga.storage.codec import check_value
from raysaga.storage.errors import StaleEpochError

Answered = Callable[[StepReply], None]
_Waiting = tuple[StepCall, Answered]
_Echo = tuple[int, str, str, int, int]
_Sent = tuple[_Echo, int, Answered]
"""Verb, saga, step, epoch and attempt, which a reply must echo; the time-out; who is told. The
request has left, and would be half of what a waiting saga takes."""

RETRY_PAUSE_MS = 100
"""How long retries wait when the budget has none left; all of them for one timer."""

UNSERVED_RETRY_MS = 600_000
"""Asked of a call to a participant that the engine does not serve. It is sent again at once by
an engine that is started later; each try adds two events to the journal."""

TIMEOUT_GRAIN_MS = 5
"""A little late is fine, and one wake-up serves many."""

_BUDGETED = (ACTION, COMPENSATION)
"""Verbs whose later attempts the retry budget bounds."""

_NO_SIGN_OF_LIFE = frozenset({Code.TIMEOUT.value, Code.SERVICE_UNAVAILABLE.value})


class Dispatcher:
    """One host's way to one participant."""

    def __init__(
        self,
        *,
        participant: str,
        sender: str,
        exchange: Callable[[bytes], Awaitable[bytes]] | None,
        defect: Callable[[BaseException], None],
        renew: Callable[[StepCall], StepCall] | None = None,
        clock: Clock,
        settings: EngineSettings,
        under_way: Callable[[], int] | None = None,
    ) -> None:
        """Make a way that sends nothing yet.

        Args:
            participant: Its name.
            sender: Name of this end.
            exchange: Carries one batch there and the answer back; None if the engine does
                not serve the participant.
            defect: Told of what must stop the host.
            renew: Proves anew, when a call leaves, that its sender may send it.
            clock: Time.
            settings: Bounds.
            under_way: As of a lane.
        """
        self.participant = participant
        self._is_served = exchange is not None
        self._defect = defect
        self._renew = renew
        self._clock = clock
        self._settings = settings
        self.breaker = CircuitBreaker(settings)
        self._budget = RetryBudget(settings, clock.monotonic_ms())
        self._lane = Lane(
            sender=sender,
            exchange=exchange or _nowhere,
            receive=self._received,
            failed=self._exchange_lost,
            expects=lambda: bool(self._in_flight),
            defect=defect,
            clock=clock,
            settings=settings,
            under_way=under_way,
        )
        self._urgent: deque[_Waiting] = deque()
        self._queue: deque[_Waiting] = deque()
        self._last: deque[_Waiting] = deque()
        # Retries that wait for the budget: what goes home, and the rest.
        self._retries: tuple[deque[_Waiting], deque[_Waiting]] = (deque(), deque())
        self._retry_timer: asyncio.TimerHandle | None = None
        self._in_flight: dict[int, _Sent] = {}
        self._timeouts: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0.0
        self._closed = False
        self.sent_count = 0
        self.timeout_count = 0

    @property
    def queued_count(self) -> int:
        """Calls that wait for their turn."""
        queues = (self._urgent, self._queue, self._last, *self._retries)
        return sum(map(len, queues))

    @property
    def in_flight_count(self) -> int:
        """Calls sent and not answered."""
        return len(self._in_flight)

    @property
    def is_full(self) -> bool:
        """Whether the next call has to wait for the end of another."""
        return len(self._in_flight) >= self._settings.participant_in_flight_max

    @property
    def exchange_count(self) -> int:
        """Exchanges opened so far: the messages that Ray carried for us."""
        return self._lane.exchange_count

    def send(self, call: StepCall, answered: Answered) -> None:
        """Send `call` when its turn comes; `answered` is called once, never before this returns."""
        if self._closed:
            return
        if not self._is_served:
            what = f"this engine does not serve {self.participant}; start it with it"
            code = Code.NO_SUCH_PARTICIPANT
            self._answer_here(call, answered, code, what, UNSERVED_RETRY_MS)
            return
        is_retry = call.attempt > 1 and call.verb in _BUDGETED
        if not (is_retry or self.is_full or self._urgent or self._queue or self._last):
            self._budget.earn()
            if self._pass_on(call, answered, self._clock.monotonic_ms()):
                self._set_timer()
            return
        if self.queued_count >= self._settings.participant_queued_max:
            self._answer_here(
                call,
                answered,
                Code.OVERLOADED,
                "too many calls wait for this participant",
                self._settings.overloaded_retry_after_ms,
            )
            return
        # As many may wait as there are sagas, and for long.
        waiting = (_folded(call), answered)
        if is_retry:
            self._retries[call.verb == ACTION].append(waiting)
            if self._retry_timer is None:
                self._retry()
            return
        self._budget.earn()
        self._queue_of(call).append(waiting)
        self._fill()

    def _retry(self) -> None:
        """Send what the budget allows of the retries; the rest waits for it."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        self._retry_timer = None
        now_ms = self._clock.monotonic_ms()
        homeward, forward = self._retries
        while homeward or forward:
            if not self._budget.spend(now_ms):
                self._retry_timer = asyncio.get_running_loop().call_later(
                    RETRY_PAUSE_MS / 1_000, self._retry
                )
                break
            call, answered = (homeward or forward).popleft()
            self._queue_of(call).append((call, answered))
        self._fill()

    def _queue_of(self, call: StepCall) -> deque[_Waiting]:
        if call.verb == COMPENSATION:
            return self._urgent
        return self._last if call.verb == RELEASE else self._queue

    def _fill(self) -> None:
        """Send what the bound on calls in flight allows, the most urgent first."""
        if not (self._queue or self._urgent or self._last):
            return
        now_ms = self._clock.monotonic_ms()
        for queue in (self._urgent, self._queue, self._last):
            while queue and not self.is_full:
                call, answered = queue.popleft()
                try:
                    # What has waited is proven anew.
                    call = call if self._renew is None else self._renew(call)
                except StaleEpochError as error:
                    self._defect(error)
                    return
                self._pass_on(_unfolded(call), answered, now_ms)
        self._set_timer()

    def _pass_on(self, call: StepCall, answered: Answered, now_ms: float) -> bool:
        """Send a call now, if the circuit is closed and it can be sent; return whether it was."""
        wait_ms = self.breaker.wait_ms(now_ms)
        if wait_ms:
            what = f"{self.participant} does not answer; its circuit is open"
            self._answer_here(call, answered, Code.SERVICE_UNAVAILABLE, what, wait_ms)
            return False
        try:
            self._lane.put(call)
        except ValidationError as error:
            self.breaker.not_sent()
            self._answer_here(call, answered, Code.INVALID_REQUEST, str(error), 0)
            return False
        echo = (call.verb, call.saga_id, call.step, call.epoch, call.attempt)
        self._in_flight[call.call_id] = (echo, call.timeout_ms, answered)
        heapq.heappush(self._timeouts, (now_ms + call.timeout_ms, call.call_id))
        self.sent_count += 1
        return True

    def _answer_here(
        self, call: StepCall, answered: Answered, code: Code, message: str, retry_after_ms: int
    ) -> None:
        reply = reply_to(
            call, Outcome.UNKNOWN, code=code, message=message, retry_after_ms=retry_after_ms
        )
        asyncio.get_running_loop().call_soon(self._give, answered, reply)

    def _give(self, answered: Answered, reply: StepReply) -> None:
        if not self._closed:
            answered(reply)

    def _received(self, replies: list[list[Any]]) -> None:
        is_repaid = False
        for fields in replies:
            reply = _reply_of(fields)
            sent = None if reply is None else self._in_flight.get(reply.call_id)
            if reply is None or sent is None:
                continue
            echo, _, answered = sent
            if (reply.verb, reply.saga_id, reply.step, reply.epoch, reply.attempt) != echo:
                continue
            del self._in_flight[reply.call_id]
            if reply.outcome == Outcome.UNKNOWN and reply.code in _NO_SIGN_OF_LIFE:
                self.breaker.unanswered(self._clock.monotonic_ms())
            else:
                self.breaker.answered()
            if reply.attempt > 1 and reply.outcome != Outcome.UNKNOWN and reply.verb in _BUDGETED:
                self._budget.repay()
                is_repaid = True
            answered(reply)
        if is_repaid and any(self._retries):
            self._retry()
        else:
            self._fill()

    def _exchange_lost(self, error: BaseException) -> None:
        """Give up on every call in flight: nobody knows which replies were lost."""
        lost = list(self._in_flight.items())
        self._in_flight.clear()
        self._lane.drop_queued()
        now_ms = self._clock.monotonic_ms()
        what = f"{self.participant} cannot be reached ({type(error).__name__})"
        for call_id, (echo, _, answered) in lost:
            self.breaker.unanswered(now_ms)
            answered(_unanswered(call_id, echo, Code.SERVICE_UNAVAILABLE, what))
        self._fill()

    def _set_timer(self) -> None:
        """Wake up for the call that times out first, which need not be the one sent first."""
        if not self._timeouts or self._closed:
            return
        due_ms = self._timeouts[0][0]
        if self._timer is not None:
            if self._timer_due_ms <= due_ms:
                return
            self._timer.cancel()
        self._timer_due_ms = due_ms
        delay_ms = max(due_ms - self._clock.monotonic_ms(), TIMEOUT_GRAIN_MS)
        self._timer = asyncio.get_running_loop().call_later(delay_ms / 1_000, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        now_ms = self._clock.monotonic_ms()
        while self._timeouts and self._timeouts[0][0] <= now_ms:
            _, call_id = heapq.heappop(self._timeouts)
            sent = self._in_flight.pop(call_id, None)
            if sent is None:
                continue
            echo, timeout_ms, answered = sent
            self.timeout_count += 1
            self.breaker.unanswered(now_ms)
            what = f"{self.participant} gave no answer within {timeout_ms} ms"
            answered(_unanswered(call_id, echo, Code.TIMEOUT, what))
        self._fill()
        self._set_timer()

    async def close(self) -> None:
        """Send and answer nothing more."""
        self._closed = True
        for timer in (self._timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        for queue in (self._urgent, self._queue, self._last, *self._retries):
            queue.clear()
        self._in_flight.clear()
        await self._lane.close()


async def _nowhere(_batch: bytes) -> bytes:
    raise ConnectionError("there is no such participant")


def _folded(call: StepCall) -> StepCall:
    """Return a call that waits, its request as bytes until it leaves."""
    return call._replace(request=cast(Mapping[str, Any], fold(call.request)))


def _unfolded(call: StepCall) -> StepCall:
    held: Foldable = call.request
    return call._replace(request=unfold(held)) if isinstance(held, bytes) else call


def _unanswered(call_id: int, echo: _Echo, code: Code, message: str) -> StepReply:
    return StepReply(call_id, *echo, int(Outcome.UNKNOWN), None, code, message)


def _reply_of(fields: Any) -> StepReply | None:
    """Return the reply that a message is, None if it is none; participants may be broken."""
    try:
        reply = StepReply._make(fields)
    except TypeError:
        return None
    if not (
        type(reply.call_id) is int
        and type(reply.outcome) is int
        and type(reply.code) is str
        and type(reply.message) is str
        and type(reply.stored) is bool
        and type(reply.retry_after_ms) is int
        and (reply.result is None or type(reply.result) is dict)
    ):
        return None
    if reply.result:
        try:
            # As the journal will: what it refuses must not get as far as the saga.
            check_value(reply.result)
        except ValidationError as error:
            return reply._replace(
                outcome=int(Outcome.UNKNOWN),
                result=None,
                code=Code.INTERNAL_ERROR.value,
                message=f"its result cannot be kept: {error}",
                stored=False,
            )
    return reply
