"""Compares the tables of an LMDB journal with each other, both ways.

Guarantees: a journal without flaws lists each saga once wherever it belongs,
nowhere else, and counts them right.
Costs: some 10 microseconds a saga. It reads in short transactions, so that a
journal in use can be checked; what changes in between is compared within one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from raysaga.storage import journal_rows as rows
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal_rows import NUMBER, TIME_AND_NUMBER, BirthRow, State
from raysaga.storage.lmdb_environment import Environment, ReadTransaction

ROWS_A_READ = 256
"""Rows compared in one transaction; growth of the map waits for it."""

Flaw = tuple[str, str]
Row = tuple[bytes, bytes]


def index_flaws(environment: Environment) -> Iterator[Flaw]:
    """Yield every contradiction: the saga's id or the row's name, and what is wrong.

    Raises:
        NewerFormatError: If a later version wrote a row.
    """
    for table, check in _CHECKS:
        yield from _check_table(environment, table, check)
    with environment.read() as view:
        flaws = list(_count_flaws(view))
    yield from flaws


def _check_table(
    environment: Environment,
    table: str,
    check: Callable[[ReadTransaction, bytes, bytes], Iterator[Flaw]],
) -> Iterator[Flaw]:
    start = b""
    while True:
        with environment.read() as view:
            page = list(islice(view.scan(table, start=start), ROWS_A_READ))
            flaws = [flaw for key, row in page for flaw in _guarded(check, view, key, row)]
        yield from flaws
        if len(page) < ROWS_A_READ:
            return
        start = page[-1][0] + b"\0"


def _guarded(
    check: Callable[[ReadTransaction, bytes, bytes], Iterator[Flaw]],
    view: ReadTransaction,
    key: bytes,
    row: bytes,
) -> Iterator[Flaw]:
    try:
        yield from check(view, key, row)
    except RecordCorruptError as error:
        yield error.saga_id, error.detail
    except (ValueError, KeyError, TypeError) as error:
        yield key.hex(), f"a row cannot be read: {error!r}"


def _birth(view: ReadTransaction, key: bytes) -> BirthRow | None:
    row = view.get(rows.BIRTHS, key)
    return None if row is None else rows.unpack_birth(key, row)


def _state(view: ReadTransaction, key: bytes) -> State | None:
    row = view.get(rows.STATES, key)
    return None if row is None else rows.unpack_state(key, row)


def _check_birth(view: ReadTransaction, key: bytes, row: bytes) -> Iterator[Flaw]:
    """Check that a saga is wherever it must be."""
    birth = rows.unpack_birth(key, row)
    saga_id = birth.saga_id
    number = NUMBER.unpack(key)[0]
    id_key = saga_id.encode()
    id_row = view.get(rows.IDS, id_key)
    if id_row is None or rows.number_if_kept(id_key, id_row) != number:
        yield saga_id, "its id does not lead to its number"
    state = _state(view, key)
    if state is None:
        yield saga_id, "its row in 'states' is missing"
        return
    ended = state.phase_code in rows.TERMINAL_CODES
    if ended == (view.get(rows.ACTIVE, key) is not None):
        yield saga_id, "it is active and terminal, or neither"
    if ended and state.due_at_ms is not None:
        yield saga_id, "it is terminal and has a timer"
    if state.due_at_ms is not None:
        due_key = TIME_AND_NUMBER.pack(state.due_at_ms, number)
        if view.get(rows.DUE, due_key) is None:
            yield saga_id, "its timer is missing"
    if ended:
        key = TIME_AND_NUMBER.pack(state.changed_at_ms, number)
        places = [t for t in (rows.UNRELEASED, rows.RELEASED) if view.get(t, key) is not None]
        if len(places) != 1:
            yield saga_id, f"it is terminal and listed in {places or 'no list of such'}"


def _check_state(view: ReadTransaction, key: bytes, row: bytes) -> Iterator[Flaw]:
    rows.unpack_state(key, row)
    if _birth(view, key) is None:
        yield key.hex(), "a row of 'states' has none in 'births'"


def _check_active(view: ReadTransaction, key: bytes, _row: bytes) -> Iterator[Flaw]:
    state = _state(view, key)
    if state is None or state.phase_code in rows.TERMINAL_CODES:
        yield _name(view, key), "it is listed as active, and is not"


def _check_due(view: ReadTransaction, key: bytes, _row: bytes) -> Iterator[Flaw]:
    due_at_ms, number = TIME_AND_NUMBER.unpack(key)
    number_key = NUMBER.pack(number)
    state = _state(view, number_key)
    if state is None or state.due_at_ms != due_at_ms:
        yield _name(view, number_key), f"it has a timer at {due_at_ms} that it does not know of"


def _check_finished(view: ReadTransaction, key: bytes, _row: bytes) -> Iterator[Flaw]:
    changed_at_ms, number = TIME_AND_NUMBER.unpack(key)
    number_key = NUMBER.pack(number)
    state = _state(view, number_key)
    if (
        state is None
        or state.phase_code not in rows.TERMINAL_CODES
        or state.changed_at_ms != changed_at_ms
    ):
        yield _name(view, number_key), f"it is listed as ended at {changed_at_ms}, and did not"


def _check_id(view: ReadTransaction, key: bytes, row: bytes) -> Iterator[Flaw]:
    number = rows.number_if_kept(key, row)
    if number is not None:
        birth = _birth(view, NUMBER.pack(number))
        if birth is None or birth.saga_id.encode() != key:
            yield key.decode(), "its number leads to no saga, or to another one"
        return
    pruned = rows.unpack_pruned(key, row)
    pruned_key = TIME_AND_NUMBER.pack(pruned.key_record.changed_at_ms, pruned.number)
    if view.get(rows.PRUNED, pruned_key) != key:
        yield key.decode(), "it was pruned, and is not listed so"


def _check_pruned(view: ReadTransaction, key: bytes, row: bytes) -> Iterator[Flaw]:
    id_row = view.get(rows.IDS, row)
    if id_row is None or rows.number_if_kept(row, id_row) is not None:
        yield row.decode(), "it is listed as pruned, and was not"
    if view.get(rows.BIRTHS, key[8:]) is not None:
        yield row.decode(), "it was pruned, and is still there"


def _count_flaws(view: ReadTransaction) -> Iterator[Flaw]:
    """Compare the counters with what there is; one transaction, for they must agree."""
    try:
        counters = rows.unpack_counters(view.get(rows.META, rows.COUNTERS))
        counts = [0] * len(rows.PHASES)
        record_count = 0
        for key, row in view.scan(rows.STATES):
            state = rows.unpack_state(key, row)
            record_count += state.seq + 1
            counts[state.phase_code - 1] += 1
    except RecordCorruptError as error:
        yield error.saga_id, error.detail
        return
    if tuple(counts) != counters.counts:
        yield "counters", f"the phases are counted {counters.counts}, there are {tuple(counts)}"
    if view.count(rows.RECORDS) != record_count:
        found = view.count(rows.RECORDS)
        yield "counters", f"there are {found} records, the sagas have {record_count}"
    for table, following in ((rows.BIRTHS, counters.number), (rows.RECORDS, counters.place)):
        last = view.last(table)
        if last is not None and NUMBER.unpack(last[0])[0] >= following:
            yield "counters", f"the next key of {table!r} is taken"


def _name(view: ReadTransaction, key: bytes) -> str:
    birth = _birth(view, key)
    return key.hex() if birth is None else birth.saga_id


_CHECKS = (
    (rows.BIRTHS, _check_birth),
    (rows.STATES, _check_state),
    (rows.ACTIVE, _check_active),
    (rows.DUE, _check_due),
    (rows.UNRELEASED, _check_finished),
    (rows.RELEASED, _check_finished),
    (rows.IDS, _check_id),
    (rows.PRUNED, _check_pruned),
)
