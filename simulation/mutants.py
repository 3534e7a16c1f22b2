"""Engines with one rule taken out, each of which the checker must catch.

A checker that finds nothing proves nothing, unless it finds something where
there is something. Each mutant replaces a function or a row of a table while a
history is played, and puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from raysaga.actors import host as host_module
from raysaga.actors import lane as lane_module
from raysaga.actors.call_stamp import CallStamp
from raysaga.actors.committer import GroupCommitter
from raysaga.actors.desk import Desk
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Lane
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.timers import Timers
from raysaga.simulation.checker import Violation, check
from raysaga.simulation.play import play
from raysaga.simulation.recipe import recipe_of
from raysaga.statemachines import backward as backward_module
from raysaga.statemachines.calls import ACTION, COMPENSATION, LedgerStatus, Outcome, reply_to
from raysaga.statemachines.commands import Answer, Decision
from raysaga.statemachines.decide import decide
from raysaga.statemachines.events import CompensationStarted, GoGiven, SagaParked
from raysaga.statemachines.inputs import (
    CancelRequested,
    CompensationForced,
    StepAnswered,
    Submitted,
)
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import Phase, StepStatus
from raysaga.storage import ledger_table
from raysaga.storage.errors import StorageFailedError
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import LedgerBatch
from raysaga.storage.memory_journal import MemoryJournal
from raysaga.storage.staged_effects import StagedEffects

SEEDS_MAX = 2_000
"""Histories within which each mutant is caught."""


class Surgery:
    """Takes things out, and puts them back."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Put `value` where an attribute is, for as long as this lasts."""
        self._stack.callback(setattr, owner, name, owner.__dict__[name])
        setattr(owner, name, value)

    def replace_row(self, table: Mapping[Any, Any], key: Any, value: Any) -> None:
        """Put `value` where a row of a table is, for as long as this lasts."""
        rows: dict[Any, Any] = table  # type: ignore[assignment]
        self._stack.callback(rows.__setitem__, key, rows[key])
        rows[key] = value

    def decide_otherwise(self, otherwise: Callable[[Saga, Any, Decision, int], Decision]) -> None:
        """Have the host's decisions changed before it sees them."""

        def decided(saga: Saga, given: Any, now_ms: int) -> Decision:
            return otherwise(saga, given, decide(saga, given, now_ms), now_ms)

        self.replace(host_module, "decide", decided)

    def end(self) -> None:
        """Put everything back."""
        self._stack.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule less.

    Attributes:
        name: Short name, for the command line.
        what: What the engine now does wrong.
        cut: Makes it.
    """

    name: str
    what: str
    cut: Callable[[Surgery], None]

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Have it live within the block."""
        surgery = Surgery()
        try:
            self.cut(surgery)
            yield
        finally:
            surgery.end()

    def caught(self, seeds_max: int = SEEDS_MAX) -> tuple[int, list[Violation]] | None:
        """Return the first seed that catches it, and what it broke; None: it got away."""
        with self.alive():
            for seed in range(seeds_max):
                found = check(play(recipe_of(seed)))
                if found:
                    return seed, found
        return None


# -- barriers -----------------------------------------------------------------


def _careless(when: Callable[[Any, Decision], bool]) -> Callable[[Surgery], None]:
    def cut(surgery: Surgery) -> None:
        def otherwise(_saga: Saga, given: Any, decision: Decision, _now_ms: int) -> Decision:
            return decision._replace(durable_first=False) if when(given, decision) else decision

        surgery.decide_otherwise(otherwise)

    return cut


def _holds(event: type[Any]) -> Callable[[Any, Decision], bool]:
    return lambda _given, decision: any(type(e) is event for e in decision.events)


def _failed_commit_counts(surgery: Surgery) -> None:
    commit = GroupCommitter._commit

    async def careless(self: GroupCommitter, batch: Any, *, from_reserve: bool) -> None:
        try:
            await commit(self, batch, from_reserve=from_reserve)
        except StorageFailedError:
            return

    surgery.replace(GroupCommitter, "_commit", careless)


