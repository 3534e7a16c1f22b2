"""A world for `decide` to be tried in: a host, a disk, a network and participants.

Simulates what the host promises to `decide`, and everything that can go wrong
around it: events wait in memory until a barrier or a write-behind takes them to
the disk; commands leave behind their barrier; no input is decided while a
barrier is under way; a crash forgets what is not on disk and every call under
way, which may arrive all the same, late and twice; an older host may go on
deciding until its first commit is refused; the journal may be put back to an
earlier state. What is promised is checked by `promises`.
"""

from __future__ import annotations

from typing import Any

from raysaga.statemachines.calls import Code, LedgerStatus
from raysaga.statemachines.commands import AskLedgers, CallStep, Command, Decision
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import (
    AttemptFailed,
    CompensationStarted,
    Event,
    GoGiven,
    Recovered,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    SagaResumed,
    StepCalled,
    StepRefused,
    StepSkipped,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import (
    HostRestarted,
    Input,
    LedgersAnswered,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.saga import Saga, StepProgress, evolve, replay
from raysaga.statemachines.tables import Phase, StepStatus

from .model_ledger import Call, ModelLedgers, PromiseBrokenError, Reply, unknown
from .promises import Promises

STEP_EVENTS = (StepCalled, StepSucceeded, StepRefused, AttemptFailed, StepUndone, StepSkipped)
PHASE_EVENTS = (
    GoGiven,
    CompensationStarted,
    SagaCompleted,
    SagaCompensated,
    SagaParked,
    SagaResumed,
)

SAGA_INPUT = {"id": "o-1", "order_id": "o-1", "customer_id": "c", "items": [], "payment": {}}


def state_of(saga: Saga) -> dict[str, Any]:
    """Return all that a saga consists of, as plain values to compare."""
    state = {name: getattr(saga, name) for name in Saga.__slots__ if name != "definition"}
    state["steps"] = [
        tuple(getattr(step, name) for name in StepProgress.__slots__) for step in saga.steps
    ]
    return state


class Host:
    """One incarnation: a saga in memory, and what it has not written yet."""

    def __init__(self, saga: Saga, epoch: int) -> None:
        self.saga = saga
        self.epoch = epoch
        self.pending: list[tuple[Event, ...]] = []
        self.waited: list[Call] = []
        self.given_up: list[Call] = []
        self.asking = False
        self.is_zombie = False


class World:
    """One saga, the hosts that drive it, and all that surrounds them.

    Attributes:
        journal: What is on disk.
        marks: Lengths that the journal had after each write.
        network: Calls that have been sent and may still arrive.
        crash_at_barrier: How many of the decisions not on disk reach it when the next
            barrier is hit by a crash; None for no crash.
        barrier_count: How often a host has waited for the disk.
        torn: How many events of a decision cut short by a crash reach the disk.
    """

    def __init__(
        self,
        definition: SagaDefinition,
        *,
        providers: frozenset[int] = frozenset(),
        recoveries_max: int = 100,
        remembers_restore: bool = False,
        deadline_ms: int | None = None,
    ) -> None:
        self.definition = definition
        self.ledgers = ModelLedgers(definition, providers)
        self.recoveries_max = recoveries_max
        self.deadline_ms = deadline_ms if deadline_ms is not None else definition.deadline_ms
        self.now_ms = 1_000
        self.epoch = 1
        self.journal: list[Event] = []
        self.marks: list[int] = []
        self.network: list[Call] = []
        self.host: Host | None = None
        self.zombies: list[Host] = []
        self.crash_at_barrier: int | None = None
        self.barrier_count = 0
        self.torn = 0
        self.restored_to: int | None = None
        self.remembers_restore = remembers_restore
        self.promises = Promises(self)
        self.seen: dict[str, int] = {}
        self.rows_used: set[tuple[Phase | StepStatus, Phase | StepStatus]] = set()

    # -- the host ------------------------------------------------------------

    @property
    def saga_host(self) -> Host:
        """The newest host."""
        assert self.host is not None
        return self.host

    @property
    def saga(self) -> Saga:
        """The saga in its memory."""
        return self.saga_host.saga

    def call(self, name: str, *, undo: bool = False) -> Call:
        """Return the call that the host waits for."""
        i = self.definition.index[name]
        return next(c for c in self.saga_host.waited if (c.step, c.undo) == (i, undo))

    def waited_for(self) -> list[str]:
        """Return the calls that the host waits for, in the order sent: `pay`, or `-pay` to undo."""
        steps = self.definition.steps
        return [("-" if c.undo else "") + steps[c.step].name for c in self.saga_host.waited]

    def standing(self) -> set[str]:
        """Return the steps whose effect stands in the world."""
        return {self.definition.steps[i].name for i in self.ledgers.standing()}

    def note(self, what: str) -> None:
        """Count something that a random history has reached."""
        self.seen[what] = self.seen.get(what, 0) + 1

    def submit(self) -> None:
        """Let the caller ask for the saga, again if it was lost."""
        assert self.host is None
        assert not self.journal
        self.host = Host(Saga(SagaId("random:1"), self.definition), self.epoch)
        deadline = None if self.deadline_ms is None else self.now_ms + self.deadline_ms
        self.give(Submitted("1", "f", "journal/shard-0", SAGA_INPUT, deadline))

    def give(self, given: Input, host: Host | None = None) -> Decision:
        """Let a host decide, commit and act."""
        host = host or self.host
        assert host is not None
        saga = host.saga
        before = state_of(saga)
        decision = decide(saga, given, self.now_ms)
        if state_of(saga) != before:
            raise PromiseBrokenError(f"deciding {given} changed the saga")
        if decide(saga, given, self.now_ms) != decision:
            raise PromiseBrokenError(f"deciding {given} twice gave two answers")
        self.promises.decided(host, given, decision)
        phase = saga.phase
        for event in decision.events:
            self._evolve(saga, event)
        self.promises.evolved(host, phase, given, decision)
        if decision.events:
            host.pending.append(decision.events)
        if decision.durable_first and not self._commit(host):
            return decision
        for command in decision.commands:
            self._act(host, command)
        if decision.answer is not None and not host.is_zombie:
            self.promises.told(given, decision.answer)
        return decision

    def _evolve(self, saga: Saga, event: Event) -> None:
        """Move the saga, and note which row of a table that used."""
        if isinstance(event, STEP_EVENTS):
            step = saga.steps[event.step]
            status = step.status
            evolve(saga, event)
            self.rows_used.add((status, step.status))
            return
        phase = saga.phase
        evolve(saga, event)
        if isinstance(event, PHASE_EVENTS):
            self.rows_used.add((phase, saga.phase))

    def _commit(self, host: Host) -> bool:
        """Wait for the barrier; return whether the host lives to see it."""
        self.barrier_count += 1
        if host.is_zombie:
            # The journal has a newer owner: the commit is refused, and the host stops.
            self.zombies.remove(host)
            self.note("a zombie stopped at its barrier")
            return False
        if self.crash_at_barrier is not None:
            keep, self.crash_at_barrier = self.crash_at_barrier, None
            self.note("crash at a barrier")
            self.crash(keep=keep)
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Write behind: take all that is decided to the disk."""
        host = self.host
        assert host is not None
        if host.pending:
            self._write([event for events in host.pending for event in events])
            host.pending = []
        again = replay(host.saga.saga_id, self.definition, self.journal, taken_over=False)
        mine, disk = state_of(host.saga), state_of(again)
        for known_in_memory_only in ("taken_over", "in_flight"):
            del mine[known_in_memory_only], disk[known_in_memory_only]
        if mine != disk:
            raise PromiseBrokenError(f"replay differs: {mine} {disk}")

    def _write(self, events: list[Event]) -> None:
        self.journal.extend(events)
        self.marks.append(len(self.journal))
        self.promises.written(events)

    def _act(self, host: Host, command: Command) -> None:
        if isinstance(command, AskLedgers):
            host.asking = True
            return
        assert isinstance(command, CallStep)
        request = host.saga.request_of(command.step)
        call = Call(command.step, command.undo, command.attempt, host.epoch, request)
        self.promises.sending(host, call)
        host.waited.append(call)
        self.network.append(call)

    # -- answers -------------------------------------------------------------

    def reply(self, call: Call, *, refuse: bool = False, host: Host | None = None) -> None:
        """Let a call arrive and its answer come back."""
        if call in self.network:
            self.network.remove(call)
        answer = self.ledgers.deliver(call, refuse=refuse)
        self.hand_over(call, answer, host)

    def hand_over(self, call: Call, reply: Reply, host: Host | None = None) -> None:
        """Give the host an answer, whoever made it."""
        host = host or self.host
        assert host is not None
        host.waited.remove(call)
        if reply.code == Code.FENCED:
            if not host.is_zombie:
                raise PromiseBrokenError("the newest owner was fenced out")
            self.zombies.remove(host)
            self.note("a zombie was fenced out")
            return
        self.give(answered(call, reply), host)

    def time_out(self, call: Call, *, code: str = Code.TIMEOUT, host: Host | None = None) -> None:
        """Let the host give up waiting; the call may still arrive, and its answer too."""
        (host or self.saga_host).given_up.append(call)
        self.hand_over(call, unknown(code), host)

    def reply_late(self, call: Call, *, refuse: bool = False) -> None:
        """Let the answer to a call come back that the host waits for no more."""
        host = self.saga_host
        host.given_up.remove(call)
        self.give(answered(call, self.ledgers.deliver(call, refuse=refuse)))

    def arrive_late(self, call: Call, *, refuse: bool = False, again: bool = False) -> None:
        """Let a call arrive without anybody hearing the answer."""
        if not again and call in self.network:
            self.network.remove(call)
        self.ledgers.deliver(call, refuse=refuse)

    def answer_questions(self, *, only_final: bool) -> bool:
        """Tell the host what every ledger holds; return false if that must wait."""
        host = self.host
        assert host is not None
        held = [self.ledgers.question(i, host.epoch) for i in range(len(self.definition.steps))]
        if only_final and any(status == LedgerStatus.PENDING for status, _ in held):
            return False
        host.asking = False
        self.give(LedgersAnswered([s for s, _ in held], [r for _, r in held]))
        if self.host is host:
            self.give(HostRestarted(host.epoch, False, self.recoveries_max))
        return True

    # -- trouble -------------------------------------------------------------

    def crash(self, *, keep: int = 0, zombie: bool = False) -> None:
        """Stop the host; `keep` of its decisions not on disk had reached it."""
        host = self.host
        assert host is not None
        kept = [event for events in host.pending[:keep] for event in events]
        if self.torn and keep < len(host.pending):
            kept.extend(host.pending[keep][: self.torn])
        host.pending = host.pending[keep:]
        if kept:
            self._write(kept)
        self.host = None
        if zombie:
            host.is_zombie = True
            self.zombies.append(host)
        if not self.journal:
            self.promises.lost_whole()

    def restart(self) -> None:
        """Let a new owner take the saga up; nothing, if the disk holds none."""
        assert self.host is None
        self.epoch += 1
        if not self.journal:
            return
        # A host may forget the restore as soon as the journal says that it was noticed.
        noticed = Recovered in map(type, self.journal[self.restored_to or 0 :])
        restored = self.restored_to is not None and (self.remembers_restore or not noticed)
        saga = replay(SagaId("random:1"), self.definition, self.journal, taken_over=True)
        self.host = Host(saga, self.epoch)
        self.give(HostRestarted(self.epoch, restored, self.recoveries_max))

    def restore(self, mark: int) -> None:
        """Put the journal back to an earlier state, and start on it."""
        assert self.host is None
        del self.journal[mark:]
        self.marks = [length for length in self.marks if length <= mark]
        self.restored_to = mark
        self.epoch += 1_000
        self.promises.restored()
        self.restart()

    # -- quiet ---------------------------------------------------------------

    def heal(self, *, undo_works: bool = True) -> None:
        """Let everything work from now on; the saga must come to rest within a bound.

        Raises:
            PromiseBrokenError: If it does not, or if nothing would ever move it.
        """
        self.crash_at_barrier = None
        if self.host is None:
            self.restart()
        if self.host is None:
            self.submit()
        host = self.host
        assert host is not None
        bound = 40 + 60 * len(self.definition.steps)
        for _ in range(bound):
            if host.saga.is_terminal or (host.saga.is_parked and not host.asking):
                return
            for step in range(len(self.definition.steps)):
                self.ledgers.provider_answers(step, 0)
            if host.asking:
                self.answer_questions(only_final=False)
            elif host.waited:
                call = host.waited[0]
                self.reply(call, refuse=call.undo and not undo_works)
            else:
                self._wait_for_timer(host)
        raise PromiseBrokenError(f"still {host.saga.phase} after {bound} answers")

    def _wait_for_timer(self, host: Host) -> None:
        due_at_ms = host.saga.due_at_ms()
        if due_at_ms is None:
            raise PromiseBrokenError(f"{host.saga.phase}, and nothing will ever move it")
        self.now_ms = max(self.now_ms, due_at_ms)
        if not self.give(TimeReached()).events:
            raise PromiseBrokenError("its timer is due, and means nothing")

    def let_everything_arrive(self) -> None:
        """Deliver every call that is still under way, and let zombies use the answers."""
        for host in list(self.zombies):
            for call in list(host.waited):
                if host in self.zombies and call in host.waited:
                    self.reply(call, host=host)
        while self.network:
            self.arrive_late(self.network[-1])
        for step in range(len(self.definition.steps)):
            self.ledgers.provider_answers(step, 0)


def answered(call: Call, reply: Reply, *, jitter: float = 0.5) -> StepAnswered:
    """Return a reply as the host gives it to `decide`."""
    return StepAnswered(
        call.step,
        call.undo,
        call.attempt,
        int(reply.outcome),
        reply.stored,
        reply.result,
        reply.code,
        f"it said {reply.code}" if reply.code else "",
        0,
        jitter,
    )
