"""The forms of the rows in an LMDB journal, other than the records themselves.

Guarantees: a row that decodes is what was written under that key; a CRC covers
both, for LMDB hands out a flipped bit without a word.
Refuses: anything else (`RecordCorruptError`), and a phase that only a later version
knows (`NewerFormatError`).

    meta        "identity" | "counters" | "restored" | "epoch_base"
    definitions content hash -> definition
    epochs      scope -> newest epoch, owner, when granted
    ids         saga id -> number, or after pruning what is left of the saga
    births      number -> what never changes of a saga
    states      number -> where it stands, and the place of its last record
    records     place -> place of the record before, number, record
    active      number, of each saga that is not terminal
    due         due_at_ms, number
    unreleased  changed_at_ms, number, of each terminal saga at first
    released    the same, once its participants were told
    pruned      changed_at_ms, number -> saga id

Numbers and places only ever grow, so that new rows go to the end of their table
and the sagas in flight share few pages.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.tables import TERMINAL, Phase
from raysaga.storage.codec import FORMAT_VERSION
from raysaga.storage.errors import NewerFormatError, RecordCorruptError
from raysaga.storage.journal import Birth, Head, KeyRecord

META, DEFINITIONS, EPOCHS, IDS = "meta", "definitions", "epochs", "ids"
BIRTHS, STATES, RECORDS = "births", "states", "records"
ACTIVE, DUE = "active", "due"
UNRELEASED, RELEASED, PRUNED = "unreleased", "released", "pruned"

TABLES: Final = (
    META, DEFINITIONS, EPOCHS, IDS, BIRTHS, STATES, RECORDS,
    ACTIVE, DUE, UNRELEASED, RELEASED, PRUNED,
)  # fmt: skip

IDENTITY, COUNTERS = b"identity", b"counters"
RESTORED, EPOCH_BASE = b"restored", b"epoch_base"

PHASE_CODES: Final[Mapping[Phase, int]] = {
    Phase.RUNNING: 1,
    Phase.FORWARD_ONLY: 2,
    Phase.COMPENSATING: 3,
    Phase.PARKED_RUNNING: 4,
    Phase.PARKED_FORWARD: 5,
    Phase.PARKED_BACKWARD: 6,
    Phase.COMPLETED: 7,
    Phase.COMPENSATED: 8,
}
"""What stands for a phase on disk; never reuse a number."""

PHASES: Final[Mapping[int, Phase]] = {code: phase for phase, code in PHASE_CODES.items()}
TERMINAL_CODES: Final = frozenset(PHASE_CODES[phase] for phase in TERMINAL)

NUMBER: Final = struct.Struct(">Q")
TIME_AND_NUMBER: Final = struct.Struct(">QQ")
"""Key of a row that is found by time; instants before 1970 do not occur."""

RECORD_PREFIX: Final = struct.Struct(">QQ")
"""Place of the saga's record before, 0 for none, and the saga's number."""

_STATE: Final = struct.Struct(">IQQqB16sI")
_COUNTERS: Final = struct.Struct(">QQ8Q")
_PRUNED: Final = struct.Struct(">QIQBI")
_CRC: Final = struct.Struct(">I")


class State(NamedTuple):
    """A row of `states`."""

    seq: int
    place: int
    changed_at_ms: int
    due_at_ms: int | None
    phase_code: int
    chain: bytes
    reason: str
    step: str


class Counters(NamedTuple):
    """The row of `meta` that each commit reads and writes.

    Attributes:
        number: Of the next saga.
        place: Of the next record.
        counts: Number of sagas by phase code, less one.
    """

    number: int
    place: int
    counts: tuple[int, ...]


class BirthRow(NamedTuple):
    """A row of `births`."""

    saga_id: SagaId
    accepted_at_ms: int
    scope: Scope
    key: str
    fingerprint: str
    definition_name: str
    definition_hash: str


class PrunedRow(NamedTuple):
    """A row of `ids` once the rest is gone."""

    number: int
    seq: int
    key_record: KeyRecord


COUNTERS_FIRST: Final = Counters(1, 1, (0,) * len(PHASES))


def seal(key: bytes, data: bytes) -> bytes:
    """Return `data` with a CRC over it and the key it goes under."""
    return data + _CRC.pack(crc32(data, crc32(key)))


def unseal(table: str, key: bytes, row: bytes) -> bytes:
    """Return the data of a row.

    Raises:
        RecordCorruptError: If it is not what was sealed under this key.
    """
    data = row[:-4]
    if len(row) < 4 or row[-4:] != _CRC.pack(crc32(data, crc32(key))):
        raise RecordCorruptError(_name(key), -1, f"a row of {table!r} is damaged")
    return data


def pack_state(key: bytes, state: State) -> bytes:
    """Return a row of `states`."""
    seq, place, changed, due_at_ms, code, chain, reason, step = state
    due = -1 if due_at_ms is None else due_at_ms
    words = reason.encode()
    head = _STATE.pack(seq, place, changed, due, code, chain, len(words))
    return seal(key, head + words + step.encode())


def unpack_state(key: bytes, row: bytes) -> State:
    """Return what a row of `states` says."""
    data = unseal(STATES, key, row)
    seq, place, changed, due, code, chain, length = _STATE.unpack_from(data)
    if code not in PHASES:
        raise NewerFormatError(_name(key), f"phase {code}", FORMAT_VERSION)
    reason = data[_STATE.size : _STATE.size + length].decode()
    step = data[_STATE.size + length :].decode()
    return State(seq, place, changed, None if due < 0 else due, code, chain, reason, step)


def pack_birth(key: bytes, saga_id: SagaId, accepted_at_ms: int, birth: Birth) -> bytes:
    """Return a row of `births`."""
    return seal(key, msgpack.packb((saga_id, accepted_at_ms, *birth)))


def unpack_birth(key: bytes, row: bytes) -> BirthRow:
    """Return what a row of `births` says."""
    return BirthRow(*msgpack.unpackb(unseal(BIRTHS, key, row)))


def pack_pruned(saga_id: bytes, number: int, state: State, fingerprint: str) -> bytes:
    """Return the row of `ids` that outlives its saga."""
    words = fingerprint.encode()
    head = _PRUNED.pack(number, state.seq, state.changed_at_ms, state.phase_code, len(words))
    return seal(saga_id, head + words + state.reason.encode())


def number_if_kept(saga_id: bytes, row: bytes) -> int | None:
    """Return the number in a row of `ids`, or None if the saga was pruned."""
    if len(row) == NUMBER.size + _CRC.size:
        return int(NUMBER.unpack(unseal(IDS, saga_id, row))[0])
    return None


def unpack_pruned(saga_id: bytes, row: bytes) -> PrunedRow:
    """Return what the row of `ids` of a pruned saga says."""
    data = unseal(IDS, saga_id, row)
    number, seq, changed_at_ms, code, length = _PRUNED.unpack_from(data)
    fingerprint = data[_PRUNED.size : _PRUNED.size + length].decode()
    reason = data[_PRUNED.size + length :].decode()
    record = KeyRecord(SagaId(saga_id.decode()), fingerprint, PHASES[code], reason, changed_at_ms)
    return PrunedRow(number, seq, record)


def pack_counters(counters: Counters) -> bytes:
    """Return the row under `COUNTERS`."""
    return seal(COUNTERS, _COUNTERS.pack(counters.number, counters.place, *counters.counts))


def unpack_counters(row: bytes | None) -> Counters:
    """Return what the row under `COUNTERS` says; it is missing in a new journal."""
    if row is None:
        return COUNTERS_FIRST
    number, place, *counts = _COUNTERS.unpack(unseal(META, COUNTERS, row))
    return Counters(number, place, tuple(counts))


def pack_epoch(scope: bytes, epoch: Epoch, owner: str, granted_at_ms: int) -> bytes:
    """Return a row of `epochs`."""
    return seal(scope, msgpack.packb((epoch, owner, granted_at_ms)))


def unpack_epoch(scope: bytes, row: bytes | None) -> tuple[Epoch, str, int]:
    """Return the epoch, its owner and when it was granted; 0 if there is no row."""
    if row is None:
        return Epoch(0), "", 0
    epoch, owner, granted_at_ms = msgpack.unpackb(unseal(EPOCHS, scope, row))
    return Epoch(epoch), owner, granted_at_ms


def pack_data(key: bytes, data: Any) -> bytes:
    """Return a row of plain data: a definition, or one of `meta`."""
    return seal(key, msgpack.packb(data))


def unpack_data(table: str, key: bytes, row: bytes) -> Any:
    """Return the plain data of a row."""
    return msgpack.unpackb(unseal(table, key, row))


def head_of(birth: BirthRow, state: State) -> Head:
    """Return a saga's head from its two rows."""
    return Head(
        saga_id=birth.saga_id,
        seq=state.seq,
        chain=state.chain,
        phase=PHASES[state.phase_code],
        accepted_at_ms=birth.accepted_at_ms,
        changed_at_ms=state.changed_at_ms,
        reason=state.reason,
        step=state.step,
        due_at_ms=state.due_at_ms,
        scope=birth.scope,
        fingerprint=birth.fingerprint,
        definition_name=birth.definition_name,
        definition_hash=birth.definition_hash,
    )


def _name(key: bytes) -> str:
    try:
        return key.decode("ascii")
    except UnicodeDecodeError:
        return key.hex()