def _dropped_births_are_told(surgery: Surgery) -> None:
    def tell(_self: GroupCommitter, batch: Sequence[Any], _full: Any) -> list[Any]:
        for waiting in batch:
            if waiting.dropped is not None and waiting.done is not None:
                waiting.done()
        return [waiting for waiting in batch if waiting.dropped is None]

    surgery.replace(GroupCommitter, "_drop_births", tell)


def _known_births_are_dropped(surgery: Surgery) -> None:
    write = SagaHost._write

    def careless(self: SagaHost, running: Any, done: Any, refused: Any = None) -> None:
        write(self, running, done, refused or (lambda _full: None))

    surgery.replace(SagaHost, "_write", careless)


# -- fences -------------------------------------------------------------------


def _journal_ignores_epochs(surgery: Surgery) -> None:
    commit = MemoryJournal.commit

    def careless(
        self: MemoryJournal, scope: Any, epoch: Any, entries: Any, *, from_reserve: bool = False
    ) -> None:
        commit(
            self, scope, self.epoch(scope) if epoch else epoch, entries, from_reserve=from_reserve
        )

    surgery.replace(MemoryJournal, "commit", careless)
    surgery.replace(CallStamp, "prove", lambda _self, _seen_at_ms: None)


def _epochs_are_given_twice(surgery: Surgery) -> None:
    grant = MemoryJournal.grant_epoch

    def careless(self: MemoryJournal, scope: Any, owner: str, now_ms: int) -> Any:
        return self.epoch(scope) or grant(self, scope, owner, now_ms)

    surgery.replace(MemoryJournal, "grant_epoch", careless)


# -- the way back ---------------------------------------------------------------


def _forgets(lost: frozenset[StepStatus]) -> Callable[[Surgery], None]:
    def cut(surgery: Surgery) -> None:
        sent = Saga.may_have_been_sent

        def careless(self: Saga) -> set[int]:
            return {i for i in sent(self) if self.steps[i].status not in lost}

        surgery.replace(Saga, "may_have_been_sent", careless)

    return cut


def _unknown_is_refused(surgery: Surgery) -> None:
    def decided(saga: Saga, given: Any, now_ms: int) -> Decision:
        if isinstance(given, StepAnswered) and given.outcome == Outcome.UNKNOWN and not given.undo:
            given = given._replace(outcome=int(Outcome.REFUSED), stored=True)
        return decide(saga, given, now_ms)

    surgery.replace(host_module, "decide", decided)


def _never_parks(surgery: Surgery) -> None:
    def otherwise(_saga: Saga, _given: Any, decision: Decision, _now_ms: int) -> Decision:
        events = tuple(e for e in decision.events if type(e) is not SagaParked)
        return decision._replace(events=events)

    surgery.decide_otherwise(otherwise)


def _grants_cancels(phase: Phase) -> Callable[[Surgery], None]:
    def cut(surgery: Surgery) -> None:
        def otherwise(saga: Saga, given: Any, decision: Decision, _now_ms: int) -> Decision:
            if isinstance(given, CancelRequested | CompensationForced) and saga.phase is phase:
                return Decision(answer=Answer.ACCEPTED)
            return decision

        surgery.decide_otherwise(otherwise)

    return cut


def _new_key_on_retry(surgery: Surgery) -> None:
    make = SagaHost.make_call

    def careless(self: SagaHost, *args: Any) -> Any:
        call = make(self, *args)
        if call is None or call.attempt == 1 or call.verb != ACTION:
            return call
        return call._replace(step=f"{call.step}.{call.attempt}")

    surgery.replace(SagaHost, "make_call", careless)


# -- ledgers ----------------------------------------------------------------------


