"""Finds what a journal has to tell the world, and remembers how far it was told.

The records are the outbox: whoever commits an end has committed the message, at no cost of its
own. A teller reads them in the order in which they were committed, across all sagas, and
keeps a bookmark in a file beside the journal: the place of the first record not told yet.

Guarantees: every end, and every parking, is found by whoever reads from a bookmark on, each
saga's in its order; what a bookmark has not passed is not pruned. A bookmark that is
behind, or that cannot be read, means that some is told again.
Refuses: what a later version wrote (`NewerFormatError`). A record that is damaged is passed
over, unless the index tells what it said.
Costs: nothing for who commits. A reader takes no lock that a writer waits for: one that
stood still with LMDB's writer lock would hold up the engine, hence the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from raysaga.statemachines.events import SagaParked
from raysaga.statemachines.tables import PARKED, TERMINAL
from raysaga.storage import journal_rows as rows
from raysaga.storage.codec import decode_record
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.file_system import write_atomically
from raysaga.storage.journal import Head
from raysaga.storage.journal_rows import NUMBER, RECORD_PREFIX
from raysaga.storage.lmdb_environment import Environment, ReadTransaction
from raysaga.storage.lmdb_lookup import birth_at, state_at

PLACE_FIRST: Final = 1
"""Of the first record of a journal."""

_PREFIX, _SUFFIX = "told-", ".json"


class End(NamedTuple):
    """A record that tells an end, or that a saga was parked.

    Attributes:
        place: Where it is.
        seq: Its number among its saga's records.
        head: Its saga's, which may have gone on since.
    """

    place: int
    seq: int
    head: Head


class EndsFound(NamedTuple):
    """What one look has found; `place` is where to go on."""

    ends: list[End]
    place: int


def ends_from(environment: Environment, place: int, rows_max: int) -> EndsFound:
    """Return the ends among the next `rows_max` records from `place` on, all in one read."""
    found: list[End] = []
    with environment.read() as view:
        for key, row in islice(view.scan(rows.RECORDS, start=NUMBER.pack(place)), rows_max):
            (place,) = NUMBER.unpack(key)
            end = _end_at(view, place, row)
            if end is not None:
                found.append(end)
            place += 1
    return EndsFound(found, place)


def _end_at(view: ReadTransaction, place: int, row: bytes) -> End | None:
    try:
        number = _number_of(row)
        birth = birth_at(view, number)
        state = state_at(view, number, birth.saga_id)
        head = rows.head_of(birth, state)
        if state.place == place:
            # The usual case, without a look into the record.
            return End(place, state.seq, head) if head.phase in TERMINAL | PARKED else None
        record = decode_record(birth.saga_id, row[RECORD_PREFIX.size :], None)
    except RecordCorruptError:
        # Its saga is parked for that by whoever drives it, and this will be told.
        return None
    is_end = isinstance(record.events[-1], SagaParked) if record.events else False
    return End(place, record.seq, head) if is_end else None


def end_place(environment: Environment) -> int:
    """Return the place that the next record will get."""
    with environment.read() as view:
        return rows.unpack_counters(view.get(rows.META, rows.COUNTERS)).place


def written_at_ms(environment: Environment, place: int) -> int | None:
    """Return when the first record from `place` on was written; None if none can be read."""
    with environment.read() as view:
        for _, row in view.scan(rows.RECORDS, start=NUMBER.pack(place)):
            try:
                saga_id = birth_at(view, _number_of(row)).saga_id
                return decode_record(saga_id, row[RECORD_PREFIX.size :], None).at_ms
            except RecordCorruptError:
                continue
    return None


def _number_of(row: bytes) -> int:
    """Return the number of a record's saga; 0, which is none's, if it is too short to have one."""
    return RECORD_PREFIX.unpack_from(row)[1] if len(row) >= RECORD_PREFIX.size else 0


# -- bookmarks ---------------------------------------------------------------


def read_bookmark(journal: Path, name: str) -> int | None:
    """Return the bookmark `name` of the journal in a folder; None if there is none."""
    path = _path(journal, name)
    return _read(path) if path.exists() else None


def write_bookmark(journal: Path, name: str, place: int) -> None:
    """Move, or make, a bookmark; durable on return.

    Raises:
        OSError: If it cannot be written; the old one stands.
    """
    assert place >= PLACE_FIRST
    write_atomically(_path(journal, name), json.dumps({"place": place}).encode())


def remove_bookmark(journal: Path, name: str) -> bool:
    """Remove a bookmark, so that nothing is kept for it; return whether there was one."""
    path = _path(journal, name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def bookmarks(journal: Path) -> dict[str, int]:
    """Return all bookmarks of the journal in a folder, by name."""
    return {
        path.name[len(_PREFIX) : -len(_SUFFIX)]: _read(path) for path in sorted(_paths(journal))
    }


def least_bookmark(journal: Path) -> int | None:
    """Return the place from which on nothing may be pruned; None if everything may."""
    return min((_read(path) for path in _paths(journal)), default=None)


def write_bookmarks(journal: Path, places: Mapping[str, int]) -> None:
    """Give a copy of a journal the bookmarks that the original had before it was copied."""
    for name, place in places.items():
        write_bookmark(journal, name, place)


def _path(journal: Path, name: str) -> Path:
    return journal / f"{_PREFIX}{name}{_SUFFIX}"


def _paths(journal: Path) -> Iterator[Path]:
    return journal.glob(f"{_PREFIX}*{_SUFFIX}")


def _read(path: Path) -> int:
    try:
        place = json.loads(path.read_bytes())["place"]
    except (OSError, ValueError, KeyError, TypeError):
        return PLACE_FIRST
    return max(place, PLACE_FIRST) if type(place) is int else PLACE_FIRST
