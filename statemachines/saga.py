"""A saga as it stands, and how events move it.

`evolve` is the only code that changes a `Saga`; it moves phase and status by
the tables, through `machine`, and keeps the counters that make deciding cheap.
The same events in the same order give the same saga, on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from raysaga.statemachines.calls import Code, LedgerStatus
from raysaga.statemachines.definition import Durability, SagaDefinition
from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    CompensationStarted,
    Event,
    GoGiven,
    LedgersAsked,
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
from raysaga.statemachines.folding import Foldable, fold, unfold
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.machine import move_saga, move_step
from raysaga.statemachines.tables import BACKWARD, PARKED, TERMINAL, Phase, StepStatus

DONE = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})
"""A step that depends only on such steps may be sent."""

PASSED_BACK = frozenset({StepStatus.UNDONE, StepStatus.UNDO_SKIPPED})
"""What came before such steps may be undone."""

MOVING_BACK = frozenset({StepStatus.UNDOING, StepStatus.UNDO_WAITING})
"""A compensation that is under way, or due later."""

MAY_STAND = frozenset(
    {
        StepStatus.CALLING,
        StepStatus.WAITING,
        StepStatus.UNKNOWN,
        StepStatus.SUCCEEDED,
        StepStatus.SKIPPED,
        StepStatus.UNDOING,
        StepStatus.UNDO_WAITING,
        StepStatus.UNDO_FAILED,
        StepStatus.UNDO_SKIPPED,
    }
)
"""The step's effect stands, or nobody knows."""

LEDGER_MAY_STAND = frozenset(
    {LedgerStatus.APPLIED.value, LedgerStatus.PENDING.value, LedgerStatus.UNKNOWN.value}
)
"""The same as a participant's ledger says it."""


class Reason(NamedTuple):
    """Why a saga turned back, or waits for a person."""

    code: str
    message: str
    step: int | None


class StepProgress:
    """One step of one saga.

    Attributes:
        status: Moved by the table only.
        attempt: The last attempt of the action, 0 before the first.
        undo_attempt: The same for the compensation.
        called_at_ms: When the last attempt of either call was decided.
        retry_at_ms: When a waiting call is due.
        has_refused: Whether its participant has refused it for good, so that no effect can stand.
        is_unserved: Whether the last attempt that failed met an engine without its participant.
    """

    __slots__ = (
        "_result",
        "attempt",
        "called_at_ms",
        "has_refused",
        "is_unserved",
        "retry_at_ms",
        "status",
        "undo_attempt",
    )

    def __init__(self) -> None:
        self.status = StepStatus.PENDING
        self.attempt = 0
        self.undo_attempt = 0
        self._result: Foldable = None
        self.called_at_ms = 0
        self.retry_at_ms = 0
        self.has_refused = False
        self.is_unserved = False

    @property
    def result(self) -> Mapping[str, Any] | None:
        """What the action gave; None until then."""
        held = self._result
        if isinstance(held, bytes):
            held = self._result = unfold(held)
        return held

    @result.setter
    def result(self, given: Mapping[str, Any] | None) -> None:
        self._result = given

    def fold(self) -> None:
        """Keep the result as bytes until it is read."""
        self._result = fold(self._result)


_NO_STEPS: Final[frozenset[int]] = frozenset()
"""One for all sagas: since Python 3.10 each empty set is an object of 216 bytes."""