def _no_tombstones(surgery: Surgery) -> None:
    def careless(_batch: LedgerBatch, prepared: Any, _raw: bytes) -> Any:
        return reply_to(prepared.call, Outcome.SUCCEEDED, result={}, stored=True)

    surgery.replace_row(ledger_table._WITHOUT_ROW, COMPENSATION, careless)


def _undone_is_done_again(surgery: Surgery) -> None:
    def careless(batch: LedgerBatch, prepared: Any, raw: bytes, _row: Any) -> Any:
        return ledger_table._begin(batch, prepared, raw)

    for status in (LedgerStatus.TOMBSTONE, LedgerStatus.UNDONE):
        surgery.replace_row(ledger_table._WITH_ROW, (ACTION, status), careless)


def _effect_without_row(surgery: Surgery) -> None:
    store = LedgerBatch.store_effect

    def careless(self: LedgerBatch, raw: bytes, *args: Any) -> None:
        store(self, raw, *args)
        self.drop(raw)

    surgery.replace(LedgerBatch, "store_effect", careless)


def _answers_from_a_failed_commit(surgery: Surgery) -> None:
    handle = Ledger.handle

    def careless(self: Ledger, calls: Sequence[Any]) -> list[Any]:
        try:
            return handle(self, calls)
        except StorageFailedError:
            return [
                reply_to(prepared.call, Outcome.SUCCEEDED, result={"made": ""}, stored=True)
                for prepared in calls
            ]

    surgery.replace(Ledger, "handle", careless)


def _forgets_rows_at_once(surgery: Surgery) -> None:
    prune = Ledger.prune

    def careless(self: Ledger, now_ms: int, _retention_ms: int, **bounds: Any) -> int:
        return prune(self, now_ms, -1, **bounds)

    surgery.replace(Ledger, "prune", careless)


# -- liveness ---------------------------------------------------------------------


def _never_takes_up(surgery: Surgery) -> None:
    async def careless(_self: Reconciler) -> None:
        return

    surgery.replace(Reconciler, "sweep", careless)


def _conflicts_pass(surgery: Surgery) -> None:
    submit = Desk._submit

    def careless(self: Desk, caller: Any, body: list[Any]) -> None:
        submit(self, caller, [*body[:3], "f", *body[4:]])

    surgery.replace(Desk, "_submit", careless)


