"""Works out what one commit changes in the tables of an LMDB journal, and writes it.

Guarantees: each record follows its saga's last one, and each saga is the
writer's; else nothing is written, for the transaction is given up.
Costs: a few calls of the driver for the whole batch, not for each entry, since
each call gives up the interpreter's lock and may wait to get it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.storage import journal_rows as rows
from raysaga.storage.errors import RecordCorruptError, SequenceError, StaleEpochError
from raysaga.storage.journal import Birth, Entry
from raysaga.storage.journal_rows import NUMBER, TIME_AND_NUMBER, Counters, State
from raysaga.storage.lmdb_environment import WriteTransaction


class Place:
    """Where a saga stands in the tables."""

    __slots__ = ("due_at_ms", "number", "phase_code", "place", "seq")

    def __init__(
        self, number: int, seq: int, place: int, phase_code: int, due_at_ms: int | None
    ) -> None:
        self.number = number
        self.seq = seq
        self.place = place
        self.phase_code = phase_code
        self.due_at_ms = due_at_ms


class _Touched:
    """A saga of this batch: where it stood before, where it stands now."""

    __slots__ = ("before", "entry", "number", "own", "phase_code", "place", "seq")

    def __init__(self, number: int, before: Place | None, own: bool) -> None:
        self.number = number
        self.before = before
        self.own = own
        self.seq = -1 if before is None else before.seq
        self.place = 0 if before is None else before.place
        self.phase_code = 0 if before is None else before.phase_code
        self.entry: Entry | None = None


class _Changes:
    """Rows to put, by table."""

    __slots__ = ("active", "due", "finished", "new_states", "states")

    def __init__(self) -> None:
        self.active: list[tuple[bytes, bytes]] = []
        self.due: list[tuple[bytes, bytes]] = []
        self.finished: list[tuple[bytes, bytes]] = []
        self.new_states: list[tuple[bytes, bytes]] = []
        self.states: list[tuple[bytes, bytes]] = []


class Batch:
    """The entries of one commit. Make a new one if the transaction must be run again."""

    def __init__(
        self,
        txn: WriteTransaction,
        scope: Scope,
        epoch: Epoch,
        known: Mapping[SagaId, Place],
    ) -> None:
        counters = rows.unpack_counters(txn.get(rows.META, rows.COUNTERS))
        self._txn = txn
        self._scope = scope
        self._epoch = epoch
        self._known = known
        self._number = counters.number
        self._place = counters.place
        self._counts = list(counters.counts)
        self._touched: dict[SagaId, _Touched] = {}
        self._ids: list[tuple[bytes, bytes]] = []
        self._births: list[tuple[bytes, bytes]] = []
        self._records: list[tuple[bytes, bytes]] = []

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in `entries`, in order.

        Raises:
            SequenceError: If one does not follow.
            StaleEpochError: If one is of a saga of another scope.
        """
        known, touched = self._known, self._touched
        for entry in entries:
            saga_id = entry.saga_id
            saga = touched.get(saga_id)
            if entry.birth is not None:
                if saga is not None:
                    raise SequenceError(saga_id, saga.seq + 1, entry.seq)
                saga = touched[saga_id] = self._born(entry, entry.birth)
            elif saga is None:
                place = known.get(saga_id)
                if place is None:
                    place = self._look_up(entry)
                saga = touched[saga_id] = _Touched(place.number, place, own=True)
            if entry.seq != saga.seq + 1:
                raise SequenceError(saga_id, saga.seq + 1, entry.seq)
            assert saga.phase_code not in rows.TERMINAL_CODES, "a terminal answer never changes"
            assert entry.at_ms >= 0 and (entry.due_at_ms is None or entry.due_at_ms >= 0)
            prefix = rows.RECORD_PREFIX.pack(saga.place, saga.number)
            self._records.append((NUMBER.pack(self._place), prefix + entry.record))
            saga.place = self._place
            saga.seq = entry.seq
            saga.phase_code = rows.PHASE_CODES[entry.phase]
            saga.entry = entry
            self._place += 1

    def write(self) -> None:
        """Write everything to the transaction."""
        if not self._records:
            return
        txn = self._txn
        self._ids.sort()
        added = txn.put_many(rows.IDS, self._ids, overwrite=False)
        if added != len(self._ids):
            self._refuse_second_birth()
        txn.put_many(rows.RECORDS, self._records, append=True)
        txn.put_many(rows.BIRTHS, self._births, append=True)
        changes = _Changes()
        for saga in self._touched.values():
            self._settle(saga, changes)
        txn.put_many(rows.STATES, changes.new_states, append=True)
        txn.put_many(rows.ACTIVE, changes.active, append=True)
        for table, changed in (
            (rows.STATES, changes.states),
            (rows.DUE, changes.due),
            (rows.UNRELEASED, changes.finished),
        ):
            # Neighbours lie in one page; LMDB finds it again for free.
            changed.sort()
            txn.put_many(table, changed)
        counters = Counters(self._number, self._place, tuple(self._counts))
        txn.put(rows.META, rows.COUNTERS, rows.pack_counters(counters))

    def _settle(self, saga: _Touched, changes: _Changes) -> None:
        """Sort out what changes in the indexes for one saga; rows that go are deleted now."""
        entry, before, number = saga.entry, saga.before, saga.number
        assert entry is not None
        key = NUMBER.pack(number)
        code = saga.phase_code
        ended = code in rows.TERMINAL_CODES
        due_at_ms = None if ended else entry.due_at_ms
        due_before = None if before is None else before.due_at_ms
        state = State(
            entry.seq,
            saga.place,
            entry.at_ms,
            due_at_ms,
            code,
            entry.chain,
            entry.reason,
            entry.step,
        )
        row = (key, rows.pack_state(key, state))
        self._counts[code - 1] += 1
        if before is None:
            changes.new_states.append(row)
            if not ended:
                changes.active.append((key, b""))
        else:
            changes.states.append(row)
            self._counts[before.phase_code - 1] -= 1
            if ended:
                self._txn.delete(rows.ACTIVE, key)
        if due_at_ms != due_before:
            if due_before is not None:
                self._txn.delete(rows.DUE, TIME_AND_NUMBER.pack(due_before, number))
            if due_at_ms is not None:
                changes.due.append((TIME_AND_NUMBER.pack(due_at_ms, number), b""))
        if ended:
            changes.finished.append((TIME_AND_NUMBER.pack(entry.at_ms, number), b""))

    def own_places(self) -> Iterator[tuple[SagaId, Place]]:
        """Yield where the writer's own sagas stand now."""
        for saga_id, saga in self._touched.items():
            entry = saga.entry
            if saga.own and entry is not None:
                yield (
                    saga_id,
                    Place(saga.number, saga.seq, saga.place, saga.phase_code, entry.due_at_ms),
                )

    def _born(self, entry: Entry, birth: Birth) -> _Touched:
        number = self._number
        self._number += 1
        key = NUMBER.pack(number)
        saga_id = entry.saga_id.encode()
        self._ids.append((saga_id, rows.seal(saga_id, key)))
        self._births.append((key, rows.pack_birth(key, entry.saga_id, entry.at_ms, birth)))
        return _Touched(number, None, birth.scope == self._scope)

    def _look_up(self, entry: Entry) -> Place:
        """Return the place of a saga that this journal object has not written lately."""
        saga_id = entry.saga_id
        key = saga_id.encode()
        row = self._txn.get(rows.IDS, key)
        if row is None:
            raise SequenceError(saga_id, 0, entry.seq)
        number = rows.number_if_kept(key, row)
        if number is None:
            raise SequenceError(saga_id, rows.unpack_pruned(key, row).seq + 1, entry.seq)
        number_key = NUMBER.pack(number)
        birth_row = self._txn.get(rows.BIRTHS, number_key)
        state_row = self._txn.get(rows.STATES, number_key)
        if birth_row is None or state_row is None:
            raise RecordCorruptError(saga_id, entry.seq, "its number leads nowhere")
        birth = rows.unpack_birth(number_key, birth_row)
        if birth.saga_id != saga_id:
            raise RecordCorruptError(saga_id, entry.seq, f"its number leads to {birth.saga_id}")
        if birth.scope != self._scope:
            scope_key = birth.scope.encode()
            epoch_row = self._txn.get(rows.EPOCHS, scope_key)
            current, _, _ = rows.unpack_epoch(scope_key, epoch_row)
            raise StaleEpochError(birth.scope, self._epoch, current)
        state = rows.unpack_state(number_key, state_row)
        return Place(number, state.seq, state.place, state.phase_code, state.due_at_ms)

    def _refuse_second_birth(self) -> None:
        for key, ours in self._ids:
            row = self._txn.get(rows.IDS, key)
            assert row is not None
            if row == ours:
                continue
            number = rows.number_if_kept(key, row)
            if number is None:
                seq = rows.unpack_pruned(key, row).seq
            else:
                number_key = NUMBER.pack(number)
                state = self._txn.get(rows.STATES, number_key)
                seq = -1 if state is None else rows.unpack_state(number_key, state).seq
            raise SequenceError(key.decode(), seq + 1, 0)
        raise AssertionError("a saga id was there, and is not")
