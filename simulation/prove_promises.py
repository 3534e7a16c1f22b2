"""What a saga promises, asked of every state and every move of a proof.

Believes the ledgers' rows, what is on its way and what is on disk; of the saga's own opinion
only what it claims to people. The promises are those of the design, in the words of
`docs/ARCHITECTURE.md`; nothing here is shared with what is judged.
"""

from __future__ import annotations

from typing import Any

from raysaga.simulation.prove_world import FrozenSaga, Sample, State
from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import Answer, CallStep, Decision
from raysaga.statemachines.definition import CompensationPolicy, Durability, SagaDefinition
from raysaga.statemachines.events import (
    CompensationStarted,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    StepCalled,
)
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    Input,
    RetryOrdered,
    SkipOrdered,
    StepAnswered,
    Submitted,
)
from raysaga.statemachines.saga import MOVING_BACK, Saga
from raysaga.statemachines.tables import BACKWARD, PARKED, TERMINAL, Phase, StepStatus

TAKEN_BACK = frozenset({LedgerStatus.TOMBSTONE, LedgerStatus.UNDONE})
"""Rows that only an undo leaves."""

PEOPLE = RetryOrdered | SkipOrdered | CompensationForced | CancelRequested

PROMISES = {
    "once": "no effect happens twice, or after its undo or its tombstone",
    "undo_list": "what may have happened is undone, and nothing that never was sent",
    "reverse_order": "a step is undone only when nothing that follows it stands, or ever will",
    "latch": "no action leaves after a compensation, and no phase leads forward again",
    "durable_first": "nothing is sent or told before what it relies on is on disk",
    "requests": "each call asks for the same as the first one for its step",
    "completed": "a completed saga has every effect, and none is taken back",
    "compensated": "a compensated saga has no effect left, nor ever will, but what it lists",
    "parked": "a parked saga lists what stands, and only a person sends it on",
    "final": "an end never changes",
    "not_stuck": "a saga that has not ended waits for an answer or a timer",
    "end_in_reach": "from every state an end can be reached without luck or help",
    "total": "every input has an answer, and every event a row in the tables",
}
"""Stable name of each promise, and what it says."""


class PromiseBrokenError(AssertionError):
    """A promise does not hold in this history.

    Attributes:
        promise: Which of `PROMISES`.
        detail: What is wrong, in one sentence.
    """

    def __init__(self, promise: str, detail: str) -> None:
        assert promise in PROMISES
        super().__init__(promise, detail)
        self.promise = promise
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.promise}: {self.detail}"


def _require(condition: bool, promise: str, detail: str) -> None:
    if not condition:
        raise PromiseBrokenError(promise, detail)


