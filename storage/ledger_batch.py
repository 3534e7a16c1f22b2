"""What one batch of calls reads and stages inside its transaction.

Rows, epochs, effects and lines of the log are kept in memory until `flush`, so
that calls of one batch see each other, each key is written once, and a handler
that raises leaves nothing.

Guarantees: all that is staged for one call is staged together, after all of it
has been encoded: an answer that cannot be encoded fails its call only.
Costs: one read and one packing of a row for each call that changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from raysaga.statemachines.calls import (
    Code,
    LedgerStatus,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)
from raysaga.statemachines.ids import StepKey
from raysaga.statemachines.structure import Structure
from raysaga.storage.effects import CodeKind, Effects, Operation, Refusal, TryLater
from raysaga.storage.ledger_row import (
    SEQ,
    EffectKind,
    LedgerRow,
    decode_epoch,
    decode_row,
    encode_effect,
    encode_epoch,
    encode_row,
    fingerprint_of,
)
from raysaga.storage.lmdb_environment import WriteTransaction
from raysaga.storage.staged_effects import StagedEffects, write_staged

ROWS, SCOPES, EFFECTS, RELEASED, META = "_rows", "_scopes", "_effects", "_released", "_meta"
"""The ledger's own tables; a participant's begin with no underscore."""


class Intent(IntEnum):
    """What a call asks of the ledger beside its verb; only providers need more than `PERFORM`."""

    PERFORM = 0
    """What the table says."""
    MARK = 1
    """Where the table would run a handler, only note that a provider is about to be asked."""
    MARK_AGAIN = 2
    """The same, though it was noted before: the first submission is known to be void."""
    RESOLVE = 3
    """Store a provider's final answer to the action; `Prepared.context` is a `Resolution`."""


class Resolution(Structure, frozen=True):
    """A provider's final answer to the action, or that there will never be one.

    Attributes:
        status: APPLIED, REFUSED, TOMBSTONE (it will never take effect), UNKNOWN, or NOTHING
            (it has not taken effect, and may be asked for again).
        answer: What the provider gave; the operation's `apply` gets it as its context.
        code: Of a refusal.
        message: Of a refusal.
    """

    status: LedgerStatus
    answer: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""


class Prepared(Structure, frozen=True):
    """A call with what its handler is to be given.

    Attributes:
        call: The call.
        context: What the guard gave, for the handler; or a `Resolution`.
        intent: See `Intent`.
    """

    call: StepCall
    context: Any = None
    intent: Intent = Intent.PERFORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """What a ledger needs to know of its participant.

    Attributes:
        operations: Action name to operation.
        settle: Runs once per row when its saga is over: `settle(effects, row, outcome)`.
        codes: Kind of each error code; those not named are what was raised with them.
    """

    operations: Mapping[str, Operation]
    settle: Callable[[Effects, LedgerRow, str], None]
    codes: Mapping[str, CodeKind]


