"""One saga, its disk, its calls on the way and its participants' ledgers, as one small value.

Guarantees: from a state, the same move leads to the same state; what is left out of a
state cannot change what follows, so that two histories which end in one state need to be
followed once only. The saga's own part is the engine's `decide` and `evolve`, untouched.

What is abstract: an instant is one of three numbers, a result is one fixed value for each
step, and a ledger's row is its status. A call or an answer stays on its way until nothing
could come of it any more: so each may be lost, late, doubled or overtaken, any number of times.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from raysaga.statemachines.calls import Code, LedgerStatus, Outcome
from raysaga.statemachines.commands import Command
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.saga import MOVING_BACK, Reason, Saga
from raysaga.statemachines.tables import Phase, StepStatus

NOW_MS, RETRY_AT_MS, DEADLINE_AT_MS = 0, 1, 2
"""All instants there are: answers come now, retries are due next, the deadline is last."""

NOBODY: Final = -1
"""Stands for a saga where there is none: nothing on disk, or nothing in memory."""


class FrozenStep(NamedTuple):
    """One step of a saga; what a status makes meaningless is zero."""

    status: StepStatus
    attempt: int
    undo_attempt: int
    has_result: bool
    has_refused: bool


class FrozenSaga(NamedTuple):
    """All that `decide` can see of a saga, but what is the same in every state."""

    phase: Phase
    steps: tuple[FrozenStep, ...]
    undo: frozenset[int]
    undo_left: int
    undo_moving: int
    open_count: int
    in_flight: int
    waiting: int
    taken_over: bool
    recoveries: int
    parked_step: int | None


class Call(NamedTuple):
    """A call on its way; attempt 0 is one whose answer nobody would hear."""

    step: int
    undo: bool
    attempt: int


class LedgerAnswer(NamedTuple):
    """What a participant answers."""

    outcome: Outcome
    stored: bool
    code: str


class Reply(NamedTuple):
    """An answer on its way to the host that lives."""

    call: Call
    answer: LedgerAnswer


class State(NamedTuple):
    """Everything, at one moment.

    Attributes:
        host: The saga in the host's memory, by number; `NOBODY` if none drives it.
        disk: The saga as the next host would read it; `NOBODY` too when none may come.
        disk_phase: Its phase on disk; None if nothing is there.
        barrier: What the host does once its commit has returned; None if it waits for none.
        awaited: Calls that the host waits for.
        calls: Calls that can still arrive and change something.
        replies: Answers that the host can still hear.
        rows: Of the participants' ledgers, by step.
        crashes_left: How often the host may still die.
        orders_left: How often an operator may still order something.
    """

    host: int
    disk: int
    disk_phase: Phase | None
    barrier: tuple[Command, ...] | None
    awaited: frozenset[Call]
    calls: frozenset[Call]
    replies: frozenset[Reply]
    rows: tuple[LedgerStatus, ...]
    crashes_left: int
    orders_left: int


class MoveKind(StrEnum):
    """What can happen next."""

    SUBMIT = "submit"
    ARRIVE = "arrive"
    HEAR = "hear"
    GIVE_UP_WAITING = "give_up_waiting"
    RETRY_DUE = "retry_due"
    DEADLINE = "deadline"
    CANCEL = "cancel"
    WRITE_BEHIND = "write_behind"
    COMMIT = "commit"
    CRASH = "crash"
    ORDER_RETRY = "order_retry"
    ORDER_SKIP = "order_skip"
    ORDER_FORCE = "order_force"


class Move(NamedTuple):
    """One thing that happens.

    Attributes:
        kind: What.
        call: The call that it is about.
        how: Which of the answers that the participant can choose from, or the one heard.
    """

    kind: MoveKind
    call: Call | None = None
    how: int = 0
    answer: LedgerAnswer | None = None


DONE = LedgerAnswer(Outcome.SUCCEEDED, True, "")
NO = LedgerAnswer(Outcome.REFUSED, True, "NO")
CANNOT_UNDO = LedgerAnswer(Outcome.REFUSED, False, "CANNOT_UNDO")
PUT_OFF = LedgerAnswer(Outcome.REFUSED, False, Code.OVERLOADED)
TOO_LATE = LedgerAnswer(Outcome.REFUSED, True, Code.CANCELLED_BEFORE_START)

_Choices = tuple[tuple[LedgerStatus, LedgerAnswer], ...]

LEDGER: Mapping[tuple[LedgerStatus, bool], _Choices] = {
    (LedgerStatus.NOTHING, False): (
        (LedgerStatus.APPLIED, DONE),
        (LedgerStatus.REFUSED, NO),
        # Said before the ledger was looked at: it concerns this attempt only.
        (LedgerStatus.NOTHING, PUT_OFF),
    ),
    (LedgerStatus.NOTHING, True): ((LedgerStatus.TOMBSTONE, DONE),),
    (LedgerStatus.APPLIED, False): ((LedgerStatus.APPLIED, DONE),),
    (LedgerStatus.APPLIED, True): (
        (LedgerStatus.UNDONE, DONE),
        (LedgerStatus.APPLIED, CANNOT_UNDO),
    ),
    (LedgerStatus.REFUSED, False): ((LedgerStatus.REFUSED, NO),),
    (LedgerStatus.REFUSED, True): ((LedgerStatus.REFUSED, DONE),),
    (LedgerStatus.TOMBSTONE, False): ((LedgerStatus.TOMBSTONE, TOO_LATE),),
    (LedgerStatus.TOMBSTONE, True): ((LedgerStatus.TOMBSTONE, DONE),),
    (LedgerStatus.UNDONE, False): ((LedgerStatus.UNDONE, TOO_LATE),),
    (LedgerStatus.UNDONE, True): ((LedgerStatus.UNDONE, DONE),),
}
"""Row and direction of a call (true: undo) to what can come of it; the first choice is the one
of a day when all goes well. Written from the design, and not shared with the real ledger."""


def inert(ledger: Mapping[tuple[LedgerStatus, bool], _Choices]) -> frozenset[Any]:
    """Return the pairs of row and direction at which a call changes nothing, now or ever."""
    reach: dict[LedgerStatus, set[LedgerStatus]] = {
        row: {row, *(to for undo in (False, True) for to, _ in ledger[row, undo])}
        for row, _ in ledger
    }
    for _ in reach:
        for row in reach:
            reach[row] |= {further for near in reach[row] for further in reach[near]}
    return frozenset(
        (row, undo)
        for row, undo in ledger
        if all(to is later for later in reach[row] for to, _ in ledger[later, undo])
    )


def freeze(saga: Saga) -> FrozenSaga:
    """Return what `decide` can see of `saga`."""
    return FrozenSaga(
        saga.phase,
        tuple(
            FrozenStep(
                step.status,
                step.attempt if step.status in _ACTING else 0,
                step.undo_attempt if step.status in MOVING_BACK else 0,
                step.result is not None,
                step.has_refused,
            )
            for step in saga.steps
        ),
        saga.undo,
        saga.undo_left,
        saga.undo_moving,
        saga.open_count,
        saga.in_flight,
        saga.waiting,
        saga.taken_over,
        saga.recoveries,
        None if saga.parked is None else saga.parked.step,
    )


_ACTING = frozenset({StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN})


class Sample:
    """An input and results with which every request of a definition can be built.

    Attributes:
        input: Has something at every path that a request names.
        results: The same, by step.
        requests: What each step asks for when nothing is missing.
    """

    def __init__(self, definition: SagaDefinition) -> None:
        self.definition = definition
        self.input: dict[str, Any] = {}
        self.results: list[dict[str, Any]] = [{"of": step.name} for step in definition.steps]
        paths = {p for step in definition.steps for p in (step.request or {}).values()}
        for path in sorted(paths):
            root, *parts = path.split(".")
            if root == "results":
                _plant(self.results[definition.index[parts[0]]], parts[1:], path)
            else:
                _plant(self.input, parts, path)
        self.requests = [
            definition.request_of(i, self.input, self.results) for i in range(len(definition.steps))
        ]

    def thaw(self, frozen: FrozenSaga) -> Saga:
        """Return a saga that is as `frozen` says."""
        saga = Saga(SagaId(f"{self.definition.name}:proof"), self.definition)
        saga.is_accepted = True
        saga.input = self.input
        saga.phase = frozen.phase
        if self.definition.deadline_ms is not None:
            saga.deadline_at_ms = DEADLINE_AT_MS
        for i, (step, was) in enumerate(zip(saga.steps, frozen.steps, strict=True)):
            step.status, step.attempt, step.undo_attempt, has_result, step.has_refused = was
            step.result = self.results[i] if has_result else None
            step.retry_at_ms = RETRY_AT_MS
        saga.undo = frozen.undo
        saga.undo_left = frozen.undo_left
        saga.undo_moving = frozen.undo_moving
        saga.open_count = frozen.open_count
        saga.in_flight = frozen.in_flight
        saga.waiting = frozen.waiting
        saga.taken_over = frozen.taken_over
        saga.recoveries = frozen.recoveries
        if frozen.phase.value.startswith("parked"):
            saga.parked = Reason("", "", frozen.parked_step)
        return saga


def _plant(root: dict[str, Any], parts: list[str], path: str) -> None:
    """Put something at a path, unless there is something below it already."""
    for part in parts[:-1]:
        below = root.get(part)
        if not isinstance(below, dict):
            below = root[part] = {}
        root = below
    root.setdefault(parts[-1], f"what {path} says")