def _late_exchanges_take(surgery: Surgery) -> None:
    sender_of = lane_module._sender_of
    surgery.replace(lane_module, "_sender_of", lambda first: (sender_of(first)[0], None))


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="act-before-commit",
        what="sends and tells before what it decided is on disk",
        cut=_careless(lambda given, _decision: not isinstance(given, Submitted)),
    ),
    Mutant(
        name="ack-before-flush",
        what="tells a caller `accepted` before the birth is on disk",
        cut=_careless(lambda given, _decision: isinstance(given, Submitted)),
    ),
    Mutant(
        name="go-is-not-waited-for",
        what="sends a step without an undo before GO is on disk",
        cut=_careless(_holds(GoGiven)),
    ),
    Mutant(
        name="latch-is-not-waited-for",
        what="sends compensations before the direction latch is on disk",
        cut=_careless(_holds(CompensationStarted)),
    ),
    Mutant(
        name="failed-commit-counts",
        what="goes on after a commit whose outcome is unknown",
        cut=_failed_commit_counts,
    ),
    Mutant(
        name="dropped-births-are-told",
        what="tells `accepted` of sagas that a full journal has not taken",
        cut=_dropped_births_are_told,
    ),
    Mutant(
        name="known-births-are-dropped",
        what="drops a relaxed saga on a full journal though its caller knows it",
        cut=_known_births_are_dropped,
    ),
    Mutant(
        name="journal-ignores-epochs",
        what="lets an earlier owner commit, and send without a look at the journal",
        cut=_journal_ignores_epochs,
    ),
    Mutant(
        name="epochs-are-given-twice",
        what="gives a new owner the epoch of the last one",
        cut=_epochs_are_given_twice,
    ),
    Mutant(
        name="participants-ignore-epochs",
        what="serves calls of an earlier owner after those of a later one",
        cut=lambda surgery: surgery.replace(LedgerBatch, "fence", lambda _self, _call: None),
    ),
    Mutant(
        name="undo-in-any-order",
        what="sends all compensations at once",
        cut=lambda surgery: surgery.replace(
            backward_module, "_has_passed", lambda _saga, _i, _passed: True
        ),
    ),
    Mutant(
        name="forget-the-failed-step",
        what="does not undo a step whose outcome is unknown",
        cut=_forgets(frozenset({StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN})),
    ),
    Mutant(
        name="trust-the-log",
        what="after a takeover, undoes only what the journal shows as sent",
        cut=_forgets(frozenset({StepStatus.PENDING})),
    ),
    Mutant(
        name="unknown-is-refused",
        what="takes a time-out for a refusal",
        cut=_unknown_is_refused,
    ),
    Mutant(
        name="new-key-on-retry",
        what="sends a step again under another key",
        cut=_new_key_on_retry,
    ),
    Mutant(
        name="cancel-is-forgotten",
        what="grants a cancel and goes on",
        cut=_grants_cancels(Phase.RUNNING),
    ),
    Mutant(
        name="cancel-beyond-go",
        what="grants a cancel beyond the point of no return",
        cut=_grants_cancels(Phase.FORWARD_ONLY),
    ),
    Mutant(
        name="net-effect-is-untold",
        what="parks a saga without saying what stands",
        cut=lambda surgery: surgery.replace(Saga, "net_effect", lambda _self: ()),
    ),
    Mutant(name="never-parks", what="gives up without a word", cut=_never_parks),
    Mutant(
        name="no-tombstones",
        what="answers an undo that comes first, and remembers nothing",
        cut=_no_tombstones,
    ),
    Mutant(
        name="undone-is-done-again",
        what="does an action whose undo has come before",
        cut=_undone_is_done_again,
    ),
    Mutant(
        name="effect-without-row",
        what="keeps an effect without the row that makes a repeat harmless",
        cut=_effect_without_row,
    ),
    Mutant(
        name="refusal-keeps-writes",
        what="keeps what a handler had put before it refused",
        cut=lambda surgery: surgery.replace(StagedEffects, "rollback", lambda _self: None),
    ),
    Mutant(
        name="answers-from-a-failed-commit",
        what="has a participant answer before its effect is on disk",
        cut=_answers_from_a_failed_commit,
    ),
    Mutant(
        name="rows-are-forgotten-at-once",
        what="has a participant forget a row while an action may still arrive",
        cut=_forgets_rows_at_once,
    ),
    Mutant(
        name="expiry-is-ignored",
        what="does an action that comes after its expiry",
        cut=lambda surgery: surgery.replace(ledger_table, "_is_late", lambda _batch, _call: False),
    ),
    Mutant(
        name="conflicts-pass",
        what="accepts another request under a key that is in use",
        cut=_conflicts_pass,
    ),
    Mutant(
        name="nothing-is-taken-up",
        what="leaves what an earlier owner was driving",
        cut=_never_takes_up,
    ),
    Mutant(
        name="timers-never-ring",
        what="never retries",
        cut=lambda surgery: surgery.replace(Timers, "set", lambda _self, _id, _due_at_ms: None),
    ),
    Mutant(
        name="lost-exchanges-are-untold",
        what="does not tell a sender that an exchange was lost",
        cut=lambda surgery: surgery.replace(Lane, "_tell_lost", lambda _self, _error: None),
    ),
    Mutant(
        name="late-exchanges-take",
        what="lets an exchange that was given up take replies along",
        cut=_late_exchanges_take,
    ),
)
"""In the order of the documentation."""
