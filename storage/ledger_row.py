"""One row of a participant's ledger, one line of its effect log, and their form on disk.

Guarantees: a row that decodes is the row that was encoded under that key; the
CRC covers the key as well, so that a row cannot answer for another step.
Refuses: bytes of an unknown version or with a bad CRC (`RecordCorruptError`),
and parts of a key that hold a slash, since a slash separates them on disk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

import msgpack
import msgspec
from msgspec.structs import astuple

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.ids import StepKey
from raysaga.statemachines.structure import Structure
from raysaga.storage.errors import RecordCorruptError

KEY_BYTES_MAX = 500
"""LMDB takes keys of up to 511 bytes; the rest is for what indexes put in front."""

VERSION = 1
"""Version of both forms; a reader must know every one that was ever written."""

# Version and CRC, before the msgpack body.
_HEAD = struct.Struct(">BI")
_EPOCH = struct.Struct(">QQ")
SEQ = struct.Struct(">Q")
"""Sequence numbers and instants as keys: big-endian, so that they sort."""

# Never reuse a number.
_STATUS_CODES = {
    LedgerStatus.PENDING: 1,
    LedgerStatus.APPLIED: 2,
    LedgerStatus.REFUSED: 3,
    LedgerStatus.TOMBSTONE: 4,
    LedgerStatus.UNDONE: 5,
    LedgerStatus.UNKNOWN: 6,
}
_STATUSES = {code: status for status, code in _STATUS_CODES.items()}


class LedgerRow(Structure, frozen=True):
    """What a participant remembers of one step.

    Attributes:
        key: Whose row it is.
        status: Where the step stands here.
        operation: The action's name; of a tombstone, the compensation's.
        fingerprint: Hash of the request; every later call must carry the same.
        scope: Scope of the call that made the row.
        epoch: Epoch of the call that last changed the row.
        created_at_ms: When the row was made, Unix time.
        changed_at_ms: When its status last changed.
        expires_at_ms: Largest expiry of any action seen; 0 if none was seen.
        answer: The action's stored answer.
        refusal_code: Code of the stored refusal; else empty.
        refusal_message: Its sentence.
        undo_answer: The stored answer of the undo.
        released_at_ms: When the saga's end was told and settled; 0 before.
        submitted_at_ms: When the action last went to an outside provider; 0 if never.
        undo_submitted_at_ms: The same for the undo.
        request: The step's request, kept only while a provider's answer is not final.
    """

    key: StepKey
    status: LedgerStatus
    operation: str
    fingerprint: bytes
    scope: str
    epoch: int
    created_at_ms: int
    changed_at_ms: int
    expires_at_ms: int = 0
    answer: Mapping[str, Any] | None = None
    refusal_code: str = ""
    refusal_message: str = ""
    undo_answer: Mapping[str, Any] | None = None
    released_at_ms: int = 0
    submitted_at_ms: int = 0
    undo_submitted_at_ms: int = 0
    request: Mapping[str, Any] | None = None

    @property
    def is_released(self) -> bool:
        """Whether the saga is over and the row was settled."""
        return self.released_at_ms > 0


class EffectKind(StrEnum):
    """What a line of the effect log tells."""

    ACTION = "action"
    COMPENSATION = "compensation"
    TOMBSTONE = "tombstone"
    REFUSED = "refused"


class EffectEntry(Structure, frozen=True):
    """One line of the append-only effect log: what an auditor believes.

    Attributes:
        seq: Position, from 0, without gaps until the log is pruned.
        key: The step.
        kind: What happened.
        operation: The operation's name, as the call carried it.
        epoch: Epoch of the call.
        at_ms: Instant of the transaction, Unix time.
        summary: The answer, or what the operation's `summary` made of it; the code of a refusal.
    """

    seq: int
    key: StepKey
    kind: EffectKind
    operation: str
    epoch: int
    at_ms: int
    summary: Any


def raw_key(journal_uuid: str, saga_id: str, step: str) -> bytes | None:
    """Return the key of a row on disk, or None if the parts cannot make one."""
    text = f"{journal_uuid}/{saga_id}/{step}"
    raw = text.encode()
    return raw if text.count("/") == 2 and len(raw) <= KEY_BYTES_MAX else None


def step_key(raw: bytes) -> StepKey:
    """Return the parts of a row's key."""
    journal_uuid, saga_id, step = raw.decode().split("/")
    return StepKey(journal_uuid, saga_id, step)