class Promises:
    """The judge of one definition."""

    def __init__(
        self,
        definition: SagaDefinition,
        sample: Sample,
        inert: frozenset[tuple[Any, bool]],
        orders_max: int,
    ) -> None:
        self._definition = definition
        self._orders_max = orders_max
        self._sample = sample
        self._inert = inert
        self._followers = _followers(definition)
        self._undoable = frozenset(i for i, s in enumerate(definition.steps) if s.has_undo)
        self._is_relaxed = definition.durability is Durability.RELAXED
        self._halts = definition.compensation_policy is CompensationPolicy.HALT

    # -- a decision for itself -----------------------------------------------

    def decided(
        self, before: FrozenSaga | None, given: Input, decision: Decision, saga: Saga
    ) -> None:
        """Judge what was decided, of a saga that has not been moved by it yet."""
        called = {(e.step, e.undo, e.attempt) for e in decision.events if isinstance(e, StepCalled)}
        sent = {(c.step, c.undo, c.attempt) for c in decision.commands if isinstance(c, CallStep)}
        _require(called == sent, "total", f"{sent} is sent, and {called} recorded")
        if before is None:
            return
        if before.phase in TERMINAL:
            _require(not decision.events, "final", f"after its end: {decision.events}")
        if before.phase in PARKED and not isinstance(given, PEOPLE):
            moves = [e for e in decision.events if isinstance(e, StepCalled)]
            _require(not moves, "parked", f"nobody has ordered {moves}")
        for event in decision.events:
            if isinstance(event, CompensationStarted) and before.phase is not Phase.RUNNING:
                self._may_turn_back(before, given)
            if isinstance(event, SagaParked):
                _require(bool(event.code and event.message), "parked", "it has no reason")
        told = SagaParked if self._is_relaxed else SagaParked | SagaCompleted | SagaCompensated
        ends = [event for event in decision.events if isinstance(event, told)]
        _require(decision.durable_first or not ends, "durable_first", f"{ends} is not waited for")
        _require(saga.phase is before.phase, "total", "deciding has changed the saga")

    def _may_turn_back(self, before: FrozenSaga, given: Input) -> None:
        allowed = before.phase is Phase.PARKED_RUNNING and isinstance(given, PEOPLE)
        allowed |= before.phase is Phase.FORWARD_ONLY and isinstance(given, StepAnswered)
        _require(allowed, "latch", f"{before.phase.value} turns back upon {given}")

    def heard_twice(self, again: Decision) -> None:
        """Judge what is decided of an answer that has just been heard."""
        _require(not again.events, "once", f"the same answer once more means {again.events}")

    # -- a move --------------------------------------------------------------

    def moved(
        self, state: State, before: FrozenSaga | None, given: Input, decision: Decision
    ) -> None:
        """Judge a decision by the world in which it is made."""
        if not decision.durable_first:
            self._told(given, decision.answer)
        for event in decision.events:
            match event:
                case CompensationStarted():
                    self._turned_back(state, before, event)
                case SagaParked():
                    missing = self._may_stand(state) - set(event.net_effect)
                    _require(not missing, "parked", f"{self._names(missing)} may stand, unlisted")
                case SagaCompensated():
                    left = self._may_stand(state) - set(event.remaining)
                    _require(not left, "compensated", f"{self._names(left)} may stand, unlisted")
                case _:
                    pass

    def _told(self, given: Input, answer: Answer | None) -> None:
        """Judge what somebody is told at once, without a commit."""
        if answer is not Answer.ACCEPTED or (self._is_relaxed and isinstance(given, Submitted)):
            return
        raise PromiseBrokenError("durable_first", f"{type(given).__name__} is granted before that")

    def _turned_back(
        self, state: State, before: FrozenSaga | None, event: CompensationStarted
    ) -> None:
        undo = set(event.undo)
        _require(undo <= self._undoable, "undo_list", "it lists a step that has no undo")
        missing = (self._may_stand(state) & self._undoable) - undo
        _require(not missing, "undo_list", f"{self._names(missing)} may stand, and is left out")
        beyond = self._may_stand(state) - self._undoable
        _require(not beyond, "latch", f"{self._names(beyond)} cannot be undone and may stand")
        if event.step in self._undoable:
            _require(event.step in undo, "undo_list", "the step that failed is left out")
        if before is not None and not before.taken_over and not self._is_relaxed:
            never = {i for i in undo if before.steps[i].status is StepStatus.PENDING}
            _require(not never, "undo_list", f"{self._names(never)} was never sent")

    def takes_effect(self, step: int, row: LedgerStatus, becomes: LedgerStatus) -> None:
        """Judge what a call does to the row of its step."""
        if becomes is LedgerStatus.APPLIED and row is not LedgerStatus.APPLIED:
            fresh = row is LedgerStatus.NOTHING
            _require(fresh, "once", f"{self._names({step})} takes effect after {row.value}")
        if row in TAKEN_BACK:
            _require(becomes is row, "once", f"{self._names({step})} was {row.value}")

    # -- a call that leaves --------------------------------------------------

    def sending(self, state: State, saga: Saga, command: CallStep) -> None:
        """Judge a call by what is on disk, and what may stand, as it leaves."""
        i = command.step
        request_is_whole = saga.request_of(i) == self._sample.requests[i]
        never_sent = state.rows[i] is LedgerStatus.NOTHING and not self._may_act(state, i)
        if not (request_is_whole or (command.undo and never_sent)):
            raise PromiseBrokenError("requests", f"the call to {self._names({i})} lacks something")
        if command.undo:
            self._sending_undo(state, saga, i)
            return
        back = any(row in TAKEN_BACK for row in state.rows) or any(c.undo for c in state.calls)
        _require(not back, "latch", f"{self._names({i})} is sent although undoing has begun")
        if state.disk_phase is None and not self._is_relaxed:
            raise PromiseBrokenError("durable_first", "a call leaves before the saga is on disk")
        if i not in self._undoable:
            _require(
                state.disk_phase is Phase.FORWARD_ONLY,
                "durable_first",
                f"{self._names({i})} cannot be undone, and leaves before GO is on disk",
            )
            early = {
                j
                for j in self._undoable
                if saga.steps[j].status not in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)
            }
            _require(not early, "latch", f"{self._names({i})} is sent before {self._names(early)}")

    def _sending_undo(self, state: State, saga: Saga, i: int) -> None:
        latched = state.disk_phase in BACKWARD
        _require(latched, "durable_first", f"the undo of {self._names({i})} leaves unlatched")
        kept = {j for j, step in enumerate(saga.steps) if step.status in self._excepted(state)}
        late = (self._may_stand(state) & self._followers[i]) - kept
        _require(not late, "reverse_order", f"{self._names({i})} before {self._names(late)}")

    def _excepted(self, state: State) -> set[StepStatus]:
        """Return where a step's undo stands if those before it may go on without it."""
        if self._halts:
            return {StepStatus.UNDO_SKIPPED}
        gave_up = {StepStatus.UNDO_SKIPPED, StepStatus.UNDO_FAILED}
        # What gave up before is tried again side by side, when an operator says so.
        return gave_up | MOVING_BACK if state.orders_left < self._orders_max else gave_up

    # -- a state -------------------------------------------------------------

    def hold(self, state: State, saga: FrozenSaga | None) -> None:
        """Judge a state for itself."""
        if saga is None or state.barrier is not None:
            return
        if saga.phase is Phase.COMPLETED:
            for i, step in enumerate(saga.steps):
                done = state.rows[i] is LedgerStatus.APPLIED
                is_skipped = step.status is StepStatus.SKIPPED
                _require(done or is_skipped, "completed", f"{self._names({i})} did not happen")
            undo = [call for call in state.calls if call.undo]
            _require(not undo, "completed", f"an undo of {self._names({c.step for c in undo})}")
        elif saga.phase not in TERMINAL | PARKED:
            moves = bool(state.awaited or saga.waiting)
            _require(moves, "not_stuck", f"it is {saga.phase.value}, and nothing will move it")

    def _may_stand(self, state: State) -> set[int]:
        """Return the steps whose effect is there, or may yet come."""
        return {
            i
            for i, row in enumerate(state.rows)
            if row is LedgerStatus.APPLIED or self._may_act(state, i)
        }

    def _may_act(self, state: State, i: int) -> bool:
        """Return whether an action is on its way that can still take effect."""
        if (state.rows[i], False) in self._inert:
            return False
        return any(call.step == i and not call.undo for call in state.calls)

    def _names(self, steps: set[int]) -> str:
        return " and ".join(self._definition.steps[i].name for i in sorted(steps))


def _followers(definition: SagaDefinition) -> list[set[int]]:
    """Return by step all steps that come after it, near and far."""
    found: list[set[int]] = [set() for _ in definition.steps]
    for i in reversed(definition.topological):
        for j in definition.dependents[i]:
            found[i] |= {j} | found[j]
    return found
