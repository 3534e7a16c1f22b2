"""The way forward: which steps may be sent next, and what must be durable first."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from raysaga.statemachines.commands import CallStep, Command, Decision
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.events import Event, GoGiven, SagaCompleted, StepCalled
from raysaga.statemachines.saga import DONE, Saga
from raysaga.statemachines.tables import Phase, StepStatus


def go_on(
    saga: Saga, just_done: Collection[int], candidates: Iterable[int], now_ms: int
) -> Decision:
    """Send what can be sent now that the steps `just_done` are done.

    Looks at the candidates and their dependencies only, so that the cost of a
    step does not grow with the length of the saga.
    """
    if just_done and saga.open_count == len(just_done):
        return Decision((SagaCompleted(now_ms),), (), _is_waited_for(saga))
    ready = [
        i
        for i in candidates
        if saga.steps[i].status is StepStatus.PENDING and _may_start(saga, i, just_done)
    ]
    return _send(saga, ready, now_ms, after_result=bool(just_done))


def resume_forward(
    saga: Saga, now_ms: int, *, with_waiting: bool, skipped: Collection[int] = ()
) -> Decision:
    """Send again what was under way, and what is ready; after a takeover or a park.

    `with_waiting` also sends what waits for its retry; else its timer stands, unless it
    waits for a participant that was not served: this engine may serve it.
    """
    again = {StepStatus.CALLING, StepStatus.UNKNOWN, StepStatus.REFUSED}
    if with_waiting:
        again.add(StepStatus.WAITING)
    if saga.open_count == len(skipped):
        return Decision((SagaCompleted(now_ms),), (), _is_waited_for(saga))
    ready = [
        i
        for i, step in enumerate(saga.steps)
        if i not in skipped
        and (
            step.status in again
            or (step.is_unserved and step.status is StepStatus.WAITING)
            or (step.status is StepStatus.PENDING and _may_start(saga, i, skipped))
        )
    ]
    return _send(saga, ready, now_ms, after_result=False)


def _may_start(saga: Saga, i: int, just_done: Collection[int]) -> bool:
    # From the end: answers mostly come in the order sent, so the first look decides, and a
    # step that waits for a thousand does not look at all of them each time one is done.
    for before in reversed(saga.definition.dependencies[i]):
        if before not in just_done and saga.steps[before].status not in DONE:
            return False
    return True


def _send(saga: Saga, ready: list[int], now_ms: int, *, after_result: bool) -> Decision:
    definition = saga.definition
    events: list[Event] = []
    durable_first = False
    may_turn = saga.phase is Phase.RUNNING or saga.phase is Phase.PARKED_RUNNING
    if may_turn and not all(definition.steps[i].has_undo for i in ready):
        # All results before it are in: such a step comes after every compensatable one.
        events.append(GoGiven(now_ms))
        durable_first = True
    commands: list[Command] = []
    for i in ready:
        events.append(StepCalled(i, False, 1, now_ms))
        commands.append(CallStep(i, False, 1))
        if definition.uses[i]:
            # An undo of this step may have to be built again from those results.
            durable_first = True
    if after_result and commands and definition.durability is Durability.STRICT:
        durable_first = True
    return Decision(tuple(events), tuple(commands), durable_first)


def _is_waited_for(saga: Saga) -> bool:
    return saga.definition.durability is not Durability.RELAXED