def fingerprint_of(request: Mapping[str, Any]) -> bytes:
    """Return a hash of `request` that does not depend on the order of its fields.

    Raises:
        TypeError: If the request holds what msgpack cannot.
    """
    return blake2b(_sorted(request), digest_size=12).digest()


_sorted: Final = msgspec.msgpack.Encoder(order="sorted").encode
_pack: Final = msgpack.Packer(autoreset=True).pack


def earlier_fingerprint_of(request: Mapping[str, Any]) -> bytes:
    """Return the hash that rows have which were written by the first builds.

    Raises:
        TypeError: If the request holds what msgpack cannot.
    """
    return blake2b(msgpack.packb(_ordered(request)), digest_size=12).digest()


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return [[key, _ordered(value[key])] for key in sorted(value)]
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    return value


def encode_row(raw: bytes, row: LedgerRow) -> bytes:
    """Return the bytes to keep under `raw`.

    Raises:
        TypeError: If an answer holds what msgpack cannot; like the next two, before
            anything is written.
        OverflowError: If it holds an integer beyond 64 bits.
        ValueError: If it is nested too deeply.
    """
    # The key is what it lies under, and the status has a number.
    body: bytes = _pack((_STATUS_CODES[row.status], *astuple(row)[2:]))
    return _HEAD.pack(VERSION, zlib.crc32(body, zlib.crc32(raw))) + body


def decode_row(raw: bytes, data: bytes) -> LedgerRow:
    """Return the row kept under `raw`.

    Raises:
        RecordCorruptError: If it is not what was written.
    """
    fields = _body(raw, data)
    return LedgerRow(step_key(raw), _STATUSES[fields[0]], *fields[1:])


def encode_effect(seq: int, raw: bytes, rest: tuple[str, str, int, int, Any]) -> bytes:
    """Return a line of the log; `rest` is kind, operation, epoch, instant, summary."""
    body: bytes = _pack((raw, *rest))
    return _HEAD.pack(VERSION, zlib.crc32(body, zlib.crc32(SEQ.pack(seq)))) + body


def decode_effect(raw_seq: bytes, data: bytes) -> EffectEntry:
    """Return a line of the log.

    Raises:
        RecordCorruptError: If it is not what was written.
    """
    raw, kind, *rest = _body(raw_seq, data)
    return EffectEntry(SEQ.unpack(raw_seq)[0], step_key(raw), EffectKind(kind), *rest)


def encode_epoch(scope: bytes, epoch: int, at_ms: int) -> bytes:
    """Return the bytes that remember the highest epoch of a scope, and since when."""
    body = _EPOCH.pack(epoch, at_ms)
    return _HEAD.pack(VERSION, zlib.crc32(body, zlib.crc32(scope))) + body


def decode_epoch(scope: bytes, data: bytes) -> tuple[int, int]:
    """Return the highest epoch of a scope, and when it was first seen.

    Raises:
        RecordCorruptError: If it is not what was written.
    """
    epoch, at_ms = _EPOCH.unpack(_checked(scope, data))
    return epoch, at_ms


def _body(raw: bytes, data: bytes) -> Any:
    return msgpack.unpackb(_checked(raw, data), strict_map_key=False)


def _checked(raw: bytes, data: bytes) -> bytes:
    if len(data) < _HEAD.size:
        raise RecordCorruptError(_name(raw), -1, "shorter than its head")
    version, crc = _HEAD.unpack_from(data)
    if version != VERSION:
        raise RecordCorruptError(_name(raw), -1, f"version {version} is unknown")
    body = data[_HEAD.size :]
    if zlib.crc32(body, zlib.crc32(raw)) != crc:
        raise RecordCorruptError(_name(raw), -1, "CRC")
    return body


def _name(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
