"""What can happen next to one saga, and what becomes of it.

Guarantees: every order of arrivals, answers, silences, timers, commits, deaths of the host,
a cancel at any moment, and an operator's orders for a parked saga; each as often as it can
still change something, but for the deaths and the orders, which are counted.
Raises: `PromiseBrokenError` at the first move that breaks a promise (see `prove_promises`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from raysaga.simulation.prove_promises import Promises
from raysaga.simulation.prove_world import (
    DEADLINE_AT_MS,
    LEDGER,
    NOBODY,
    NOW_MS,
    RETRY_AT_MS,
    Call,
    FrozenSaga,
    LedgerAnswer,
    Move,
    MoveKind,
    Reply,
    Sample,
    State,
    freeze,
    inert,
)
from raysaga.statemachines.calls import Code, LedgerStatus, Outcome
from raysaga.statemachines.commands import CallStep, Command, Decision
from raysaga.statemachines.decide import decide
from raysaga.statemachines.definition import Durability, SagaDefinition, Step
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    HostRestarted,
    Input,
    RetryOrdered,
    SkipOrdered,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.retry import RetryPolicy
from raysaga.statemachines.saga import MOVING_BACK, Saga, evolve
from raysaga.statemachines.tables import BACKWARD, FORWARD, PARKED, TERMINAL, Phase, StepStatus

RECOVERIES_MAX = 1
"""Bounded like the attempts: a saga that two crashes interrupt without progress is poison."""

SILENCE = LedgerAnswer(Outcome.UNKNOWN, False, Code.TIMEOUT)

ORDERS: Mapping[MoveKind, Input] = {
    MoveKind.ORDER_RETRY: RetryOrdered("operator", ""),
    MoveKind.ORDER_SKIP: SkipOrdered("operator", ""),
    MoveKind.ORDER_FORCE: CompensationForced("operator", ""),
}

GOOD = frozenset(
    {
        MoveKind.SUBMIT,
        MoveKind.ARRIVE,
        MoveKind.HEAR,
        MoveKind.RETRY_DUE,
        MoveKind.COMMIT,
    }
)
"""What happens on a day when all goes well; an end must be in reach by these alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a proof looks; what it does not bound may happen any number of times.

    Attributes:
        attempts_max: Attempts of each call, in each direction and life. At least 1.
        crashes_max: Deaths of the host in one history.
        orders_max: Orders of an operator in one history.
    """

    attempts_max: int = 2
    crashes_max: int = 1
    orders_max: int = 1


class Decided(NamedTuple):
    """What an input has led to."""

    host: int
    decision: Decision


class Moves:
    """All moves of one definition. See the head of this module.

    Attributes:
        definition: With its attempts bounded.
        sagas: Each saga that was met, by number.
    """

    def __init__(self, definition: SagaDefinition, bounds: Bounds) -> None:
        self.definition = bounded(definition, bounds.attempts_max)
        self.bounds = bounds
        self.sample = Sample(self.definition)
        self.sagas: list[FrozenSaga] = []
        self._numbers: dict[FrozenSaga, int] = {}
        self._decided: dict[tuple[int, Input, int], Decided] = {}
        self._disk_forms: dict[int, int] = {}
        self._inert = inert(LEDGER)
        self._promises = Promises(self.definition, self.sample, self._inert, bounds.orders_max)

    def first(self) -> State:
        """Return the state in which nothing has happened."""
        rows = tuple(LedgerStatus.NOTHING for _ in self.definition.steps)
        return State(
            host=NOBODY,
            disk=NOBODY,
            disk_phase=None,
            barrier=None,
            awaited=frozenset(),
            calls=frozenset(),
            replies=frozenset(),
            rows=rows,
            crashes_left=self.bounds.crashes_max,
            orders_left=self.bounds.orders_max,
        )

    # -- what can happen -----------------------------------------------------

    def after(self, state: State) -> Iterator[Move]:
        """Yield every move that `state` allows, in a fixed order, the good ones first."""
        if state.host == NOBODY:
            yield Move(MoveKind.SUBMIT)
        for call in sorted(state.calls):
            for how in range(len(LEDGER[state.rows[call.step], call.undo])):
                yield Move(MoveKind.ARRIVE, call, how)
        if state.barrier is not None:
            yield Move(MoveKind.COMMIT)
        elif state.host != NOBODY:
            yield from self._inputs(state)
        if state.crashes_left and state.host != NOBODY:
            yield Move(MoveKind.CRASH)

    def _inputs(self, state: State) -> Iterator[Move]:
        """Yield what can reach a saga that does not wait for the disk."""
        saga = self.sagas[state.host]
        for reply in sorted(state.replies):
            yield Move(MoveKind.HEAR, reply.call, answer=reply.answer)
        if saga.waiting and saga.phase not in PARKED:
            yield Move(MoveKind.RETRY_DUE)
        for call in sorted(state.awaited):
            yield Move(MoveKind.GIVE_UP_WAITING, call)
        if saga.phase in FORWARD:
            if self.definition.deadline_ms is not None:
                yield Move(MoveKind.DEADLINE)
            yield Move(MoveKind.CANCEL)
        elif saga.phase in PARKED and state.orders_left:
            yield Move(MoveKind.ORDER_RETRY)
            yield Move(MoveKind.ORDER_SKIP)
            if saga.phase is Phase.PARKED_RUNNING:
                yield Move(MoveKind.ORDER_FORCE)
        if state.crashes_left and state.disk != self._disk_form(state.host):
            yield Move(MoveKind.WRITE_BEHIND)

    # -- what becomes of it --------------------------------------------------

    def make(self, state: State, move: Move) -> State:
        """Return what `move` makes of `state`.

        Raises:
            PromiseBrokenError: If that breaks a promise.
        """
        match move.kind:
            case MoveKind.ARRIVE:
                made = self._arrive(state, move)
            case MoveKind.COMMIT:
                made = self._commit(state)
            case MoveKind.WRITE_BEHIND:
                made = self._written(state)
            case MoveKind.CRASH:
                made = self._crash(state)
            case _:
                made = self._input(state, move)
        made = self._without_what_is_over(made)
        self._promises.hold(made, None if made.host == NOBODY else self.sagas[made.host])
        return made

    def given(self, state: State, move: Move) -> tuple[Input, int]:
        """Return the input that a move is for the host, and its instant."""
        match move.kind:
            case MoveKind.SUBMIT:
                deadline = None if self.definition.deadline_ms is None else DEADLINE_AT_MS
                return Submitted("proof", "", "", self.sample.input, deadline), NOW_MS
            case MoveKind.HEAR:
                assert move.call is not None and move.answer is not None
                return self._answered(move.call, move.answer), NOW_MS
            case MoveKind.GIVE_UP_WAITING:
                assert move.call is not None
                return self._answered(move.call, SILENCE), NOW_MS
            case MoveKind.RETRY_DUE:
                return TimeReached(), RETRY_AT_MS
            case MoveKind.DEADLINE:
                return TimeReached(), DEADLINE_AT_MS
            case MoveKind.CANCEL:
                return CancelRequested("caller", ""), NOW_MS
            case MoveKind.CRASH:
                epoch = self.bounds.crashes_max - state.crashes_left + 2
                return HostRestarted(epoch, False, RECOVERIES_MAX), NOW_MS
            case _:
                return ORDERS[move.kind], NOW_MS

    def decided(self, host: int, given: Input, now_ms: int) -> Decided:
        """Return what the engine decides and what that makes of the saga; remembered."""
        # A submission is met in few states, and its input cannot be hashed.
        is_birth = isinstance(given, Submitted)
        found = None if is_birth else self._decided.get((host, given, now_ms))
        if found is not None:
            return found
        saga = self._saga_of(host)
        before = None if host == NOBODY else freeze(saga)
        decision = decide(saga, given, now_ms)
        self._promises.decided(before, given, decision, saga)
        for event in decision.events:
            evolve(saga, event)
        found = Decided(self._number(freeze(saga)), decision)
        if isinstance(given, StepAnswered):
            self._promises.heard_twice(decide(saga, given, now_ms))
        if not is_birth:
            self._decided[host, given, now_ms] = found
        return found

    def ask(self, host: int, given: Input, now_ms: int) -> Decision:
        """Return what the engine decides, whether or not that keeps its promises."""
        return decide(self._saga_of(host), given, now_ms)

    def _saga_of(self, number: int) -> Saga:
        """Return a saga by its number; one that is not accepted yet for `NOBODY`."""
        if number == NOBODY:
            return Saga(SagaId(f"{self.definition.name}:proof"), self.definition)
        return self.sample.thaw(self.sagas[number])

    def _answered(self, call: Call, answer: LedgerAnswer) -> StepAnswered:
        result = None
        if answer.outcome is Outcome.SUCCEEDED and not call.undo:
            result = _Fixed(self.sample.results[call.step])
        return StepAnswered(
            call.step,
            call.undo,
            call.attempt,
            int(answer.outcome),
            answer.stored,
            result,
            answer.code,
            "",
            0,
            0.0,
        )

    def _input(self, state: State, move: Move) -> State:
        given, now_ms = self.given(state, move)
        if move.kind is MoveKind.HEAR:
            # The answer stays, like the call: it may come once more, if it could mean something.
            state = state._replace(awaited=state.awaited - {move.call})
        elif move.kind is MoveKind.GIVE_UP_WAITING:
            state = state._replace(awaited=state.awaited - {move.call})
        elif move.kind in ORDERS:
            state = state._replace(orders_left=state.orders_left - 1)
        return self._take(state, given, now_ms)

    def _take(self, state: State, given: Input, now_ms: int) -> State:
        """Decide; then wait for the disk and act, or act and write behind."""
        host, decision = self.decided(state.host, given, now_ms)
        before = None if state.host == NOBODY else self.sagas[state.host]
        self._promises.moved(state, before, given, decision)
        state = state._replace(host=host)
        if decision.durable_first:
            return state._replace(barrier=decision.commands)
        return self._act(state, decision.commands)

    def _commit(self, state: State) -> State:
        assert state.barrier is not None
        commands = state.barrier
        return self._act(self._written(state)._replace(barrier=None), commands)

    def _written(self, state: State) -> State:
        disk = self._disk_form(state.host) if state.crashes_left else NOBODY
        return state._replace(disk=disk, disk_phase=self.sagas[state.host].phase)

    def _act(self, state: State, commands: tuple[Command, ...]) -> State:
        for command in commands:
            assert isinstance(command, CallStep)
            saga = self.sagas[state.host]
            self._promises.sending(state, self.sample.thaw(saga), command)
            call = Call(command.step, command.undo, command.attempt)
            state = state._replace(calls=state.calls | {call}, awaited=state.awaited | {call})
        return state

    def _arrive(self, state: State, move: Move) -> State:
        call = move.call
        assert call is not None
        i = call.step
        row, answer = LEDGER[state.rows[i], call.undo][move.how]
        self._promises.takes_effect(i, state.rows[i], row)
        rows = (*state.rows[:i], row, *state.rows[i + 1 :])
        replies = state.replies
        if call.attempt:
            replies |= {Reply(call, answer)}
        # The call stays: it may arrive once more, or its first arrival was a copy.
        return state._replace(rows=rows, replies=replies)

    def _crash(self, state: State) -> State:
        """Let the host die, and the next one read what there is."""
        given, now_ms = self.given(state, Move(MoveKind.CRASH))
        state = state._replace(
            host=state.disk,
            barrier=None,
            awaited=frozenset(),
            calls=frozenset(call._replace(attempt=0) for call in state.calls),
            replies=frozenset(),
            crashes_left=state.crashes_left - 1,
        )
        if state.host == NOBODY:
            return state
        state = self._take(state, given, now_ms)
        # Nobody will read the disk again; of what is on it, only the phase is asked for.
        return state if state.crashes_left else state._replace(disk=NOBODY)

    def _without_what_is_over(self, state: State) -> State:
        """Forget calls and answers of which nothing can come any more."""
        saga = None if state.host == NOBODY else self.sagas[state.host]
        calls: set[Call] = set()
        strays: set[Call] = set()
        for call in state.calls:
            dead = (state.rows[call.step], call.undo) in self._inert
            if call in state.awaited or _is_hearable(saga, call):
                if not dead or all(reply.call != call for reply in state.replies):
                    calls.add(call)
            elif not dead:
                strays.add(call._replace(attempt=0))
        # Whatever a stray can do, a call like it that is heard does as well.
        strays -= {call._replace(attempt=0) for call in calls}
        replies = frozenset(
            reply
            for reply in state.replies
            if reply.call in state.awaited or _is_hearable(saga, reply.call)
        )
        return state._replace(calls=frozenset(calls | strays), replies=replies)

    # -- numbers -------------------------------------------------------------

    def _number(self, saga: FrozenSaga) -> int:
        number = self._numbers.get(saga)
        if number is None:
            number = self._numbers[saga] = len(self.sagas)
            self.sagas.append(saga)
        return number

    def _disk_form(self, host: int) -> int:
        """Return the saga as the next host would read it: it does not know what was sent."""
        found = self._disk_forms.get(host)
        if found is None:
            read = self.sagas[host]._replace(in_flight=0, taken_over=True)
            found = self._disk_forms[host] = self._number(read)
        return found


class _Fixed(dict[str, object]):
    """A result that can be part of a key, since each step has one only."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self["of"])


