"""Runs one participant: takes calls, bounds them, orders them by key, answers after the commit.

A call that needs no guard goes straight into the next batch of the ledger,
without a task of its own. A call that does (locks, latency, simulated trouble,
an outside provider) gets a task, and joins a batch when it is ready.

Guarantees: a reply leaves only after its effect is durable. A call that is sent
again while it is being worked on joins the one under way; a compensation waits
for its action. What is beyond the bounds is answered OVERLOADED at once, and
nothing of it is stored; a share of the bounds is kept for what goes home.
Refuses: to answer anybody once the ledger has failed or a newer incarnation has
taken over; `on_fatal` is told, and the process must stop.
Costs: some microseconds a call beside the ledger's, some fifty with a task, a
thousand bytes while it waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from raysaga.actors.bulk_release import MANY, Gathering, parts_of
from raysaga.actors.clock import Clock
from raysaga.actors.ledger_writer import LedgerWriter
from raysaga.actors.participant import Behaviour, Participant
from raysaga.actors.participant_settings import ParticipantLimits, open_ledger
from raysaga.actors.provider import ProviderOperation
from raysaga.actors.provider_flow import ProviderFlow
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    Code,
    LedgerStatus,
    Outcome,
    StepCall,
    StepReply,
)
from raysaga.statemachines.ids import StepKey
from raysaga.storage.effects import TryLater
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import Prepared, not_now
from raysaga.storage.ledger_row import LedgerRow

__all__ = ["ParticipantLimits", "ParticipantServer", "open_ledger"]

Answer = Callable[[StepReply], None]

SEALED_WAIT_MS = 50
"""After which it is tried again to call back what the ledger has; a commit takes less."""

_COUNTED = {Code.CANCELLED_BEFORE_START.value: "tombstoned", Code.FENCED.value: "fenced"}
"""Answers that show a late action, or a sender that was replaced, at work."""

_UNDOABLE = frozenset({LedgerStatus.APPLIED, LedgerStatus.UNKNOWN})


class _Work:
    """One call with a task of its own, and those that wait for it."""

    __slots__ = (
        "answer",
        "behind",
        "call",
        "is_called_back",
        "is_sealed",
        "joined",
        "task",
        "timer",
    )

    def __init__(self, call: StepCall, answer: Answer) -> None:
        self.call = call
        self.answer = answer
        self.joined: list[tuple[StepCall, Answer]] = []
        self.behind: list[tuple[StepCall, Answer]] = []
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        # Handed to the ledger: from here to the reply it cannot be called back.
        self.is_sealed = False
        self.is_called_back = False

    def joins(self, call: StepCall) -> bool:
        """Whether `call` asks the very same, so that one answer does for both."""
        mine = self.call
        if (
            call.verb != mine.verb
            or call.epoch != mine.epoch
            or call.scope != mine.scope
            or call.operation != mine.operation
            or call.request != mine.request
        ):
            return False
        if (call.expires_at_ms or 0) <= (mine.expires_at_ms or 0):
            return True
        if self.is_sealed:
            return False
        # The ledger must hear of the latest expiry, or the row could go too soon.
        self.call = mine._replace(expires_at_ms=call.expires_at_ms)
        return True


class ParticipantServer:
    """One participant at work in one event loop. See the head of this module."""

    def __init__(
        self,
        *,
        participant: Participant,
        ledger: Ledger,
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        behaviour: Behaviour | None = None,
        limits: ParticipantLimits | None = None,
        log: Any = None,
        inline: bool = False,
    ) -> None:
        """Make a server that does not take calls before `start`.

        Args:
            participant: What to run.
            ledger: Opened by `open_ledger`; the caller closes it, after `stop`.
            clock: Time.
            on_fatal: Called once, in the event loop, when the process must stop unanswered.
            behaviour: Simulated trouble; None for none.
            limits: Bounds.
            log: A structlog logger.
            inline: Commit in the event loop and not in a thread, for simulators.
        """
        self.participant = participant
        self.ledger = ledger
        self._clock = clock
        self._on_fatal = on_fatal
        self._behaviour = behaviour
        self._limits = limits or ParticipantLimits()
        base = log if log is not None else structlog.get_logger(__name__)
        self._log = base.bind(participant=participant.name)
        self._writer = LedgerWriter(
            ledger,
            batch_items_max=self._limits.batch_items_max,
            clock=clock,
            on_fatal=self._fail,
            inline=inline,
        )
        self._providers = ProviderFlow(
            ledger,
            codes=participant.codes,
            now_ms=clock.now_ms,
            clock_skew_ms=ledger.settings.clock_skew_ms,
        )
        self._has_providers = any(
            isinstance(operation, ProviderOperation)
            for operation in participant.operations.values()
        )
        self._working: dict[StepKey, _Work] = {}
        self._works: set[_Work] = set()
        self._homeward: deque[tuple[StepCall, Answer]] = deque()
        self._forward: deque[tuple[StepCall, Answer]] = deque()
        self._is_open = False
        self._is_failed = False
        self._unanswered = 0
        self._counts = dict.fromkeys(
            ("received", "answered", "overloaded", "joined", "timed_out", "conflicts"), 0
        ) | dict.fromkeys(_COUNTED.values(), 0)

    # -- life ------------------------------------------------------------------

    async def start(self) -> None:
        """Take calls from now on."""
        assert not self._is_failed
        self._is_open = True

    async def stop(self) -> None:
        """Take no more calls, finish what the ledger has, and turn the rest away."""
        self._is_open = False
        for queue in (self._homeward, self._forward):
            while queue:
                self._turn_away(*queue.popleft())
        while self._works:
            for work in self._works:
                self._call_back(work)
            tasks = [work.task for work in self._works if work.task is not None]
            await asyncio.wait(tasks, timeout=SEALED_WAIT_MS / 1_000)
        await self._writer.stop()

    def stats(self) -> Mapping[str, float]:
        """Return counts since the start, and how much is waiting now."""
        return {
            **self._counts,
            "unanswered": self._unanswered,
            "in_flight": len(self._works),
            "queued": len(self._homeward) + len(self._forward) + self._writer.queued_count,
            "batches": self._writer.batch_count,
            "calls_committed": self._writer.call_count,
            "ms_per_call": self._writer.ms_per_call,
            "incarnation": self.ledger.incarnation,
        }

    async def prune(self, retention_ms: int) -> int:
        """Forget what the ledger may forget; return the number of rows."""
        now_ms = self._clock.now_ms()
        return await self._writer.run(partial(self.ledger.prune, now_ms, retention_ms))

    async def prune_effects(self, retention_ms: int) -> int:
        """Forget lines of the effect log that are older; return their number."""
        before_ms = self._clock.now_ms() - retention_ms
        return await self._writer.run(partial(self.ledger.prune_effects, before_ms))

    # -- taking calls ----------------------------------------------------------

    def deliver(self, calls: Sequence[StepCall], reply: Answer) -> None:
        """Take calls; `reply` gets each answer later, in the event loop. Never blocks.

        What is turned away, being beyond the bounds, is answered before this returns.
        No answer comes for a call whose outcome became unknown, or that a behaviour left
        unanswered: senders have time-outs.
        """
        self._counts["received"] += len(calls)
        for call in calls:
            if self._is_failed or (call.saga_id == MANY and self._deliver_many(call, reply)):
                continue
            self._unanswered += 1
            if not self._is_open:
                self._turn_away(call, reply)
            elif self._is_beyond_bounds(call):
                self._counts["overloaded"] += 1
                what = f"{self._unanswered - 1} calls are waiting"
                self._give(reply, not_now(call, Code.OVERLOADED, what, self._retry_after_ms()))
            else:
                self._take(call, reply)

    def _deliver_many(self, call: StepCall, reply: Answer) -> bool:
        """Take the parts of a call that stands for many; return whether it was one."""
        try:
            parts = parts_of(call)
        except (TypeError, ValueError) as error:
            reply(not_now(call, Code.INVALID_REQUEST, f"the releases cannot be read: {error}"))
            return True
        if parts is None:
            return False
        self.deliver(parts, Gathering(call, len(parts), reply).take)
        return True

    def _take(self, call: StepCall, answer: Answer) -> None:
        if self._working and call.verb != QUESTION:
            # A question is not held up: it fences what is under way, and tells what is stored.
            current = self._working.get(_key_of(call))
            if current is not None:
                self._wait_for(current, call, answer)
                return
        if not self._needs_task(call):
            self._writer.put(Prepared(call), partial(self._give, answer))
        elif self._has_slot(call):
            self._begin(call, answer)
        else:
            (self._forward if call.verb == ACTION else self._homeward).append((call, answer))

    def _wait_for(self, current: _Work, call: StepCall, answer: Answer) -> None:
        if current.joins(call):
            self._counts["joined"] += 1
            current.joined.append((call, answer))
        else:
            current.behind.append((call, answer))

    def _needs_task(self, call: StepCall) -> bool:
        if self._behaviour is not None or self._has_providers:
            return True
        return call.verb in (ACTION, COMPENSATION) and self.participant.is_guarded(call)

    def _is_beyond_bounds(self, call: StepCall) -> bool:
        limits = self._limits
        both = limits.in_flight_max + limits.queued_max
        return self._unanswered > (limits.less_share(both) if call.verb == ACTION else both)

    def _has_slot(self, call: StepCall) -> bool:
        limits = self._limits
        slots = limits.in_flight_max
        return len(self._works) < (limits.less_share(slots) if call.verb == ACTION else slots)

    def _retry_after_ms(self) -> int:
        """Return about how long it takes to work off half of what waits."""
        guess_ms = int(self._unanswered * self._writer.ms_per_call / 2)
        return min(max(guess_ms, self._limits.retry_after_ms_min), self._limits.retry_after_ms_max)

    def _turn_away(self, call: StepCall, answer: Answer) -> None:
        what = f"{self.participant.name} is stopping"
        self._give(answer, not_now(call, Code.SERVICE_UNAVAILABLE, what))

    def _give(self, answer: Answer, reply: StepReply | None) -> None:
        self._unanswered -= 1
        if reply is not None and not self._is_failed:
            self._counts["answered"] += 1
            if reply.code in _COUNTED:
                self._counts[_COUNTED[reply.code]] += 1
            answer(reply)

    # -- one call with a task --------------------------------------------------

    def _begin(self, call: StepCall, answer: Answer) -> None:
        work = _Work(call, answer)
        if call.verb != QUESTION:
            self._working[_key_of(call)] = work
        loop = asyncio.get_running_loop()
        work.task = loop.create_task(self._serve(work))
        work.timer = loop.call_later(call.timeout_ms / 1_000, self._time_out, work)
        self._works.add(work)

    def _time_out(self, work: _Work) -> None:
        """Call back what nobody waits for any more; later, if the ledger has it just now."""
        if not self._call_back(work):
            loop = asyncio.get_running_loop()
            work.timer = loop.call_later(SEALED_WAIT_MS / 1_000, self._time_out, work)

    def _call_back(self, work: _Work) -> bool:
        """Cancel what is not in the ledger's hands; return whether that was done, once."""
        if work.is_sealed or work.task is None:
            return False
        if not work.is_called_back:
            work.is_called_back = True
            work.task.add_done_callback(lambda _task: self._never_begun(work))
            work.task.cancel()
        return True

    def _never_begun(self, work: _Work) -> None:
        """Let go of a call whose task was cancelled before its first step, so cannot itself."""
        if work in self._works:
            self._leave(work, self._interrupted(work))

    async def _serve(self, work: _Work) -> None:
        reply: StepReply | None = None
        try:
            reply = await self._with_behaviour(work)
        except asyncio.CancelledError:
            # By the time-out, by `stop`, or by `_fail`; in each case there is an answer to it.
            reply = self._interrupted(work)
        except Exception as error:  # noqa: BLE001 - a defect of one call must not hurt the others
            self._log.error("call_failed", saga_id=work.call.saga_id, exc_info=error)
            what = f"{type(error).__name__} around {work.call.operation}"
            reply = not_now(work.call, Code.INTERNAL_ERROR, what)
        self._leave(work, reply)

    def _interrupted(self, work: _Work) -> StepReply:
        if not self._is_open:
            what = f"{self.participant.name} is stopping"
            return not_now(work.call, Code.SERVICE_UNAVAILABLE, what)
        self._counts["timed_out"] += 1
        return not_now(work.call, Code.TIMEOUT, "its time ran out while it was worked on")

    async def _with_behaviour(self, work: _Work) -> StepReply | None:
        behaviour = self._behaviour
        if behaviour is None:
            return await self._perform(work)
        instead = await behaviour.before(work.call)
        if instead is not None:
            return instead
        reply = await self._perform(work)
        return await behaviour.after(work.call, reply)

    async def _perform(self, work: _Work) -> StepReply:
        row = self._peek(work.call)
        if self._has_providers:
            name = work.call.operation if row is None else row.operation
            operation = self.participant.operations.get(name)
            if isinstance(operation, ProviderOperation):
                commit = partial(self._commit, work)
                return await self._providers.perform(work.call, operation, commit)
        if not self._is_to_be_guarded(work.call, row):
            return await self._commit(work, Prepared(work.call))
        for _ in range(self._limits.conflict_retries_max + 1):
            reply = await self._guarded(work)
            if reply.outcome != Outcome.UNKNOWN or reply.code != Code.CONFLICT:
                break
            self._counts["conflicts"] += 1
            # A guard that conflicts without waiting must not keep the event loop.
            await asyncio.sleep(0)
        return reply

    async def _guarded(self, work: _Work) -> StepReply:
        try:
            async with self.participant.guard(work.call, self.ledger) as context:
                return await self._commit(work, Prepared(work.call, context))
        except TryLater as later:
            return not_now(work.call, later.code, later.message, later.retry_after_ms)

    async def _commit(self, work: _Work, prepared: Prepared) -> StepReply:
        """Put a call into the next batch; return when it is durable."""
        waiter: asyncio.Future[StepReply] = asyncio.get_running_loop().create_future()

        def done(reply: StepReply) -> None:
            if not waiter.done():
                waiter.set_result(reply)

        # A later expiry may have been joined since the call was prepared.
        latest = prepared.call._replace(expires_at_ms=work.call.expires_at_ms)
        work.is_sealed = True
        self._writer.put(prepared._replace(call=latest), done)
        try:
            return await waiter
        finally:
            work.is_sealed = False

    def _leave(self, work: _Work, reply: StepReply | None) -> None:
        """Answer, and let go on what has waited for it."""
        if work.timer is not None:
            work.timer.cancel()
        self._works.discard(work)
        if self._working.get(_key_of(work.call)) is work:
            del self._working[_key_of(work.call)]
        self._give(work.answer, reply)
        for call, answer in work.joined:
            self._give(answer, None if reply is None else _readdressed(reply, call))
        for call, answer in work.behind:
            if self._is_open:
                self._take(call, answer)
            else:
                self._turn_away(call, answer)
        self._fill()

    def _fill(self) -> None:
        """Begin what waits for a slot, first what goes home."""
        for queue in (self._homeward, self._forward):
            while queue and self._has_slot(queue[0][0]):
                self._take(*queue.popleft())

    def _peek(self, call: StepCall) -> LedgerRow | None:
        """Look at the row before the transaction, only to know what to enter first."""
        try:
            return self.ledger.row(_key_of(call))
        except RecordCorruptError:
            # The transaction finds out by itself, and answers so.
            return None

    def _is_to_be_guarded(self, call: StepCall, row: LedgerRow | None) -> bool:
        if call.verb == ACTION:
            return row is None and self.participant.is_guarded(call)
        if call.verb == COMPENSATION:
            is_to_be_undone = row is not None and row.status in _UNDOABLE
            return is_to_be_undone and self.participant.is_guarded(call)
        return False

    def _fail(self, error: BaseException) -> None:
        """Be silent from now on: what was under way may or may not be on disk."""
        if self._is_failed:
            return
        self._is_failed = True
        self._is_open = False
        self._homeward.clear()
        self._forward.clear()
        self._writer.kill()
        for work in self._works:
            if work.task is not None:
                work.task.cancel()
        self._log.error("participant_failed", error=str(error))
        self._on_fatal(error)


def _key_of(call: StepCall) -> StepKey:
    return StepKey(call.journal_uuid, call.saga_id, call.step)


def _readdressed(reply: StepReply, call: StepCall) -> StepReply:
    """Return `reply` as the answer to `call`, which asked the same."""
    return reply._replace(
        call_id=call.call_id, epoch=call.epoch, attempt=call.attempt, duplicate=True
    )
