"""Finds the rows of one saga in an LMDB journal, inside a transaction.

Refuses: rows that do not belong together (`RecordCorruptError`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from raysaga.statemachines.ids import SagaId
from raysaga.storage import journal_rows as rows
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import Head, HeadFilter
from raysaga.storage.journal_rows import NUMBER, BirthRow, State
from raysaga.storage.lmdb_environment import ReadTransaction

CLOCK_BACK_MS_MAX = 60_000
"""By how much a clock may be set back, and a list by age still be complete: rows of a minute are
looked at for it. Time services slew a clock, and step it only by seconds."""


def number_of(view: ReadTransaction, saga_id: SagaId) -> int | None:
    """Return a saga's number, None if it is unknown or was pruned."""
    key = saga_id.encode()
    row = view.get(rows.IDS, key)
    return None if row is None else rows.number_if_kept(key, row)


def birth_at(view: ReadTransaction, number: int, saga_id: SagaId | None = None) -> BirthRow:
    """Return what never changes of the saga with this number, which must be `saga_id`."""
    key = NUMBER.pack(number)
    row = view.get(rows.BIRTHS, key)
    if row is None:
        raise RecordCorruptError(saga_id or str(number), -1, "its row in 'births' is missing")
    birth = rows.unpack_birth(key, row)
    if saga_id is not None and birth.saga_id != saga_id:
        raise RecordCorruptError(saga_id, -1, f"its number leads to {birth.saga_id}")
    return birth


def state_at(view: ReadTransaction, number: int, saga_id: SagaId) -> State:
    """Return where the saga with this number stands."""
    key = NUMBER.pack(number)
    row = view.get(rows.STATES, key)
    if row is None:
        raise RecordCorruptError(saga_id, -1, "its row in 'states' is missing")
    return rows.unpack_state(key, row)


def head_at(view: ReadTransaction, number: int, saga_id: SagaId | None = None) -> Head:
    """Return the head of the saga with this number, which must be `saga_id`."""
    birth = birth_at(view, number, saga_id)
    return rows.head_of(birth, state_at(view, number, birth.saga_id))


def number_before(view: ReadTransaction, accepted_before_ms: int) -> int:
    """Return a number below which is every saga that was accepted before an instant.

    Sagas are numbered as they are accepted, so it is searched for by halves. If the first of
    those at or after the instant and `CLOCK_BACK_MS_MAX` has it, none that comes later can be
    older than the instant.
    """
    counters = rows.unpack_counters(view.get(rows.META, rows.COUNTERS))
    begin, end = 0, counters.number
    while begin < end:
        middle = (begin + end) // 2
        # Some were pruned.
        key, row = next(view.scan(rows.BIRTHS, start=NUMBER.pack(middle)), (b"", b""))
        if key and rows.unpack_birth(key, row).accepted_at_ms < (
            accepted_before_ms + CLOCK_BACK_MS_MAX
        ):
            begin = NUMBER.unpack(key)[0] + 1
        else:
            end = middle
    return end


def records_back_from(
    view: ReadTransaction, saga_id: SagaId, number: int, state: State
) -> Iterator[tuple[bytes, bytes]]:
    """Yield a saga's records with their keys, the last one first."""
    place = state.place
    for seq in range(state.seq, -1, -1):
        key = NUMBER.pack(place)
        row = view.get(rows.RECORDS, key)
        if row is None:
            raise RecordCorruptError(saga_id, seq, "it is missing")
        if len(row) < rows.RECORD_PREFIX.size:
            raise RecordCorruptError(saga_id, seq, "it is cut off")
        place, owner = rows.RECORD_PREFIX.unpack_from(row)
        if owner != number:
            raise RecordCorruptError(saga_id, seq, "another saga's record is in its place")
        yield key, row[rows.RECORD_PREFIX.size :]
    if place:
        raise RecordCorruptError(saga_id, 0, "there are records before the first")


def select(
    view: ReadTransaction,
    keys: Sequence[bytes],
    wanted: HeadFilter,
    limit: int,
    found: list[Head],
) -> None:
    """Add to `found`, until it has `limit`, the wanted ones of the sagas with these keys."""
    for key in keys:
        if len(found) == limit:
            return
        row = view.get(rows.STATES, key)
        if row is None:
            continue
        state = rows.unpack_state(key, row)
        if wanted.phases is not None and rows.PHASES[state.phase_code] not in wanted.phases:
            continue
        head = rows.head_of(birth_at(view, NUMBER.unpack(key)[0]), state)
        if wanted.accepts(head):
            found.append(head)