class LedgerBatch:
    """One run of one batch inside one transaction; made anew when the transaction is.

    Attributes:
        handlers: The participant's.
        now_ms: The instant of the transaction.
        next_seq: Number of the next line of the effect log; None: no log is kept.
    """

    __slots__ = (
        "_changed_epochs",
        "_changed_rows",
        "_effects",
        "_epochs",
        "_log",
        "_on_defect",
        "_released",
        "_row_bytes_max",
        "_rows",
        "_transaction",
        "handlers",
        "next_seq",
        "now_ms",
    )

    def __init__(
        self,
        transaction: WriteTransaction,
        handlers: Handlers,
        tables: Sequence[str],
        *,
        now_ms: int,
        next_seq: int | None,
        row_bytes_max: int,
        on_defect: Callable[[StepCall, Exception], None],
    ) -> None:
        self.handlers = handlers
        self.now_ms = now_ms
        self.next_seq = next_seq
        self._transaction = transaction
        self._effects = StagedEffects(transaction, tables, now_ms)
        self._row_bytes_max = row_bytes_max
        self._on_defect = on_defect
        self._rows: dict[bytes, LedgerRow | None] = {}
        self._changed_rows: dict[bytes, bytes | None] = {}
        self._epochs: dict[str, int] = {}
        self._changed_epochs: dict[bytes, bytes] = {}
        self._log: list[tuple[bytes, bytes]] = []
        self._released: list[tuple[bytes, bytes]] = []

    def fence(self, call: StepCall) -> StepReply | None:
        """Remember a higher epoch of the call's scope; return the reply that refuses a lower one.

        Raises:
            RecordCorruptError: If what was remembered is damaged.
        """
        highest = self._epochs.get(call.scope)
        if highest is None:
            scope = call.scope.encode()
            stored = self._transaction.get(SCOPES, scope)
            highest = 0 if stored is None else decode_epoch(scope, stored)[0]
            self._epochs[call.scope] = highest
        if call.epoch < highest:
            what = f"epoch {call.epoch} of {call.scope} is stale, {highest} is in force"
            return not_now(call, Code.FENCED, what)
        if call.epoch > highest:
            scope = call.scope.encode()
            self._epochs[call.scope] = call.epoch
            self._changed_epochs[scope] = encode_epoch(scope, call.epoch, self.now_ms)
        return None

    def row(self, raw: bytes) -> LedgerRow | None:
        """Return the row as the calls before left it.

        Raises:
            RecordCorruptError: If it is damaged.
        """
        if raw in self._rows:
            return self._rows[raw]
        stored = self._transaction.get(ROWS, raw)
        row = None if stored is None else decode_row(raw, stored)
        self._rows[raw] = row
        return row

    def new_row(self, call: StepCall, status: LedgerStatus) -> LedgerRow:
        """Return the row that `call` would make.

        Raises:
            TypeError: If the request is not plain data; like ValueError, OverflowError and
                RecursionError.
        """
        return LedgerRow(
            StepKey(call.journal_uuid, call.saga_id, call.step),
            status,
            call.operation,
            fingerprint_of(call.request),
            call.scope,
            call.epoch,
            self.now_ms,
            self.now_ms,
            call.expires_at_ms or 0,
        )

    def store(self, raw: bytes, row: LedgerRow) -> None:
        """Stage a row that no line of the log tells of."""
        self._changed_rows[raw] = encode_row(raw, row)
        self._rows[raw] = row

    def drop(self, raw: bytes) -> None:
        """Stage that there is no row, since nothing has happened after all."""
        self._changed_rows[raw] = None
        self._rows[raw] = None

    def store_effect(
        self,
        raw: bytes,
        row: LedgerRow,
        call: StepCall,
        kind: EffectKind,
        summary: Any,
    ) -> None:
        """Stage a row and the line that tells of it.

        Raises:
            TypeError: If an answer or the summary is not plain data, and nothing is
                staged; like ValueError, which also tells of too many bytes, and OverflowError.
        """
        packed = encode_row(raw, row)
        if len(packed) > self._row_bytes_max:
            raise ValueError(f"a row of {len(packed)} bytes; {self._row_bytes_max} at most")
        if self.next_seq is not None:
            line = (kind.value, call.operation, call.epoch, self.now_ms, summary)
            encoded = encode_effect(self.next_seq, raw, line)
            self._log.append((SEQ.pack(self.next_seq), encoded))
            self.next_seq += 1
        self._changed_rows[raw] = packed
        self._rows[raw] = row

    def note_released(self, raw: bytes, row: LedgerRow) -> None:
        """Stage the index entry by which the row will be pruned."""
        self._released.append((SEQ.pack(row.released_at_ms) + raw, b""))

    def run(
        self,
        call: StepCall,
        handler: Callable[[Effects], StepReply],
        refuse: Callable[[Refusal], StepReply],
    ) -> StepReply:
        """Run a handler; whatever it raises drops what it staged, and nothing else."""
        effects = self._effects
        effects.begin()
        try:
            reply = handler(effects)
        except Refusal as refusal:
            effects.rollback()
            kind = self.handlers.codes.get(refusal.code, CodeKind.REFUSAL)
            if kind is CodeKind.REFUSAL:
                reply = refuse(refusal)
            else:
                reply = not_now(call, refusal.code, refusal.message)
        except TryLater as later:
            effects.rollback()
            reply = not_now(call, later.code, later.message, later.retry_after_ms)
        except Exception as error:  # noqa: BLE001 - a defect of one call must not void the batch
            effects.rollback()
            self._on_defect(call, error)
            what = f"{type(error).__name__} in {call.operation}; nothing was stored"
            reply = not_now(call, Code.INTERNAL_ERROR, what)
        if effects.failure is not None:
            # The storage failed under the handler, whatever the handler made of it.
            raise effects.failure
        return reply

    def flush(self) -> None:
        """Write everything staged to the transaction."""
        self._effects.flush()
        transaction = self._transaction
        write_staged(transaction, ROWS, self._changed_rows)
        transaction.put_many(SCOPES, sorted(self._changed_epochs.items()))
        transaction.put_many(RELEASED, self._released)
        transaction.put_many(EFFECTS, self._log, append=True)


def not_now(call: StepCall, code: str, message: str, retry_after_ms: int = 0) -> StepReply:
    """Return a reply that concerns this attempt only, and is not stored."""
    return reply_to(
        call, Outcome.UNKNOWN, code=code, message=message, retry_after_ms=retry_after_ms
    )