def _is_hearable(saga: FrozenSaga | None, call: Call) -> bool:
    """Return whether an answer that nobody waits for could still mean something."""
    if saga is None or not call.attempt:
        return False
    step = saga.steps[call.step]
    if call.undo:
        return step.status in MOVING_BACK and step.undo_attempt == call.attempt
    if step.attempt != call.attempt:
        return False
    if saga.phase in BACKWARD:
        return step.status is StepStatus.CALLING
    return step.status in (StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN)


def is_end(state: State, saga: FrozenSaga | None) -> bool:
    """Return whether a saga rests: it is over, or parked with nobody to order anything."""
    if saga is None or state.barrier is not None:
        return False
    return saga.phase in TERMINAL or (saga.phase in PARKED and not state.orders_left)


def is_good(state: State, move: Move) -> bool:
    """Return whether a move is one of a good day: no refusal, no loss, no crash."""
    if move.kind is MoveKind.ARRIVE:
        return move.how == 0
    if state.orders_left and move.kind is MoveKind.ORDER_RETRY:
        return True
    return move.kind in GOOD


def bounded(definition: SagaDefinition, attempts_max: int) -> SagaDefinition:
    """Return the definition with at most so many attempts of each call."""

    def at_most(policy: RetryPolicy) -> RetryPolicy:
        return replace(policy, attempts_max=min(policy.attempts_max, attempts_max))

    def bound(step: Step) -> Step:
        return replace(
            step,
            retry=at_most(step.action_retry),
            compensation_retry=at_most(step.compensation_retry),
        )

    return SagaDefinition(
        name=definition.name,
        version=definition.version,
        steps=tuple(bound(step) for step in definition.steps),
        deadline_ms=definition.deadline_ms,
        compensation_policy=definition.compensation_policy,
        durability=definition.durability,
    )


def with_durability(definition: SagaDefinition, durability: Durability) -> SagaDefinition:
    """Return the same recipe with another choice of barriers."""
    return SagaDefinition(
        name=definition.name,
        version=definition.version,
        steps=definition.steps,
        deadline_ms=definition.deadline_ms,
        compensation_policy=definition.compensation_policy,
        durability=durability,
    )
