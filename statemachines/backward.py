"""The way back: what must be undone, in which order, and when it gives up.

A compensation may be sent once every step that depends on its step has been
undone, and once no action of the saga is under way any more. The list begins
with the step that failed: its outcome may be unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from raysaga.statemachines.calls import Code, Outcome
from raysaga.statemachines.commands import NOTHING, CallStep, Command, Decision
from raysaga.statemachines.definition import CompensationPolicy, Durability
from raysaga.statemachines.events import (
    AttemptFailed,
    CompensationStarted,
    Event,
    SagaCompensated,
    SagaParked,
    StepCalled,
    StepUndone,
)
from raysaga.statemachines.inputs import StepAnswered
from raysaga.statemachines.retry import RetryPolicy
from raysaga.statemachines.saga import MOVING_BACK, PASSED_BACK, Saga
from raysaga.statemachines.tables import Phase, StepStatus

NONE: frozenset[int] = frozenset()


def turn_back(
    saga: Saga,
    before: tuple[Event, ...],
    now_ms: int,
    *,
    code: str,
    message: str,
    step: int | None,
    settled: int | None = None,
    by: str = "",
) -> Decision:
    """Latch the direction backward, durably before the first compensation leaves.

    Args:
        saga: As it stands before the events `before`.
        before: What has just happened.
        now_ms: Unix time.
        code: Why.
        message: The same for people.
        step: The step that it is about.
        settled: The step whose action has just come to an end.
        by: Who wanted it; empty for the engine.
    """
    steps = saga.definition.steps
    undo = tuple(i for i in sorted(saga.may_have_been_sent()) if steps[i].has_undo)
    started = CompensationStarted(now_ms, code, message, step, undo, by)
    onward = NOTHING
    if saga.is_alone_in_flight(settled):
        onward = _undo_next(saga, frozenset(undo), undo, len(undo), NONE, now_ms)
    return Decision((*before, started, *onward.events), onward.commands, True)


def compensation_steps(
    saga: Saga, before: tuple[Event, ...], now_ms: int, *, settled: int
) -> Decision:
    """Begin to undo, if the action that has just settled was the last under way."""
    if not saga.is_alone_in_flight(settled):
        return Decision(before)
    onward = _undo_next(saga, saga.undo, sorted(saga.undo), saga.undo_left, NONE, now_ms)
    strict = saga.definition.durability is Durability.STRICT and bool(onward.commands)
    return Decision(before + onward.events, onward.commands, onward.durable_first or strict)


def answered_undo(saga: Saga, given: StepAnswered, now_ms: int) -> Decision:
    """Decide what the answer to a compensation means."""
    i = given.step
    step = saga.steps[i]
    if step.status not in MOVING_BACK or step.undo_attempt != given.attempt:
        return NOTHING
    if step.status is StepStatus.UNDO_WAITING and given.outcome != Outcome.SUCCEEDED:
        # The attempt was given up already; only a late success tells something new.
        return NOTHING
    if given.outcome == Outcome.SUCCEEDED:
        undone = StepUndone(i, given.attempt, now_ms, given.result)
        if saga.phase is not Phase.COMPENSATING:
            return Decision((undone,))
        onward = _undo_next(
            saga,
            saga.undo,
            saga.definition.dependencies[i],
            saga.undo_left - 1,
            frozenset((i,)),
            now_ms,
        )
        strict = saga.definition.durability is Durability.STRICT and bool(onward.commands)
        return Decision((undone, *onward.events), onward.commands, onward.durable_first or strict)
    return _undo_failed(saga, given, now_ms)


def retry_delay_ms(policy: RetryPolicy, given: StepAnswered) -> int | None:
    """Return the wait before the next attempt, None to give up.

    Without a limit where the engine only was started without the participant: a name that is
    missing today is no reason to undo, or to give up undoing, what was accepted.
    """
    if given.code == Code.NO_SUCH_PARTICIPANT:
        return max(policy.delay_ms_max, given.retry_after_ms)
    return policy.delay_ms(given.attempt, given.jitter, given.retry_after_ms)


def _undo_failed(saga: Saga, given: StepAnswered, now_ms: int) -> Decision:
    i = given.step
    step = saga.definition.steps[i]
    delay_ms = None
    if saga.phase is Phase.COMPENSATING and given.outcome != Outcome.REFUSED:
        delay_ms = retry_delay_ms(step.compensation_retry, given)
    retry_at_ms = None if delay_ms is None else now_ms + delay_ms
    failed = AttemptFailed(i, True, given.attempt, now_ms, given.code, given.message, retry_at_ms)
    if retry_at_ms is not None or saga.phase is not Phase.COMPENSATING:
        return Decision((failed,))
    refused = given.outcome == Outcome.REFUSED
    code = "COMPENSATION_REFUSED" if refused else "COMPENSATION_STUCK"
    why = f"undoing {step.name} gave up after {given.attempt} attempts: " + (
        given.message or given.code
    )
    if saga.definition.compensation_policy is CompensationPolicy.CONTINUE:
        onward = _undo_next(
            saga,
            saga.undo,
            saga.definition.dependencies[i],
            saga.undo_left,
            frozenset((i,)),
            now_ms,
            given_up=(code, why, i),
        )
        return Decision((failed, *onward.events), onward.commands, onward.durable_first)
    parked = SagaParked(now_ms, code, why, i, saga.net_effect())
    return Decision((failed, parked), (), True)


def recall_undos(
    saga: Saga, now_ms: int, *, only_called: bool, skipped: frozenset[int] = NONE
) -> Decision:
    """Send compensations again after a takeover, or after an operator's word.

    `only_called` leaves what waits for its retry to its timer, and what gave up alone; what
    waits for a participant that was not served is sent, for this engine may serve it.
    """
    again = {StepStatus.UNDOING}
    if not only_called:
        again |= {StepStatus.UNDO_WAITING, StepStatus.UNDO_FAILED}
    events: list[Event] = []
    commands: list[Command] = []
    for i in sorted(saga.undo - skipped, reverse=True):
        step = saga.steps[i]
        if step.status in again or (step.is_unserved and step.status is StepStatus.UNDO_WAITING):
            events.append(StepCalled(i, True, 1, now_ms))
            commands.append(CallStep(i, True, 1))
    left = saga.undo_left - len(skipped)
    # What is called again has not passed, so nothing that comes before it is ready.
    called = frozenset(c.step for c in commands if isinstance(c, CallStep))
    onward = _undo_next(
        saga,
        saga.undo,
        sorted(saga.undo),
        left,
        skipped,
        now_ms,
        called=called,
        skipped=skipped,
    )
    return Decision((*events, *onward.events), (*commands, *onward.commands), onward.durable_first)


def _undo_next(
    saga: Saga,
    undo: frozenset[int],
    candidates: Iterable[int],
    left: int,
    passed: frozenset[int],
    now_ms: int,
    *,
    called: frozenset[int] = NONE,
    skipped: frozenset[int] = NONE,
    given_up: tuple[str, str, int] | None = None,
) -> Decision:
    """Send the compensations among `candidates` that nothing holds back any more.

    Args:
        saga: As it stands before the events of this decision.
        undo: All that is to be undone.
        candidates: Where to look.
        left: How many will still have to be undone.
        passed: Steps that count as undone from this decision on.
        now_ms: Unix time.
        called: Steps that this decision calls again.
        skipped: Those of `passed` that were not undone: an operator lets their effect stand.
        given_up: Code, message and step of the compensation that has just given up.
    """
    if left == 0:
        kept = {i for i in undo if saga.steps[i].status is StepStatus.UNDO_SKIPPED} | skipped
        remaining = tuple(i for i in sorted(kept) if not saga.steps[i].has_refused)
        waited_for = saga.definition.durability is not Durability.RELAXED
        return Decision((SagaCompensated(now_ms, remaining),), (), waited_for)
    events: list[Event] = []
    commands: list[Command] = []
    for i in sorted(candidates, reverse=True):
        if i not in undo or saga.steps[i].status in _TOUCHED:
            continue
        if all(_has_passed(saga, j, passed) for j in saga.definition.dependents[i] if j in undo):
            events.append(StepCalled(i, True, 1, now_ms))
            commands.append(CallStep(i, True, 1))
    if not commands and not called:
        return _park_if_nothing_moves(saga, undo, passed, given_up, passed - skipped, now_ms)
    return Decision(tuple(events), tuple(commands))


_TOUCHED = PASSED_BACK | MOVING_BACK | {StepStatus.UNDO_FAILED}


def _has_passed(saga: Saga, i: int, passed: Collection[int]) -> bool:
    if i in passed or saga.steps[i].status in PASSED_BACK:
        return True
    return (
        saga.definition.compensation_policy is CompensationPolicy.CONTINUE
        and saga.steps[i].status is StepStatus.UNDO_FAILED
    )


def _park_if_nothing_moves(
    saga: Saga,
    undo: frozenset[int],
    passed: frozenset[int],
    given_up: tuple[str, str, int] | None,
    undone: frozenset[int],
    now_ms: int,
) -> Decision:
    """Park a saga of which all that is left to undo has given up."""
    if saga.undo_moving > sum(saga.steps[i].status in MOVING_BACK for i in passed):
        return NOTHING
    net_effect = set(saga.net_effect())
    if given_up is None:
        failed = [i for i in undo - passed if saga.steps[i].status is StepStatus.UNDO_FAILED]
        # Whatever is ready has been sent; so only what gave up can hold the rest.
        assert failed
        net_effect -= undone
        why = f"undoing {saga.definition.steps[min(failed)].name} had given up"
        given_up = ("COMPENSATION_STUCK", why, min(failed))
    code, why, step = given_up
    return Decision((SagaParked(now_ms, code, why, step, tuple(sorted(net_effect))),), (), True)
