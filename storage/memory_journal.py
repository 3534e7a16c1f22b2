"""Keeps a journal in memory: for tests, for simulation, and to try things out.

Guarantees: the contract of `Journal`, but for one thing: it is lost with the
process, and `backup` says so.
Costs: some microseconds an entry, and a lock.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.tables import TERMINAL, Phase
from raysaga.storage.errors import (
    DataFolderError,
    SequenceError,
    StaleEpochError,
    StorageFullError,
)
from raysaga.storage.journal import (
    Entry,
    Head,
    HeadFilter,
    HeadsFound,
    JournalIdentity,
    KeyRecord,
    Usage,
)

ENTRY_BYTES = 200
"""What an entry counts for beside its record; as much as the rows on a disk take."""


class _Kept:
    """One saga: its head, its records, and its place in the order of acceptance."""

    __slots__ = ("head", "number", "records")

    def __init__(self, number: int, head: Head, records: list[bytes]) -> None:
        self.number = number
        self.head = head
        self.records = records


class MemoryJournal:
    """One shard's memory, in memory. See `Journal`.

    Attributes:
        identity: What the journal is for.
        commits: Commits that wrote something.
    """

    def __init__(
        self, identity: JournalIdentity, *, cap_bytes: int = 1 << 40, reserve_bytes: int = 0
    ) -> None:
        assert 0 <= reserve_bytes < cap_bytes
        self.identity = identity
        self.commits = 0
        self._cap = cap_bytes
        self._reserve = reserve_bytes
        self._used = 0
        self._lock = threading.RLock()
        self._next_number = 1
        self._epochs: dict[Scope, Epoch] = {}
        self._definitions: dict[str, Mapping[str, Any]] = {}
        self._kept: dict[SagaId, _Kept] = {}
        self._order: list[tuple[int, SagaId]] = []
        self._pruned: dict[SagaId, tuple[int, int, KeyRecord]] = {}
        self._unreleased: list[SagaId] = []
        self._released: list[SagaId] = []
        self._counts = dict.fromkeys(Phase, 0)
        self._restored_at_ms: int | None = None

    def grant_epoch(self, scope: Scope, owner: str, now_ms: int) -> Epoch:
        """See `Journal`."""
        assert owner and now_ms >= 0
        with self._lock:
            self._epochs[scope] = Epoch(self.epoch(scope) + 1)
            return self._epochs[scope]

    def epoch(self, scope: Scope) -> Epoch:
        """See `Journal`."""
        return self._epochs.get(scope, Epoch(0))

    def commit(
        self, scope: Scope, epoch: Epoch, entries: Sequence[Entry], *, from_reserve: bool = False
    ) -> None:
        """See `Journal`."""
        with self._lock:
            if self.epoch(scope) != epoch:
                raise StaleEpochError(scope, epoch, self.epoch(scope))
            self._check(scope, epoch, entries)
            if not entries:
                return
            size = sum(len(entry.record) + ENTRY_BYTES for entry in entries)
            limit = self._cap if from_reserve else self._cap - self._reserve
            if self._used + size > limit:
                raise StorageFullError("memory", f"its cap of {limit} bytes is reached")
            for entry in entries:
                self._write(entry)
            self._used += size
            self.commits += 1

    def put_definition(self, content_hash: str, data: Mapping[str, Any]) -> None:
        """See `Journal`."""
        with self._lock:
            self._definitions.setdefault(content_hash, dict(data))

    def definitions(self) -> dict[str, Mapping[str, Any]]:
        """See `Journal`."""
        with self._lock:
            return dict(self._definitions)

    def head(self, saga_id: SagaId) -> Head | None:
        """See `Journal`."""
        kept = self._kept.get(saga_id)
        return None if kept is None else kept.head

    def records(self, saga_id: SagaId) -> list[bytes]:
        """See `Journal`."""
        with self._lock:
            kept = self._kept.get(saga_id)
            return [] if kept is None else list(kept.records)

    def key_record(self, saga_id: SagaId) -> KeyRecord | None:
        """See `Journal`."""
        with self._lock:
            kept = self._kept.get(saga_id)
            if kept is not None:
                return _key_record(kept.head)
            pruned = self._pruned.get(saga_id)
            return None if pruned is None else pruned[2]

    def active(self) -> Iterator[Head]:
        """See `Journal`."""
        with self._lock:
            kept = [self._kept[saga_id] for _, saga_id in self._order]
            found = [k.head for k in kept if k.head.phase not in TERMINAL]
        return iter(found)

    def heads(
        self, wanted: HeadFilter, *, limit: int, after: SagaId | None = None, newest: bool = True
    ) -> list[Head]:
        """See `Journal`."""
        every = len(self._order) + 1
        return self.look(wanted, limit=limit, rows_max=every, after=after, newest=newest).heads

    def look(
        self,
        wanted: HeadFilter,
        *,
        limit: int,
        rows_max: int,
        after: SagaId | None = None,
        newest: bool = True,
    ) -> HeadsFound:
        """See `Journal`."""
        with self._lock:
            order = self._order
            if after is not None:
                kept = self._kept.get(after)
                number = self._pruned[after][0] if kept is None else kept.number
                if newest:
                    order = order[: bisect.bisect_left(order, (number,))]
                else:
                    order = order[bisect.bisect_left(order, (number + 1,)) :]
            found: list[Head] = []
            if limit < 1:
                return HeadsFound(found, None)
            for count, (_, saga_id) in enumerate(reversed(order) if newest else order, 1):
                head = self._kept[saga_id].head
                if wanted.accepts(head):
                    found.append(head)
                if count == rows_max or len(found) == limit:
                    return HeadsFound(found, saga_id)
            return HeadsFound(found, None)

    def counts(self) -> dict[Phase, int]:
        """See `Journal`."""
        with self._lock:
            return dict(self._counts)

    def due_before(self, now_ms: int, limit: int) -> list[SagaId]:
        """See `Journal`."""
        with self._lock:
            due = [
                (kept.head.due_at_ms, kept.number, saga_id)
                for saga_id, kept in self._kept.items()
                if kept.head.due_at_ms is not None and kept.head.due_at_ms <= now_ms
            ]
        return [saga_id for _, _, saga_id in sorted(due)[:limit]]

    def unreleased(self, limit: int) -> list[Head]:
        """See `Journal`."""
        with self._lock:
            return [self._kept[saga_id].head for saga_id in self._unreleased[:limit]]

    def mark_released(self, saga_ids: Sequence[SagaId]) -> None:
        """See `Journal`."""
        with self._lock:
            told = set(saga_ids)
            for saga_id in [s for s in self._unreleased if s in told]:
                bisect.insort(self._released, saga_id, key=self._ended)
            self._unreleased = [s for s in self._unreleased if s not in told]

    def prune(self, finished_before_ms: int, limit: int) -> int:
        """See `Journal`."""
        with self._lock:
            chosen = [
                saga_id
                for saga_id in self._released
                if self._kept[saga_id].head.changed_at_ms < finished_before_ms
            ][:limit]
            for saga_id in chosen:
                kept = self._kept.pop(saga_id)
                self._counts[kept.head.phase] -= 1
                self._used -= sum(len(r) + ENTRY_BYTES for r in kept.records)
                self._pruned[saga_id] = (kept.number, kept.head.seq, _key_record(kept.head))
            gone = set(chosen)
            self._released = [s for s in self._released if s not in gone]
            self._order = [row for row in self._order if row[1] not in gone]
            return len(chosen)

    def prune_keys(self, finished_before_ms: int, limit: int) -> int:
        """See `Journal`."""
        with self._lock:
            old = [
                (record.changed_at_ms, number, saga_id)
                for saga_id, (number, _, record) in self._pruned.items()
                if record.changed_at_ms < finished_before_ms
            ]
            chosen = sorted(old)[:limit]
            for _, _, saga_id in chosen:
                del self._pruned[saga_id]
            return len(chosen)

    def restored_at_ms(self) -> int | None:
        """See `Journal`."""
        return self._restored_at_ms

    def clear_restored(self) -> None:
        """See `Journal`."""
        self._restored_at_ms = None

    def mark_restored(self, restored_at_ms: int, epoch_jump: int) -> None:
        """Behave as if restored from a backup, so that a host can be tried on it."""
        with self._lock:
            self._epochs = {s: Epoch(e + epoch_jump) for s, e in self._epochs.items()}
            self._restored_at_ms = restored_at_ms

    def usage(self) -> Usage:
        """See `Journal`."""
        return Usage(self._used, self._used, self._cap, self._reserve)

    def index_flaws(self) -> Iterator[tuple[str, str]]:
        """See `Journal`."""
        with self._lock:
            counts = dict.fromkeys(Phase, 0)
            finished = {*self._unreleased, *self._released}
            flaws: list[tuple[str, str]] = []
            for saga_id, kept in self._kept.items():
                counts[kept.head.phase] += 1
                if len(kept.records) != kept.head.seq + 1:
                    flaws.append((saga_id, "its records are not as many as noted"))
                if (kept.head.phase in TERMINAL) != (saga_id in finished):
                    flaws.append((saga_id, "it is active and terminal, or neither"))
            if counts != self._counts:
                flaws.append(("counters", f"there are {counts}, counted as {self._counts}"))
            if {saga_id for _, saga_id in self._order} != set(self._kept):
                flaws.append(("order", "it lists other sagas than there are"))
        return iter(flaws)

    def backup(self, target: Path) -> None:
        """Refuse: there is nothing on disk to keep up with."""
        raise DataFolderError(
            str(target), "a journal in memory has no backup; use a journal on disk"
        )

    def close(self) -> None:
        """See `Journal`."""

    def _check(self, scope: Scope, epoch: Epoch, entries: Sequence[Entry]) -> None:
        """Refuse what does not follow, before anything is written."""
        seqs: dict[SagaId, int] = {}
        phases: dict[SagaId, Phase] = {}
        for entry in entries:
            saga_id = entry.saga_id
            if saga_id not in seqs:
                seqs[saga_id] = self._last_seq(saga_id)
                kept = self._kept.get(saga_id)
                if kept is not None:
                    phases[saga_id] = kept.head.phase
                    if entry.birth is None and kept.head.scope != scope:
                        raise StaleEpochError(kept.head.scope, epoch, self.epoch(kept.head.scope))
            if entry.seq != seqs[saga_id] + 1 or (entry.seq == 0) != (entry.birth is not None):
                raise SequenceError(saga_id, seqs[saga_id] + 1, entry.seq)
            if saga_id in self._pruned:
                raise SequenceError(saga_id, seqs[saga_id] + 1, entry.seq)
            if entry.birth is not None:
                assert entry.birth.definition_hash in self._definitions, (
                    "a saga's definition is put before the saga"
                )
            assert phases.get(saga_id) not in TERMINAL, "a terminal answer never changes"
            assert entry.at_ms >= 0 and (entry.due_at_ms is None or entry.due_at_ms >= 0)
            phases[saga_id] = entry.phase
            seqs[saga_id] = entry.seq

    def _last_seq(self, saga_id: SagaId) -> int:
        kept = self._kept.get(saga_id)
        if kept is not None:
            return kept.head.seq
        pruned = self._pruned.get(saga_id)
        return -1 if pruned is None else pruned[1]

    def _write(self, entry: Entry) -> None:
        ended = entry.phase in TERMINAL
        due_at_ms = None if ended else entry.due_at_ms
        if entry.birth is not None:
            birth = entry.birth
            head = Head(
                saga_id=entry.saga_id,
                seq=0,
                chain=entry.chain,
                phase=entry.phase,
                accepted_at_ms=entry.at_ms,
                changed_at_ms=entry.at_ms,
                reason=entry.reason,
                step=entry.step,
                due_at_ms=due_at_ms,
                scope=birth.scope,
                fingerprint=birth.fingerprint,
                definition_name=birth.definition_name,
                definition_hash=birth.definition_hash,
            )
            self._kept[entry.saga_id] = _Kept(self._next_number, head, [entry.record])
            self._order.append((self._next_number, entry.saga_id))
            self._next_number += 1
        else:
            kept = self._kept[entry.saga_id]
            self._counts[kept.head.phase] -= 1
            kept.records.append(entry.record)
            kept.head = kept.head._replace(
                seq=entry.seq,
                chain=entry.chain,
                phase=entry.phase,
                changed_at_ms=entry.at_ms,
                reason=entry.reason,
                step=entry.step,
                due_at_ms=due_at_ms,
            )
        self._counts[entry.phase] += 1
        if ended:
            bisect.insort(self._unreleased, entry.saga_id, key=self._ended)

    def _ended(self, saga_id: SagaId) -> tuple[int, int]:
        kept = self._kept[saga_id]
        return kept.head.changed_at_ms, kept.number


def _key_record(head: Head) -> KeyRecord:
    return KeyRecord(head.saga_id, head.fingerprint, head.phase, head.reason, head.changed_at_ms)
