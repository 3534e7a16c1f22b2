"""A participant's memory: one row for each step, beside the effects, in one environment.

Guarantees: the reply to a call is returned only after its effect and its row
are on disk together; a batch of calls costs one commit. However often a call is
sent, in whatever order, it takes effect at most once, and never after its undo.
Refuses: to write once a newer incarnation of the participant has opened the
same environment (`StaleEpochError`: this process must stop).
Costs: some 25 microseconds of a core a call in batches of 256, and one flush a batch.

Rows are forgotten by `prune`, once their saga is over, after the retention and
after the largest expiry of any action seen. The retention must be longer than
an action can live unseen on its way. What comes after that without an expiry, a
duplicate of a compensation, leaves a tombstone that nobody releases: harmless,
and as rare as a duplicate that is days late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raysaga.statemachines.calls import ACTION, Code, StepCall, StepReply
from raysaga.storage.errors import RecordCorruptError, StaleEpochError, StorageFullError
from raysaga.storage.ledger_batch import (
    EFFECTS,
    META,
    RELEASED,
    ROWS,
    SCOPES,
    Handlers,
    LedgerBatch,
    Prepared,
    not_now,
)
from raysaga.storage.ledger_reader import LedgerReader, all_tables
from raysaga.storage.ledger_row import SEQ, decode_effect, decode_epoch, decode_row
from raysaga.storage.ledger_table import answer
from raysaga.storage.lmdb_environment import Environment, ReadTransaction, WriteTransaction
from raysaga.storage.staged_effects import prefix_stop

_INCARNATION = b"incarnation"
_NEXT_SEQ = b"next_seq"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """Bounds of one ledger.

    Attributes:
        map_bytes_first: Size of the map to begin with; address space only.
        map_bytes_max: Cap of the map.
        reserve_bytes: Part of the cap kept for compensations and releases.
        keeps_effect_log: Whether each effect is told in the log that auditors read.
        clock_skew_ms: How far the clocks of hosts and participants may be apart.
        row_bytes_max: Largest row, which is the answers and about 200 bytes.
    """

    map_bytes_first: int = 64 << 20
    map_bytes_max: int = 64 << 30
    reserve_bytes: int = 16 << 20
    keeps_effect_log: bool = True
    clock_skew_ms: int = 60_000
    row_bytes_max: int = 65_536


class Ledger(LedgerReader):
    """The ledger of one participant. See the head of this module.

    `handle` and the two kinds of pruning are for one thread at a time.

    Attributes:
        incarnation: Number of times that the environment was opened as a ledger.
        settings: Its bounds.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        handlers: Handlers,
        tables: Sequence[str] = (),
        now_ms: Callable[[], int],
        settings: LedgerSettings | None = None,
        on_defect: Callable[[StepCall, Exception], None] | None = None,
    ) -> None:
        """Take the next incarnation number; durable on return.

        Args:
            environment: Must have been opened with `all_tables(tables)`.
            handlers: The participant's functions.
            tables: The participant's own tables.
            now_ms: Unix time; read once for each transaction.
            settings: Bounds.
            on_defect: Told of each handler that raised what it must not.

        Raises:
            StorageFullError: If not even the head-room has room.
        """
        super().__init__(environment, tables)
        self._handlers = handlers
        self._now_ms = now_ms
        self.settings = settings or LedgerSettings()
        self._on_defect = on_defect or _ignore
        self._one_at_a_time = threading.Lock()
        self._next_seq = 0
        self.incarnation = environment.write(self._take_over, from_reserve=True)

    @classmethod
    def open_at(
        cls,
        path: Path,
        *,
        handlers: Handlers,
        tables: Sequence[str] = (),
        now_ms: Callable[[], int],
        settings: LedgerSettings | None = None,
        on_defect: Callable[[StepCall, Exception], None] | None = None,
    ) -> Ledger:
        """Open the environment in the folder `path`, made if need be, and take it over.

        Raises:
            DataFolderError: If the folder cannot be used.
            StorageFullError: If not even the head-room has room.
        """
        settings = settings or LedgerSettings()
        environment = Environment.open(
            path,
            tables=all_tables(tables),
            map_bytes_first=settings.map_bytes_first,
            map_bytes_max=settings.map_bytes_max,
            reserve_bytes=settings.reserve_bytes,
        )
        try:
            return cls(
                environment,
                handlers=handlers,
                tables=tables,
                now_ms=now_ms,
                settings=settings,
                on_defect=on_defect,
            )
        except BaseException:
            environment.close()
            raise

    def handle(self, calls: Sequence[Prepared]) -> list[StepReply]:
        """Answer `calls` in order, in one transaction; durable on return.

        When the environment is full, the actions are answered STORAGE_FULL, and the rest,
        which goes home or only asks, is tried again with the head-room.

        Raises:
            StaleEpochError: A newer incarnation has taken over; nothing was written.
            StorageFailedError: The outcome is unknown; the process must stop and answer nobody.
        """
        try:
            return self._commit(calls, from_reserve=False)
        except StorageFullError as error:
            full = str(error)
        homeward = [prepared for prepared in calls if prepared.call.verb != ACTION]
        replies: list[StepReply] = []
        if homeward:
            try:
                replies = self._commit(homeward, from_reserve=True)
            except StorageFullError as error:
                full = str(error)
        given = iter(replies)
        return [
            not_now(prepared.call, Code.STORAGE_FULL, full)
            if prepared.call.verb == ACTION or not replies
            else next(given)
            for prepared in calls
        ]

    def prune(self, now_ms: int, retention_ms: int, *, rows_max: int = 10_000) -> int:
        """Forget rows whose saga is over; return how many, at most `rows_max`.

        A row goes when it was released longer than `retention_ms` ago and the largest
        expiry of its actions is past, with the skew of the clocks. The epoch of a scope of
        one saga goes with the saga's last row.

        Raises:
            StaleEpochError: Like the others, as in `handle`.
        """

        def body(transaction: WriteTransaction) -> int:
            self._check_incarnation(transaction)
            before_ms = now_ms - retention_ms
            doomed = self._prunable_rows(transaction, now_ms, before_ms, rows_max)
            for index, raw in doomed:
                transaction.delete(RELEASED, index)
                transaction.delete(ROWS, raw)
            for scope in self._prunable_scopes(transaction, before_ms, rows_max):
                transaction.delete(SCOPES, scope)
            return len(doomed)

        with self._one_at_a_time:
            return self.environment.write(body, from_reserve=True)

    def prune_effects(self, before_ms: int, *, lines_max: int = 10_000) -> int:
        """Forget the beginning of the effect log, up to `before_ms`; return how many lines.

        Raises:
            StaleEpochError: Like the others, as in `handle`.
        """

        def body(transaction: WriteTransaction) -> int:
            self._check_incarnation(transaction)
            doomed: list[bytes] = []
            for raw, stored in transaction.scan(EFFECTS):
                if len(doomed) == lines_max or decode_effect(raw, stored).at_ms >= before_ms:
                    break
                doomed.append(raw)
            if doomed:
                # So that numbers go on, and are not given twice, when all lines are gone.
                transaction.put(META, _NEXT_SEQ, SEQ.pack(self._next_seq))
            for raw in doomed:
                transaction.delete(EFFECTS, raw)
            return len(doomed)

        with self._one_at_a_time:
            return self.environment.write(body, from_reserve=True)

    def _commit(self, calls: Sequence[Prepared], *, from_reserve: bool) -> list[StepReply]:
        def body(transaction: WriteTransaction) -> tuple[list[StepReply], int | None]:
            self._check_incarnation(transaction)
            batch = LedgerBatch(
                transaction,
                self._handlers,
                self.tables,
                now_ms=self._now_ms(),
                next_seq=self._next_seq if self.settings.keeps_effect_log else None,
                row_bytes_max=self.settings.row_bytes_max,
                on_defect=self._on_defect,
            )
            replies = [answer(batch, prepared) for prepared in calls]
            batch.flush()
            return replies, batch.next_seq

        with self._one_at_a_time:
            replies, next_seq = self.environment.write(body, from_reserve=from_reserve)
            if next_seq is not None:
                self._next_seq = next_seq
        return replies

    def _take_over(self, transaction: WriteTransaction) -> int:
        stored = transaction.get(META, _INCARNATION)
        incarnation = 1 if stored is None else SEQ.unpack(stored)[0] + 1
        transaction.put(META, _INCARNATION, SEQ.pack(incarnation))
        pruned_to = transaction.get(META, _NEXT_SEQ)
        last = transaction.last(EFFECTS)
        self._next_seq = max(
            0 if pruned_to is None else SEQ.unpack(pruned_to)[0],
            0 if last is None else SEQ.unpack(last[0])[0] + 1,
        )
        return int(incarnation)

    def _check_incarnation(self, transaction: ReadTransaction) -> None:
        stored = transaction.get(META, _INCARNATION)
        assert stored is not None
        current = SEQ.unpack(stored)[0]
        if current != self.incarnation:
            raise StaleEpochError(str(self.environment.path), self.incarnation, current)

    def _prunable_rows(
        self, transaction: ReadTransaction, now_ms: int, before_ms: int, rows_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Return index entry and key of each row that may go."""
        doomed: list[tuple[bytes, bytes]] = []
        latest_expiry_ms = now_ms - self.settings.clock_skew_ms
        stop = SEQ.pack(max(before_ms, 0))
        for index, _ in transaction.scan(RELEASED, stop=stop):
            if len(doomed) == rows_max:
                break
            raw = index[SEQ.size :]
            stored = transaction.get(ROWS, raw)
            if stored is None:
                doomed.append((index, raw))
                continue
            try:
                row = decode_row(raw, stored)
            except RecordCorruptError:
                # Kept for a person to look at, and it still answers nobody.
                continue
            if row.expires_at_ms < latest_expiry_ms:
                doomed.append((index, raw))
        return doomed

    def _prunable_scopes(
        self, transaction: ReadTransaction, before_ms: int, scopes_max: int
    ) -> list[bytes]:
        """Return scopes of one saga each that are old and have no row left."""
        doomed: list[bytes] = []
        for scope, stored in transaction.scan(SCOPES):
            if len(doomed) == scopes_max:
                break
            # `journal uuid/saga id`; only a saga id has a colon (see `saga_id_of`).
            if b":" not in scope.partition(b"/")[2]:
                continue
            try:
                _, since_ms = decode_epoch(scope, stored)
            except RecordCorruptError:
                continue
            rows = scope + b"/"
            kept = next(iter(transaction.scan(ROWS, start=rows, stop=prefix_stop(rows))), None)
            if since_ms < before_ms and kept is None:
                doomed.append(scope)
        return doomed


def _ignore(call: StepCall, error: Exception) -> None:
    """Be told of a defect, and do nothing."""
