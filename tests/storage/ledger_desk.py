"""A ledger with a participant small enough to be judged: it counts what it did for each step.

`done` and `undone` are written by the handlers into the participant's own
table, so they are the effect itself, against which the rows are held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    LedgerStatus,
    StepCall,
    StepReply,
)
from raysaga.statemachines.ids import StepKey
from raysaga.storage.effects import CodeKind, Effects, Operation, Refusal, TryLater
from raysaga.storage.ledger import Ledger, LedgerSettings
from raysaga.storage.ledger_batch import Handlers, Intent, Prepared, Resolution
from raysaga.storage.ledger_row import LedgerRow

JOURNAL = "0123456789abcdef"
SCOPE = f"{JOURNAL}/shard-0"
NOW_MS = 1_700_000_000_000
TABLE = "counts"

SETTINGS = LedgerSettings(
    map_bytes_first=1 << 20, map_bytes_max=64 << 20, reserve_bytes=0, clock_skew_ms=1_000
)


def make_call(
    verb: int = ACTION,
    *,
    saga: str = "order:1",
    step: str = "reserve",
    operation: str | None = None,
    request: Mapping[str, Any] | None = None,
    scope: str = SCOPE,
    epoch: int = 5,
    attempt: int = 1,
    expires_at_ms: int | None = None,
    call_id: int = 1,
    timeout_ms: int = 5_000,
) -> StepCall:
    """Return a call; an action expires a minute after the epoch of these tests."""
    if operation is None:
        operation = "put_back" if verb == COMPENSATION else "take"
    if request is None:
        request = {"outcome": "completed"} if verb == RELEASE else {"sku": "tea", "quantity": 2}
    if verb == ACTION and expires_at_ms is None:
        expires_at_ms = NOW_MS + 60_000
    return StepCall(
        call_id, verb, JOURNAL, saga, step, operation, request, scope, epoch, attempt,
        expires_at_ms, timeout_ms,
    )  # fmt: skip


class Desk:
    """A ledger, its participant and its clock, all in the hands of a test."""

    def __init__(self, path: Path, settings: LedgerSettings = SETTINGS) -> None:
        self.path = path
        self.settings = settings
        self.now_ms = NOW_MS
        self.refuses = False
        self.during: Callable[[Effects, StepCall], None] = lambda effects, call: None
        self.settled: list[tuple[str, LedgerStatus, str]] = []
        self.defects: list[Exception] = []
        self.ledger = self.open()

    def open(self) -> Ledger:
        return Ledger.open_at(
            self.path,
            handlers=self.handlers(),
            tables=(TABLE,),
            now_ms=lambda: self.now_ms,
            settings=self.settings,
            on_defect=lambda call, error: self.defects.append(error),
        )

    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = self.open()

    def handlers(self) -> Handlers:
        take = Operation(apply=self.apply, undo_name="put_back", undo=self.undo)
        return Handlers(
            operations={"take": take, "keep": Operation(apply=self.apply)},
            settle=self.settle,
            codes={"SOLD_OUT": CodeKind.REFUSAL, "BUSY": CodeKind.RETRYABLE},
        )

    def apply(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        count = _add(effects, f"done/{call.saga_id}/{call.step}")
        if self.refuses:
            raise Refusal("SOLD_OUT", "there is no tea")
        self.during(effects, call)
        return {"count": count, "context": context}

    def undo(
        self, effects: Effects, call: StepCall, applied: Mapping[str, Any] | None, context: Any
    ) -> Mapping[str, Any]:
        count = _add(effects, f"undone/{call.saga_id}/{call.step}")
        if self.refuses:
            raise Refusal("SOLD_OUT", "it cannot be taken back")
        self.during(effects, call)
        return {"undone": count, "of": applied}

    def settle(self, effects: Effects, row: LedgerRow, outcome: str) -> None:
        self.settled.append((row.key.saga_id, row.status, outcome))
        _add(effects, f"settled/{row.key.saga_id}/{row.key.step}")

    def send(self, *calls: StepCall) -> list[StepReply]:
        return self.ledger.handle([Prepared(call) for call in calls])

    def ask(self, call: StepCall) -> StepReply:
        return self.send(call)[0]

    def effects(self, what: str, saga: str = "order:1", step: str = "reserve") -> int:
        return int(self.ledger.get(TABLE, f"{what}/{saga}/{step}") or 0)

    def row(self, saga: str = "order:1", step: str = "reserve") -> LedgerRow | None:
        return self.ledger.row(StepKey(JOURNAL, saga, step))

    def status(self) -> LedgerStatus:
        row = self.row()
        return LedgerStatus.NOTHING if row is None else row.status

    def bring_to(self, status: LedgerStatus) -> None:
        """Bring the one step to `status`, at epoch 5."""
        match status:
            case LedgerStatus.APPLIED:
                self.ask(make_call())
            case LedgerStatus.REFUSED:
                self.refuses = True
                self.ask(make_call())
                self.refuses = False
            case LedgerStatus.TOMBSTONE:
                self.ask(make_call(COMPENSATION))
            case LedgerStatus.UNDONE:
                self.send(make_call(), make_call(COMPENSATION))
            case LedgerStatus.PENDING:
                self.mark(make_call())
            case LedgerStatus.UNKNOWN:
                self.mark(make_call())
                self.resolve(make_call(), Resolution(LedgerStatus.UNKNOWN))
            case LedgerStatus.NOTHING:
                self.ask(make_call(QUESTION))
        assert self.status() is status

    def mark(self, call: StepCall) -> StepReply:
        return self.ledger.handle([Prepared(call, None, Intent.MARK)])[0]

    def resolve(self, call: StepCall, resolution: Resolution) -> StepReply:
        return self.ledger.handle([Prepared(call, resolution, Intent.RESOLVE)])[0]


def later(code: str, retry_after_ms: int) -> Callable[[Effects, StepCall], None]:
    """Return what makes a handler say "not now"."""

    def raise_it(effects: Effects, call: StepCall) -> None:
        raise TryLater(code, "not now", retry_after_ms)

    return raise_it


def _add(effects: Effects, key: str) -> int:
    count = int(effects.get(TABLE, key) or 0) + 1
    effects.put(TABLE, key, count)
    return count