class Saga:
    """One saga's long-lived transaction, in memory.

    Attributes:
        saga_id: Its name.
        definition: Its recipe.
        phase: Where it stands; moved by the table only.
        steps: In the order of the definition.
        is_accepted: Whether it exists yet.
        undo: What must be undone, once it has turned back.
        taken_over: Whether an earlier incarnation of its host may have sent calls that
            were never recorded.
        must_ask: Whether its journal was restored and its ledgers have not been heard yet.
        held_by_ledgers: Steps of which the ledgers said, after a restore, that their effect
            stands or may stand.
        recoveries: Takeovers since it last made progress.
        waiting: Steps with a call that is due later: bit i for step i, like the next, since a set
            takes as much memory as two steps even when it is empty.
        in_flight: Steps whose action this incarnation has sent and not heard of.
        open_count: Number of steps that are not done.
        undo_left: Number of steps still to undo.
        undo_moving: Number of those whose compensation is under way or due later.
        turned: Why it turned back, if it did.
        parked: Why it waits for a person, while it does.
    """

    __slots__ = (
        "_input",
        "accepted_at_ms",
        "deadline_at_ms",
        "definition",
        "fingerprint",
        "held_by_ledgers",
        "in_flight",
        "is_accepted",
        "key",
        "must_ask",
        "open_count",
        "parked",
        "phase",
        "recoveries",
        "saga_id",
        "scope",
        "steps",
        "taken_over",
        "turned",
        "undo",
        "undo_left",
        "undo_moving",
        "waiting",
    )

    def __init__(self, saga_id: SagaId, definition: SagaDefinition) -> None:
        self.saga_id = saga_id
        self.definition = definition
        self.phase = Phase.RUNNING
        self.steps = [StepProgress() for _ in definition.steps]
        self._input: Foldable = {}
        self.key = ""
        self.fingerprint = ""
        self.scope = ""
        self.is_accepted = False
        self.accepted_at_ms = 0
        self.deadline_at_ms: int | None = None
        self.undo = _NO_STEPS
        self.taken_over = False
        self.must_ask = False
        self.held_by_ledgers = _NO_STEPS
        self.recoveries = 0
        self.waiting = 0
        self.in_flight = 0
        self.open_count = len(self.steps)
        self.undo_left = 0
        self.undo_moving = 0
        self.turned: Reason | None = None
        self.parked: Reason | None = None

    @property
    def input(self) -> Mapping[str, Any]:
        """What it was submitted with."""
        held = self._input
        if isinstance(held, bytes):
            held = self._input = unfold(held)
        assert held is not None
        return held

    @input.setter  # noqa: A003 - as inputs and events call it
    def input(self, given: Mapping[str, Any]) -> None:
        self._input = given

    def fold(self) -> None:
        """Keep its input and results as bytes until they are read: it is likely to wait."""
        self._input = fold(self._input)
        for step in self.steps:
            step.fold()

    @property
    def is_terminal(self) -> bool:
        """Whether it has ended for good."""
        return self.phase in TERMINAL

    @property
    def is_parked(self) -> bool:
        """Whether it waits for a person."""
        return self.phase in PARKED

    @property
    def reason(self) -> Reason | None:
        """What to tell people: why it is parked, else why it turned back."""
        return self.parked or self.turned

    def due_at_ms(self) -> int | None:
        """Return when the saga must be looked at even if nothing arrives; None for never."""
        if self.phase in TERMINAL or self.phase in PARKED or self.must_ask:
            return None
        due = self.deadline_at_ms if self.phase is Phase.RUNNING else None
        for i in steps_in(self.waiting):
            at_ms = self.steps[i].retry_at_ms
            if due is None or at_ms < due:
                due = at_ms
        return due

    def request_of(self, step: int) -> Mapping[str, Any]:
        """Return the request of a step; its action and its compensation get the same."""
        # Only what it declares, so that a long saga's steps cost no more than a short one's.
        results = {i: self.steps[i].result for i in self.definition.uses[step]}
        return self.definition.request_of(step, self.input, results)

    def is_alone_in_flight(self, step: int | None) -> bool:
        """Return whether no action but that of `step` is under way."""
        return self.in_flight in (0, 0 if step is None else 1 << step)

    def may_have_been_sent(self) -> set[int]:
        """Return every step that may have taken effect.

        After a takeover the log is only a prefix of what an earlier incarnation
        did: whatever it could have reached, supposing that unrecorded steps
        succeeded, up to the next barrier that the log does not hold. A relaxed
        saga may have had an earlier incarnation that left no log at all.
        """
        definition = self.definition
        sent = {i for i, step in enumerate(self.steps) if step.status is not StepStatus.PENDING}
        sent |= self.held_by_ledgers
        may_hide = self.taken_over or definition.durability is Durability.RELAXED
        if not may_hide or definition.durability is Durability.STRICT:
            return sent
        forward_only = self.phase in (Phase.FORWARD_ONLY, Phase.PARKED_FORWARD)
        for i in definition.topological:
            if forward_only or definition.steps[i].has_undo:
                used = definition.uses[i]
                if sent.issuperset(definition.dependencies[i]) and all(
                    self.steps[j].status is StepStatus.SUCCEEDED for j in used
                ):
                    sent.add(i)
        return sent

    def net_effect(self) -> tuple[int, ...]:
        """Return the steps whose effect stands or may stand."""
        if self.phase in BACKWARD:
            unseen = set(self.undo | self.held_by_ledgers)
        else:
            unseen = self.may_have_been_sent()
        return tuple(
            i
            for i, step in enumerate(self.steps)
            if not step.has_refused
            and (step.status in MAY_STAND or (step.status is StepStatus.PENDING and i in unseen))
        )


