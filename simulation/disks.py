"""Disks in memory that can fail: one for a shard's journal, one for a participant's ledger.

What a commit has put is there when the process is gone; what it has not is not.
A commit can be refused for want of room, or fail in a way that leaves its outcome
unknown, whether or not it was carried out.

Refuses: nothing that the real ones take.
Costs: some microseconds a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.storage.errors import StorageFailedError, StorageFullError
from raysaga.storage.journal import Entry, Head, KeyRecord
from raysaga.storage.ledger_batch import EFFECTS
from raysaga.storage.ledger_row import EffectEntry, decode_effect
from raysaga.storage.memory_journal import MemoryJournal

T = TypeVar("T")

KEPT, LOST = "kept", "lost"
"""Whether a commit of which nobody knows the outcome was carried out."""


class JournalDisk:
    """A shard's journal as one process sees it.

    Attributes:
        journal: What all processes of the shard share.
        fault: Asked before each commit: `KEPT` or `LOST`, or None if all is well.
        full: Whether there is room for nothing (2), for what is under way (1), for all (0).
        granted: Told of each epoch that is on disk.
        committed: Told of each commit that is.
    """

    def __init__(
        self,
        journal: MemoryJournal,
        *,
        fault: Callable[[str], str | None],
        full: Callable[[], int],
        granted: Callable[[Scope, Epoch], None],
        committed: Callable[[Scope, Epoch, Sequence[Entry]], None],
    ) -> None:
        self.journal = journal
        self.identity = journal.identity
        self._fault = fault
        self._full = full
        self._granted = granted
        self._committed = committed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)

    def grant_epoch(self, scope: Scope, owner: str, now_ms: int) -> Epoch:
        """See `Journal`."""
        if self._full() > 1:
            raise StorageFullError("simulated", "no room")
        fault = self._fault("grant")
        if fault == LOST:
            raise StorageFailedError("simulated", "I/O error")
        epoch = self.journal.grant_epoch(scope, owner, now_ms)
        self._granted(scope, epoch)
        if fault == KEPT:
            raise StorageFailedError("simulated", "I/O error after it was written")
        return epoch

    def epoch(self, scope: Scope) -> Epoch:
        """See `Journal`."""
        return self.journal.epoch(scope)

    def head(self, saga_id: SagaId) -> Head | None:
        """See `Journal`."""
        return self.journal.head(saga_id)

    def key_record(self, saga_id: SagaId) -> KeyRecord | None:
        """See `Journal`."""
        return self.journal.key_record(saga_id)

    def mark_released(self, saga_ids: Sequence[SagaId]) -> None:
        """See `Journal`: it may be lost."""
        if self._fault("mark") is None:
            self.journal.mark_released(saga_ids)

    def commit(
        self, scope: Scope, epoch: Epoch, entries: Sequence[Entry], *, from_reserve: bool = False
    ) -> None:
        """See `Journal`."""
        full = self._full()
        if entries and full > from_reserve:
            raise StorageFullError("simulated", "no room")
        fault = self._fault("commit") if entries else None
        if fault == LOST:
            raise StorageFailedError("simulated", "I/O error")
        self.journal.commit(scope, epoch, entries, from_reserve=from_reserve)
        if entries:
            self._committed(scope, epoch, entries)
        if fault == KEPT:
            raise StorageFailedError("simulated", "I/O error after it was written")


class _Rows:
    """What is seen inside a transaction: the tables, with what was put laid over them."""

    __slots__ = ("_changes", "_tables")

    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self._tables = tables
        self._changes: dict[str, dict[bytes, bytes | None]] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        changed = self._changes.get(table)
        if changed is not None and key in changed:
            return changed[key]
        return self._tables[table].get(key)

    def scan(
        self, table: str, *, start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start` <= key < `stop`, in order."""
        rows: dict[bytes, bytes | None] = {**self._tables[table], **self._changes.get(table, {})}
        for key in sorted(rows):
            value = rows[key]
            if value is not None and key >= start and (stop is None or key < stop):
                yield key, value

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key, or None if there is none."""
        rows = list(self.scan(table))
        return rows[-1] if rows else None

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a row."""
        self._changes.setdefault(table, {})[key] = value

    def put_many(
        self, table: str, items: Sequence[tuple[bytes, bytes]], *, append: bool = False
    ) -> int:
        """Write rows."""
        if append and items:
            last = self.last(table)
            assert last is None or last[0] < items[0][0], "keys to append must ascend"
        if items:
            self._changes.setdefault(table, {}).update(items)
        return len(items)

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a row and return whether there was one."""
        was_there = self.get(table, key) is not None
        self._changes.setdefault(table, {})[key] = None
        return was_there

    def carry_out(self) -> None:
        """Make the changes."""
        for table, changes in self._changes.items():
            rows = self._tables[table]
            for key, value in changes.items():
                if value is None:
                    rows.pop(key, None)
                else:
                    rows[key] = value

    def effects(self) -> list[EffectEntry]:
        """Return the new lines of the effect log."""
        new = self._changes.get(EFFECTS, {})
        return [decode_effect(key, value) for key, value in new.items() if value is not None]


class LedgerDisk:
    """A participant's environment: what the real one does for a ledger.

    Attributes:
        path: Of no file.
        is_full: Whether only what goes home has room.
    """

    path = Path("simulated")

    def __init__(
        self,
        tables: Sequence[str],
        *,
        fault: Callable[[], str | None],
        wrote: Callable[[list[EffectEntry]], None],
    ) -> None:
        self._tables: dict[str, dict[bytes, bytes]] = {table: {} for table in tables}
        self._fault = fault
        self._wrote = wrote
        self.is_full = False

    def write(self, body: Callable[[Any], T], *, from_reserve: bool = False) -> T:
        """See `Environment`."""
        if self.is_full and not from_reserve:
            raise StorageFullError("simulated", "no room")
        rows = _Rows(self._tables)
        result = body(rows)
        fault = self._fault()
        if fault == LOST:
            raise StorageFailedError("simulated", "I/O error")
        rows.carry_out()
        effects = rows.effects()
        if effects:
            self._wrote(effects)
        if fault == KEPT:
            raise StorageFailedError("simulated", "I/O error after it was written")
        return result

    @contextmanager
    def read(self) -> Iterator[_Rows]:
        """See `Environment`."""
        yield _Rows(self._tables)

    def close(self) -> None:
        """See `Environment`."""
