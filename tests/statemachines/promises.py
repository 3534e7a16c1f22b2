"""What a saga promises, checked against the ledgers and the disk while it runs.

Believes what participants hold, what is on disk and what callers were told;
of the saga's own opinion only what it claims to people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import NOTHING, Answer, CallStep, Decision
from raysaga.statemachines.definition import CompensationPolicy, Durability, StepKind
from raysaga.statemachines.events import (
    CompensationStarted,
    Event,
    GoGiven,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    StepCalled,
    StepRefused,
    StepSkipped,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    HostRestarted,
    Input,
    LedgersAnswered,
    RetryOrdered,
    SkipOrdered,
    Submitted,
    TimeReached,
)
from raysaga.statemachines.saga import MOVING_BACK, Saga
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase, StepStatus

from .model_ledger import Call, PromiseBrokenError

if TYPE_CHECKING:
    from .world import Host, World

PEOPLE = RetryOrdered | SkipOrdered | CompensationForced | CancelRequested

FACES = {
    Phase.PARKED_RUNNING: {Phase.RUNNING, Phase.FORWARD_ONLY, Phase.COMPENSATING},
    Phase.PARKED_FORWARD: {Phase.FORWARD_ONLY},
    Phase.PARKED_BACKWARD: {Phase.COMPENSATING},
}
"""Where a parked saga may go on; an end counts as the phase that it is the end of."""

END_OF = {Phase.COMPLETED: Phase.FORWARD_ONLY, Phase.COMPENSATED: Phase.COMPENSATING}


def require(condition: bool, what: str) -> None:
    """Raise if a promise is broken."""
    if not condition:
        raise PromiseBrokenError(what)


class Promises:
    """The record of one history, and its judge."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._undoable = {i for i, s in enumerate(world.definition.steps) if s.has_undo}
        self._descendants = _descendants(world.definition.dependents, world.definition.topological)
        self.sent: set[int] = set()
        self.undo_skipped: set[int] = set()
        self.deciding = NOTHING
        self.unheard = False
        self._restart()

    def _restart(self) -> None:
        """Forget what a restored journal has forgotten."""
        self.undo_sent = False
        self.go_written = False
        self.undo_written: CompensationStarted | None = None
        self.ended: SagaCompleted | SagaCompensated | None = None
        self.told_accepted = False
        self.told_back = False

    # -- deciding ------------------------------------------------------------

    def decided(self, host: Host, given: Input, decision: Decision) -> None:
        """Judge a decision before it changes the saga."""
        saga = host.saga
        called = {(e.step, e.undo, e.attempt) for e in decision.events if isinstance(e, StepCalled)}
        sent = {(c.step, c.undo, c.attempt) for c in decision.commands if isinstance(c, CallStep)}
        require(called == sent, f"what is sent is recorded, and the reverse: {decision}")
        waits = decision.durable_first and not decision.events
        require(not waits, f"{decision} waits for the disk, and there is nothing to write")
        if saga.is_terminal:
            require(not decision.events, f"a terminal answer never changes: {decision}")
        if host.asking:
            require(not sent, "nothing is dispatched before the ledgers have answered")
            if not isinstance(given, LedgersAnswered | HostRestarted):
                require(not decision.events, f"{given} is decided before the ledgers answered")
        if saga.is_parked and isinstance(given, TimeReached):
            require(not decision.events, "a parked saga ignores timers")

    def evolved(self, host: Host, before: Phase, given: Input, decision: Decision) -> None:
        """Judge a decision after it has changed the saga."""
        saga, world = host.saga, self._world
        self.deciding = decision
        after = saga.phase
        if before in PARKED and after not in PARKED:
            require(isinstance(given, PEOPLE), f"{given} sent a parked saga on")
            require(END_OF.get(after, after) in FACES[before], f"{before} must not become {after}")
        if before is Phase.COMPENSATING:
            require(
                after in (before, Phase.COMPENSATED, Phase.PARKED_BACKWARD),
                f"the direction is latched: {after}",
            )
        if isinstance(given, LedgersAnswered):
            self.unheard = False
        if isinstance(given, RetryOrdered) and decision.answer is Answer.ACCEPTED:
            require(bool(decision.commands) or saga.is_terminal, "a retry tries something")
        if not self.undo_sent and not host.is_zombie:
            self._begins_with_what_failed(saga, decision)
        for event in decision.events:
            if isinstance(event, StepSkipped) and event.undo:
                self.undo_skipped.add(event.step)
            elif isinstance(event, SagaParked):
                world.note(f"parked {event.code}")
                require(bool(event.code and event.message), "parked with a reason")
                again = before in PARKED and not isinstance(given, PEOPLE | LedgersAnswered)
                require(not again, f"{given} parked a saga that was parked")
                if not host.is_zombie:
                    self._park_is_exact(host, event)
                    missing = world.ledgers.standing() - set(event.net_effect)
                    require(not missing, f"{missing} stand, and are not in {event}")
            elif isinstance(event, CompensationStarted):
                self._turned_back(before, event, given)
        if after in PARKED and not host.is_zombie and not saga.must_ask:
            missing = world.ledgers.standing() - set(saga.net_effect())
            require(not missing, f"{missing} stand, and the parked saga does not list them")

    def _begins_with_what_failed(self, saga: Saga, decision: Decision) -> None:
        """The first compensations include that of the step that failed.

        After a takeover what may have followed it comes first; a relaxed saga may
        always have been taken over.
        """
        first = {e.step for e in decision.events if isinstance(e, StepCalled) and e.undo}
        failed = saga.turned.step if saga.turned is not None else None
        relaxed = self._world.definition.durability is Durability.RELAXED
        if first and failed in self._undoable and not saga.taken_over and not relaxed:
            require(failed in first, f"{failed} failed, and the way back begins with {first}")

    def _park_is_exact(self, host: Host, event: SagaParked) -> None:
        """What the saga knows to be refused or undone does not stand; `continue` goes on."""
        pending = [e for events in host.pending for e in events]
        known = {
            e.step
            for e in (*self._world.journal, *pending, *self.deciding.events)
            if isinstance(e, StepRefused | StepUndone)
        }
        require(not known & set(event.net_effect), f"{known} do not stand, and are in {event}")
        goes_on = self._world.definition.compensation_policy is CompensationPolicy.CONTINUE
        if goes_on and event.code.startswith("COMPENSATION_"):
            moving = [i for i, s in enumerate(host.saga.steps) if s.status in MOVING_BACK]
            require(not moving, f"{moving} are still being undone when the saga is parked")

    def _turned_back(self, before: Phase, event: CompensationStarted, given: Input) -> None:
        """Only a stored refusal of the pivot turns back what may only go forward."""
        self._world.note(f"turned back: {event.code}")
        if before is Phase.RUNNING or before is Phase.PARKED_RUNNING:
            return
        steps = self._world.definition.steps
        pivots = [i for i, step in enumerate(steps) if step.kind is StepKind.PIVOT]
        refused = [i for i in pivots if self._world.ledgers.rows[i].status == LedgerStatus.REFUSED]
        require(bool(refused), f"{given} turned back a saga beyond the point of no return")

    # -- acting --------------------------------------------------------------

    def sending(self, host: Host, call: Call) -> None:
        """Judge a call that leaves."""
        require(self.ended is None or host.is_zombie, f"{call} leaves after the end")
        require(host.is_zombie or not self.unheard, f"{call} leaves before the ledgers were heard")
        require(call.undo or None not in call.request.values(), f"{call} lacks a result")
        self._world.note("undo sent" if call.undo else "action sent")
        if call.attempt > 1:
            self._world.note("retry sent")
        if call.undo:
            self._sending_undo(host, call.step)
        else:
            self._sending_action(host, call.step)
            self.sent.add(call.step)

    def _sending_action(self, host: Host, step: int) -> None:
        if not host.is_zombie:
            require(not self.undo_sent, f"action {step} leaves after a compensation")
            require(self.undo_written is None, f"action {step} leaves though the saga turned back")
        if step in self._undoable or (host.is_zombie and self._world.restored_to is not None):
            return
        require(self.go_written, f"{step} cannot be undone, and leaves before GO is on disk")
        go = next(i for i, e in enumerate(self._world.journal) if isinstance(e, GoGiven))
        before = self._world.journal[:go]
        done = {e.step for e in before if isinstance(e, StepSucceeded | StepSkipped)}
        if self._world.restored_to is None:
            require(self._undoable <= done, "GO is on disk before the results that it follows")

    def _sending_undo(self, host: Host, step: int) -> None:
        if host.is_zombie and self._world.restored_to is not None:
            return
        require(self.undo_written is not None, f"undo {step} leaves before the latch is on disk")
        assert self.undo_written is not None
        require(step in self.undo_written.undo, f"undo {step} leaves, and is not in the list")
        if host.is_zombie:
            return
        self.undo_sent = True
        under_way = {c.step for c in host.waited if not c.undo}
        under_way = {i for i in under_way if host.saga.steps[i].status is StepStatus.CALLING}
        require(not under_way, f"undo {step} leaves while actions {under_way} are under way")
        if self._world.definition.compensation_policy is CompensationPolicy.CONTINUE:
            return
        for later in self._descendants[step] & self.sent - self.undo_skipped:
            status = self._world.ledgers.rows[later].status
            require(
                status in (LedgerStatus.UNDONE, LedgerStatus.TOMBSTONE, LedgerStatus.REFUSED),
                f"undo {step} leaves while {later}, which follows it, is {status}",
            )

    # -- disk and callers ----------------------------------------------------

    def written(self, events: list[Event]) -> None:
        """Note what is on disk now."""
        for event in events:
            require(self.ended is None, f"{event} follows the end")
            if isinstance(event, GoGiven):
                self.go_written = True
            elif isinstance(event, CompensationStarted):
                require(self.undo_written is None, "turned back twice")
                self.undo_written = event
            elif isinstance(event, SagaCompleted | SagaCompensated):
                self.ended = event
                self.judge_end()

    def told(self, given: Input, answer: Answer) -> None:
        """Note what a caller was told."""
        self._world.note(f"{type(given).__name__} {answer}")
        if isinstance(given, Submitted):
            self.told_accepted = True
        if isinstance(given, CancelRequested | CompensationForced) and answer in (
            Answer.ACCEPTED,
            Answer.ALREADY,
        ):
            self.told_back = True

    def lost_whole(self) -> None:
        """The disk holds nothing of the saga."""
        relaxed = self._world.definition.durability is Durability.RELAXED
        require(relaxed or not self.told_accepted, "an accepted saga is lost")
        self._restart()

    def restored(self) -> None:
        """The journal is an earlier one; what was told after it is not held against it."""
        accepted = self.told_accepted
        self._restart()
        self.told_accepted = accepted
        self.unheard = True
        # What was sent before cannot arrive any more once a newer owner has asked.
        self.sent.clear()
        world = self._world
        for event in world.journal:
            if isinstance(event, GoGiven):
                self.go_written = True
            elif isinstance(event, CompensationStarted):
                self.undo_written = event
            elif isinstance(event, SagaCompleted | SagaCompensated):
                self.ended = event

    # -- the end -------------------------------------------------------------

    def judge_end(self) -> None:
        """Compare how a saga says that it ended with what stands in the world."""
        world, ended = self._world, self.ended
        standing = world.ledgers.standing()
        refused = {e.step for e in world.journal if isinstance(e, StepRefused)}
        if isinstance(ended, SagaCompleted):
            require(not self.told_back, "completed, though the caller was told it is being undone")
            skipped = {e.step for e in world.journal if isinstance(e, StepSkipped) and not e.undo}
            every = set(range(len(world.definition.steps)))
            missing = every - skipped - standing
            require(not missing, f"completed, and {missing} did not happen")
        elif isinstance(ended, SagaCompensated):
            require(
                not standing - set(ended.remaining),
                f"compensated, and {standing - set(ended.remaining)} stand",
            )
            require(
                set(ended.remaining) <= self.undo_skipped, "an operator let remain what remains"
            )
            require(not set(ended.remaining) & refused, "what was refused does not remain")

    def judge_rest(self) -> None:
        """Judge a saga when everything that was under way has arrived."""
        world = self._world
        for i, row in enumerate(world.ledgers.rows):
            require(row.effect_count <= 1, f"{i} took effect twice")
            require(row.undo_count <= 1, f"{i} was undone twice")
        if world.host is not None:
            phase = world.host.saga.phase
            require(phase in TERMINAL or phase in PARKED, f"at rest while {phase}")
            if phase in TERMINAL:
                require(self.ended is not None or world.host.pending != [], "ended on disk")
        if self.ended is not None:
            self.judge_end()


def _descendants(
    dependents: tuple[tuple[int, ...], ...], topological: tuple[int, ...]
) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in dependents]
    for i in reversed(topological):
        for j in dependents[i]:
            found[i] |= {j} | found[j]
    return found