def steps_in(bits: int) -> list[int]:
    """Return the steps for which `bits` stands, ascending."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def replay(
    saga_id: SagaId, definition: SagaDefinition, events: Iterable[Event], *, taken_over: bool
) -> Saga:
    """Return the saga that `events` lead to, for a host that has sent nothing for it yet.

    `taken_over` tells whether an earlier host may have sent calls that were not recorded.

    Raises:
        IllegalMove: If they are no legal history.
    """
    saga = Saga(saga_id, definition)
    for event in events:
        evolve(saga, event)
    # What an earlier host sent will not be answered to this one.
    saga.in_flight = 0
    saga.taken_over = saga.taken_over or taken_over
    return saga


def evolve(saga: Saga, event: Event) -> None:
    """Move `saga` by what has happened.

    Raises:
        IllegalMove: If the tables do not allow it: a bug, or a journal that is not this saga's.
    """
    _EVOLVE[type(event)](saga, event)


def _accepted(saga: Saga, event: Accepted) -> None:
    saga.is_accepted = True
    saga.input = event.input
    saga.key = event.key
    saga.fingerprint = event.fingerprint
    saga.scope = event.scope
    saga.accepted_at_ms = event.at_ms
    saga.deadline_at_ms = event.deadline_at_ms


def _step_called(saga: Saga, event: StepCalled) -> None:
    step = saga.steps[event.step]
    if event.undo:
        saga.undo_moving += step.status not in MOVING_BACK
        move_step(step, "undo")
        step.undo_attempt = event.attempt
        saga.in_flight &= ~(1 << event.step)
    else:
        move_step(step, "call")
        step.attempt = event.attempt
        saga.in_flight |= 1 << event.step
    step.called_at_ms = event.at_ms
    saga.waiting &= ~(1 << event.step)


def _settle(saga: Saga, i: int) -> StepProgress:
    """Take an action off the lists of those under way; return its step."""
    saga.in_flight &= ~(1 << i)
    saga.waiting &= ~(1 << i)
    return saga.steps[i]


def _step_succeeded(saga: Saga, event: StepSucceeded) -> None:
    step = _settle(saga, event.step)
    move_step(step, "succeed")
    step.result = event.result
    saga.open_count -= 1
    saga.recoveries = 0


def _step_refused(saga: Saga, event: StepRefused) -> None:
    step = _settle(saga, event.step)
    move_step(step, "refuse")
    step.has_refused = True
    saga.recoveries = 0


_CALLED = frozenset({StepStatus.CALLING, StepStatus.UNDOING})


def _attempt_failed(saga: Saga, event: AttemptFailed) -> None:
    step = saga.steps[event.step]
    if event.undo:
        move_step(step, "undo_give_up" if event.retry_at_ms is None else "undo_wait")
        if event.retry_at_ms is None:
            saga.undo_moving -= 1
    else:
        _settle(saga, event.step)
        move_step(step, "give_up" if event.retry_at_ms is None else "wait")
    if event.retry_at_ms is not None:
        step.retry_at_ms = event.retry_at_ms
        saga.waiting |= 1 << event.step
    step.is_unserved = event.code == Code.NO_SUCH_PARTICIPANT
    if step.is_unserved and not any(other.status in _CALLED for other in saga.steps):
        # Engines may come and go without the participant; none of them was brought down by this.
        saga.recoveries = 0


def _step_undone(saga: Saga, event: StepUndone) -> None:
    move_step(saga.steps[event.step], "undone")
    saga.waiting &= ~(1 << event.step)
    saga.undo_left -= 1
    saga.undo_moving -= 1
    saga.recoveries = 0


def _step_skipped(saga: Saga, event: StepSkipped) -> None:
    step = saga.steps[event.step]
    if event.undo:
        saga.undo_moving -= step.status in MOVING_BACK
        move_step(step, "skip_undo")
        saga.waiting &= ~(1 << event.step)
        saga.undo_left -= 1
    else:
        move_step(_settle(saga, event.step), "skip")
        saga.open_count -= 1


def _go_given(saga: Saga, _event: GoGiven) -> None:
    move_saga(saga, "go")


def _compensation_started(saga: Saga, event: CompensationStarted) -> None:
    forward = saga.phase in (Phase.FORWARD_ONLY, Phase.PARKED_FORWARD)
    move_saga(saga, "pivot_refused" if forward else "turn_back")
    saga.undo = frozenset(event.undo)
    saga.undo_left = len(saga.undo)
    # No action is sent again: the direction is latched.
    saga.waiting = 0
    saga.turned = Reason(event.code, event.message, event.step)


def _completed(saga: Saga, _event: SagaCompleted) -> None:
    move_saga(saga, "complete")


def _compensated(saga: Saga, _event: SagaCompensated) -> None:
    move_saga(saga, "compensate")


def _parked(saga: Saga, event: SagaParked) -> None:
    move_saga(saga, "park")
    saga.parked = Reason(event.code, event.message, event.step)


def _resumed(saga: Saga, _event: SagaResumed) -> None:
    move_saga(saga, "resume")
    saga.parked = None
    saga.recoveries = 0


def _recovered(saga: Saga, event: Recovered) -> None:
    saga.taken_over = True
    saga.must_ask = saga.must_ask or event.restored
    saga.recoveries = event.recoveries
    # What an earlier incarnation sent will not be answered to this one.
    saga.in_flight = 0


def _ledgers_asked(saga: Saga, event: LedgersAsked) -> None:
    saga.held_by_ledgers = frozenset(
        i for i, status in enumerate(event.statuses) if status in LEDGER_MAY_STAND
    )
    saga.must_ask = False
    # The takeover that asked goes on as a second one, which is counted instead.
    saga.recoveries = max(saga.recoveries - 1, 0)


_EVOLVE: Mapping[type[Any], Any] = {
    Accepted: _accepted,
    StepCalled: _step_called,
    StepSucceeded: _step_succeeded,
    StepRefused: _step_refused,
    AttemptFailed: _attempt_failed,
    StepUndone: _step_undone,
    StepSkipped: _step_skipped,
    GoGiven: _go_given,
    CompensationStarted: _compensation_started,
    SagaCompleted: _completed,
    SagaCompensated: _compensated,
    SagaParked: _parked,
    SagaResumed: _resumed,
    Recovered: _recovered,
    LedgersAsked: _ledgers_asked,
}
