"""Decides what an input means for a saga: `decide(saga, input, now) -> events, commands`.

Pure and total: it changes nothing, reads no clock, draws no chance, and has an
answer for every saga and every input; an input that means nothing decides
nothing. What follows forward is in `forward`, the way back in `backward`.

The rule behind each barrier (`durable_first`): what a crash may not forget must
be on disk before anything that relies on it leaves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

from raysaga.statemachines.backward import (
    answered_undo,
    compensation_steps,
    recall_undos,
    retry_delay_ms,
    turn_back,
)
from raysaga.statemachines.calls import Code, Outcome
from raysaga.statemachines.commands import NOTHING, Answer, AskLedgers, CallStep, Decision
from raysaga.statemachines.definition import Durability, StepKind
from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    Event,
    Recovered,
    SagaParked,
    SagaResumed,
    StepCalled,
    StepRefused,
    StepSkipped,
    StepSucceeded,
)
from raysaga.statemachines.forward import go_on, resume_forward
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    HostRestarted,
    Input,
    LedgersAnswered,
    RetryOrdered,
    SkipOrdered,
    StepAnswered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.restored import reconcile
from raysaga.statemachines.saga import DONE, MOVING_BACK, Saga, steps_in
from raysaga.statemachines.tables import BACKWARD, FORWARD, Phase, StepStatus


def decide(saga: Saga, given: Input, now_ms: int) -> Decision:
    """Return what `given` means for `saga` at `now_ms` (Unix time). See the module."""
    if saga.must_ask and not isinstance(given, HostRestarted | LedgersAnswered):
        return _before_the_ledgers(given)
    if not saga.is_accepted and not isinstance(given, Submitted):
        return NOTHING
    match given:
        case StepAnswered():
            if given.undo:
                return answered_undo(saga, given, now_ms)
            return _answered_action(saga, given, now_ms)
        case Submitted():
            return _submitted(saga, given, now_ms)
        case TimeReached():
            return _time_reached(saga, now_ms)
        case HostRestarted():
            return _host_restarted(saga, given, now_ms)
        case LedgersAnswered():
            return reconcile(saga, given, now_ms)
        case CancelRequested() | CompensationForced():
            return _wanted_back(saga, given, now_ms)
        case RetryOrdered():
            return _retry_ordered(saga, given, now_ms)
        case SkipOrdered():
            return _skip_ordered(saga, given, now_ms)
        case _:
            assert_never(given)


def _before_the_ledgers(given: Input) -> Decision:
    """Nothing is dispatched, cancelled or timed out before every step was asked about."""
    if isinstance(given, StepAnswered | TimeReached):
        return NOTHING
    if isinstance(given, Submitted):
        return Decision(answer=Answer.ALREADY)
    return Decision(answer=Answer.LEDGERS_NOT_ASKED)


def _submitted(saga: Saga, given: Submitted, now_ms: int) -> Decision:
    if saga.is_accepted:
        return Decision(answer=Answer.ALREADY)
    definition = saga.definition
    accepted = Accepted(
        definition.name,
        definition.content_hash,
        given.key,
        given.fingerprint,
        given.scope,
        given.input,
        now_ms,
        given.deadline_at_ms,
    )
    roots = [i for i, before in enumerate(definition.dependencies) if not before]
    onward = go_on(saga, (), roots, now_ms)
    return Decision(
        (accepted, *onward.events),
        onward.commands,
        onward.durable_first or definition.durability is not Durability.RELAXED,
        Answer.ACCEPTED,
    )


def _answered_action(saga: Saga, given: StepAnswered, now_ms: int) -> Decision:
    step = saga.steps[given.step]
    if step.status not in _HEARS or step.attempt != given.attempt:
        return NOTHING
    if step.status is not StepStatus.CALLING and (
        saga.phase in BACKWARD or not _is_definite(given)
    ):
        # The attempt was given up already; late, only what is final tells something new.
        return NOTHING
    if given.outcome == Outcome.SUCCEEDED:
        done = StepSucceeded(given.step, given.attempt, now_ms, given.result)
        return _settled(saga, given.step, (done,), now_ms)
    if _is_definite(given):
        return _refused(saga, given, now_ms)
    return _attempt_failed(saga, given, now_ms)


_HEARS = frozenset({StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN})


def _is_definite(given: StepAnswered) -> bool:
    """Return whether the answer will be the same for ever.

    A refusal that is not the ledger's row concerns one attempt only.
    """
    return given.outcome == Outcome.SUCCEEDED or (given.outcome == Outcome.REFUSED and given.stored)


def _settled(saga: Saga, i: int, events: tuple[Event, ...], now_ms: int) -> Decision:
    """Go on after step `i` is done, whichever way the saga faces."""
    if saga.phase in FORWARD:
        onward = go_on(saga, (i,), saga.definition.dependents[i], now_ms)
        return Decision(events + onward.events, onward.commands, onward.durable_first)
    if saga.phase is Phase.COMPENSATING:
        return compensation_steps(saga, events, now_ms, settled=i)
    return Decision(events)


def _refused(saga: Saga, given: StepAnswered, now_ms: int) -> Decision:
    i = given.step
    step = saga.definition.steps[i]
    refused = StepRefused(i, given.attempt, now_ms, given.code, given.message)
    if saga.phase not in FORWARD:
        if saga.phase is Phase.COMPENSATING:
            return compensation_steps(saga, (refused,), now_ms, settled=i)
        return Decision((refused,))
    # A tombstone tells that the saga had turned back: to go on without the step would be wrong.
    if step.best_effort and given.code != Code.CANCELLED_BEFORE_START:
        skipped = StepSkipped(i, False, now_ms, "", given.code)
        return _settled(saga, i, (refused, skipped), now_ms)
    if saga.phase is Phase.RUNNING or (step.kind is StepKind.PIVOT and not _is_beyond(saga)):
        return turn_back(
            saga, (refused,), now_ms, code=given.code, message=given.message, step=i, settled=i
        )
    why = f"{step.name} was refused beyond the point of no return: {given.message}"
    return _park(saga, (refused,), now_ms, "STEP_REFUSED", why, i, refused=i)


def _is_beyond(saga: Saga) -> bool:
    """Return whether a step without an undo is known to have happened."""
    return any(
        progress.status is StepStatus.SUCCEEDED and not step.has_undo
        for step, progress in zip(saga.definition.steps, saga.steps, strict=True)
    )


def _attempt_failed(saga: Saga, given: StepAnswered, now_ms: int) -> Decision:
    i = given.step
    step = saga.definition.steps[i]
    delay_ms = None
    if saga.phase in FORWARD:
        delay_ms = retry_delay_ms(step.action_retry, given)
    retry_at_ms = None if delay_ms is None else now_ms + delay_ms
    failed = AttemptFailed(i, False, given.attempt, now_ms, given.code, given.message, retry_at_ms)
    if retry_at_ms is not None:
        return Decision((failed,))
    if saga.phase is Phase.COMPENSATING:
        return compensation_steps(saga, (failed,), now_ms, settled=i)
    if saga.phase not in FORWARD:
        return Decision((failed,))
    if step.best_effort:
        skipped = StepSkipped(i, False, now_ms, "", given.code)
        return _settled(saga, i, (failed, skipped), now_ms)
    if saga.phase is Phase.RUNNING:
        return turn_back(
            saga, (failed,), now_ms, code=given.code, message=given.message, step=i, settled=i
        )
    code = "PIVOT_UNKNOWN" if step.kind is StepKind.PIVOT else "STEP_STUCK"
    why = f"{step.name} gave up after {given.attempt} attempts: {given.message or given.code}"
    return _park(saga, (failed,), now_ms, code, why, i)


def _park(
    saga: Saga,
    events: tuple[Event, ...],
    now_ms: int,
    code: str,
    why: str,
    step: int | None,
    *,
    refused: int | None = None,
) -> Decision:
    """Leave the saga to a person; `refused` is the step that this decision saw refused."""
    net_effect = tuple(i for i in saga.net_effect() if i != refused)
    parked = SagaParked(now_ms, code, why, step, net_effect)
    return Decision((*events, parked), (), True)


def _time_reached(saga: Saga, now_ms: int) -> Decision:
    if saga.is_terminal or saga.is_parked:
        return NOTHING
    deadline = saga.deadline_at_ms
    if saga.phase is Phase.RUNNING and deadline is not None and deadline <= now_ms:
        why = f"the deadline passed {now_ms - deadline} ms ago"
        return turn_back(saga, (), now_ms, code="DEADLINE_EXCEEDED", message=why, step=None)
    undo = saga.phase is Phase.COMPENSATING
    events: list[Event] = []
    commands: list[CallStep] = []
    for i in steps_in(saga.waiting):
        step = saga.steps[i]
        if step.retry_at_ms <= now_ms:
            attempt = (step.undo_attempt if undo else step.attempt) + 1
            events.append(StepCalled(i, undo, attempt, now_ms))
            commands.append(CallStep(i, undo, attempt))
    return Decision(tuple(events), tuple(commands))


def _host_restarted(saga: Saga, given: HostRestarted, now_ms: int) -> Decision:
    asks = given.restored or saga.must_ask
    if saga.is_terminal or (saga.is_parked and not asks):
        return NOTHING
    recovered = Recovered(now_ms, given.epoch, saga.recoveries + 1, asks)
    if asks:
        # A parked saga, and one that may be poison, too: nothing may be ordered of it before.
        return Decision((recovered,), (AskLedgers(),), True)
    if recovered.recoveries > given.recoveries_max:
        why = f"its host stopped {given.recoveries_max} times without progress on it"
        return _park(saga, (recovered,), now_ms, "POISON", why, None)
    if saga.phase is Phase.COMPENSATING:
        onward = recall_undos(saga, now_ms, only_called=True)
    else:
        onward = resume_forward(saga, now_ms, with_waiting=False)
    # The count must outlive a crash that this very saga may cause.
    return Decision((recovered, *onward.events), onward.commands, True)


def _wanted_back(saga: Saga, given: CancelRequested | CompensationForced, now_ms: int) -> Decision:
    if saga.phase in BACKWARD:
        return Decision(answer=Answer.ALREADY)
    if saga.phase is Phase.PARKED_RUNNING:
        if isinstance(given, CancelRequested):
            # What was parked may be poison to its host; a caller must not send it on.
            return Decision(answer=Answer.IS_PARKED)
        before: tuple[Event, ...] = (SagaResumed(now_ms, given.by, given.note),)
    elif saga.phase is Phase.RUNNING:
        before = ()
    else:
        return Decision(answer=Answer.CANCEL_TOO_LATE)
    why = given.note or f"cancelled by {given.by}"
    decision = turn_back(
        saga, before, now_ms, code="CANCELLED", message=why, step=None, by=given.by
    )
    return decision._replace(answer=Answer.ACCEPTED)


def _retry_ordered(saga: Saga, given: RetryOrdered, now_ms: int) -> Decision:
    if not saga.is_parked:
        return Decision(answer=Answer.NOT_PARKED)
    resumed = SagaResumed(now_ms, given.by, given.note)
    if saga.phase is Phase.PARKED_BACKWARD:
        onward = recall_undos(saga, now_ms, only_called=False)
    else:
        onward = resume_forward(saga, now_ms, with_waiting=True)
    return Decision((resumed, *onward.events), onward.commands, True, Answer.ACCEPTED)


def _skip_ordered(saga: Saga, given: SkipOrdered, now_ms: int) -> Decision:
    if not saga.is_parked:
        return Decision(answer=Answer.NOT_PARKED)
    resumed = SagaResumed(now_ms, given.by, given.note)
    backward = saga.phase is Phase.PARKED_BACKWARD
    stuck = _what_holds(saga, backward=backward)
    if not stuck:
        return Decision(answer=Answer.NOTHING_TO_SKIP)
    users = [] if backward else _users_of(saga, stuck)
    if users and saga.phase is Phase.PARKED_RUNNING:
        # It can still be turned back, which is better than to leave out half of it.
        return Decision(answer=Answer.SKIP_BREAKS_USES)
    # Last first: were the history cut short among them, none would be sent without its result.
    stuck = users + stuck
    skips = tuple(StepSkipped(i, backward, now_ms, given.by, given.note) for i in stuck)
    if backward:
        onward = recall_undos(saga, now_ms, only_called=False, skipped=frozenset(stuck))
    else:
        onward = resume_forward(saga, now_ms, with_waiting=True, skipped=tuple(stuck))
    return Decision((resumed, *skips, *onward.events), onward.commands, True, Answer.ACCEPTED)


def _what_holds(saga: Saga, *, backward: bool) -> list[int]:
    """Return the steps that keep a parked saga from going on: those that gave up.

    If it is parked for no step's sake but for what it does to its host, it is
    whatever was under way.
    """
    gave_up = {StepStatus.UNDO_FAILED} if backward else {StepStatus.UNKNOWN, StepStatus.REFUSED}
    found = [i for i, step in enumerate(saga.steps) if step.status in gave_up]
    if found or saga.parked is None or saga.parked.step is not None:
        return found
    under_way = MOVING_BACK if backward else {StepStatus.CALLING, StepStatus.WAITING}
    return [i for i, step in enumerate(saga.steps) if step.status in under_way]


def _users_of(saga: Saga, skipped: Collection[int]) -> list[int]:
    """Return, last first, the steps to come whose requests need a result there will not be."""
    without = set(skipped)
    found: list[int] = []
    for i in saga.definition.topological:
        status = saga.steps[i].status
        if status not in DONE and not without.isdisjoint(saga.definition.uses[i]):
            without.add(i)
            found.append(i)
    return found[::-1]
