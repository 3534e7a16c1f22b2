"""Turns events into the bytes of a journal's records and back.

Guarantees: a record that decodes is the record that was encoded for that saga,
and follows the one it was tied to; what `encode_record` accepts, `decode_record`
gives back.
Refuses: a flipped bit, a record of another saga, a gap in the chain, a form that
is not an event's (`RecordCorruptError`); a newer format (`NewerFormatError`),
for to skip what one cannot read would be to guess; data that is not plain, too
large or too deep (`ValidationError`).
Costs: some microseconds a record; `tests/storage/fixtures` holds records of
every format version, which each later version must read.

A record is, big-endian:

    "RS" | version u8 | 0 u8 | seq u32 | epoch u64 | at_ms i64 | previous chain, 16 bytes
    msgpack [[tag, *fields], ...]
    CRC-32 u32 of the saga's id and all before

LMDB hands out a flipped bit without a word, hence the CRC. The chain is
BLAKE2b-128 (RFC 7693) of the saga's id and the record less its CRC; that holds
the previous chain, so the last chain vouches for the whole story.
"""

from __future__ import annotations

import struct
import types
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints
from zlib import crc32

import msgpack
import msgspec

from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.events import EVENT_TYPES, Event
from raysaga.statemachines.structure import pack_structures
from raysaga.storage.errors import NewerFormatError, RecordCorruptError
from raysaga.storage.journal import CHAIN_BYTES

FORMAT_VERSION = 1
"""Version of records and of the tables around them; a journal of a later one is refused."""

VALUE_DEPTH_MAX = 32
"""Deepest nesting of plain data; bounds the recursion of whoever walks it."""

ARRAY_LENGTH_MAX = 65_536
"""Longest array: msgpack makes room for as many as a header claims, before it reads them."""

RECORD_BYTES_MAX = 16 << 20
"""Largest record: a few of the largest values. Larger ones are refused before a batch."""

_MAGIC: Final = b"RS"
_HEADER: Final = struct.Struct(">2sBxIQq16s")
_CRC: Final = struct.Struct(">I")
_SCALARS: Final = frozenset({str, int, float, bool, type(None), bytes})


class DecodedRecord(NamedTuple):
    """What a record says; `chain` is what the next one must be tied to."""

    seq: int
    epoch: int
    at_ms: int
    chain: bytes
    events: tuple[Event, ...]


def encode_record(
    saga_id: str,
    seq: int,
    epoch: int,
    at_ms: int,
    previous_chain: bytes,
    events: Sequence[Event],
) -> tuple[bytes, bytes]:
    """Return a record and its chain.

    Raises:
        ValidationError: If a value in an event is not plain data, or the record is too large.
    """
    assert len(previous_chain) == CHAIN_BYTES
    for event in events:
        field = _VALUE_FIELD.get(type(event))
        if field is not None:
            flaw = _flaw(getattr(event, field), VALUE_DEPTH_MAX + 1)
            if flaw is not None:
                raise ValidationError(f"the data of {type(event).__name__} {flaw}")
    try:
        payload = pack_structures(events)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValidationError(f"cannot be kept: {error}") from error
    try:
        _prove(payload)
    except msgspec.ValidationError as error:
        # A host that gave a float for an instant would else write what nobody can read.
        raise AssertionError(f"cannot be read back: {error}") from error
    body = _HEADER.pack(_MAGIC, FORMAT_VERSION, seq, epoch, at_ms, previous_chain) + payload
    if len(body) > RECORD_BYTES_MAX:
        raise ValidationError(f"a record of {len(body)} bytes is over {RECORD_BYTES_MAX}")
    owner = saga_id.encode()
    return body + _CRC.pack(crc32(body, crc32(owner))), _chain(owner, body)


def decode_record(saga_id: str, record: bytes, previous_chain: bytes | None) -> DecodedRecord:
    """Return what a record says, checked against the chain before it unless that is None.

    Raises:
        RecordCorruptError: If a check fails.
        NewerFormatError: If the record is whole, but a later version wrote it.
    """
    seq = -1
    owner = saga_id.encode()
    if not _HEADER.size + _CRC.size < len(record) <= RECORD_BYTES_MAX + _CRC.size:
        raise RecordCorruptError(saga_id, seq, f"it is {len(record)} bytes long")
    body = record[: -_CRC.size]
    magic, version, seq, epoch, at_ms, previous = _HEADER.unpack_from(body)
    if magic != _MAGIC:
        raise RecordCorruptError(saga_id, -1, "it does not begin as a record")
    if crc32(body, crc32(owner)) != _CRC.unpack_from(record, len(body))[0]:
        raise RecordCorruptError(saga_id, seq, "its CRC is wrong")
    if version != FORMAT_VERSION:
        raise NewerFormatError(saga_id, version, FORMAT_VERSION)
    if previous_chain is not None and previous != previous_chain:
        raise RecordCorruptError(saga_id, seq, "it is not tied to the record before it")
    try:
        rows = msgpack.unpackb(
            body[_HEADER.size :], ext_hook=_refuse_extension, max_array_len=ARRAY_LENGTH_MAX
        )
        events = tuple([_event(row) for row in rows])
    except _UnknownFormError as error:
        raise NewerFormatError(saga_id, str(error), FORMAT_VERSION) from error
    except (TypeError, ValueError, RecursionError, MemoryError) as error:
        raise RecordCorruptError(saga_id, seq, f"it holds no events: {error}") from error
    return DecodedRecord(seq, epoch, at_ms, _chain(owner, body), events)


def chain_of(saga_id: str, record: bytes) -> bytes:
    """Return the chain of a record without looking into it."""
    return _chain(saga_id.encode(), record[: -_CRC.size])


def check_value(value: Any) -> None:
    """Assure that a record can hold `value`, which has come in a message and so fits into one.

    Plain data are None, bool, int, float, str, bytes, lists, and maps by str.

    Raises:
        ValidationError: If it is not plain, or nested too deeply.
    """
    flaw = _flaw(value, VALUE_DEPTH_MAX)
    if flaw is not None:
        raise ValidationError(f"the data {flaw}")


class _UnknownFormError(Exception):
    """A tag or a field that this version does not know."""


def _chain(owner: bytes, body: bytes) -> bytes:
    digest = blake2b(owner, digest_size=CHAIN_BYTES)
    digest.update(body)
    return digest.digest()


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code} is not plain data")


def _flaw(value: Any, depth: int) -> str | None:
    """Return why `value` is not plain data, or None if it is."""
    kind = type(value)
    if kind in _SCALARS:
        return None
    if depth == 0:
        return f"is nested deeper than {VALUE_DEPTH_MAX} levels"
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return f"has a key that is a {type(key).__name__}, not a str"
            if type(item) not in _SCALARS:
                flaw = _flaw(item, depth - 1)
                if flaw is not None:
                    return flaw
        return None
    # An ExtType is a tuple, too.
    if isinstance(value, (list, tuple)) and kind is not msgpack.ExtType:
        if len(value) > ARRAY_LENGTH_MAX:
            return f"has a list of {len(value)} items, over {ARRAY_LENGTH_MAX}"
        for item in value:
            if type(item) not in _SCALARS:
                flaw = _flaw(item, depth - 1)
                if flaw is not None:
                    return flaw
        return None
    # Enumerations of str and int are packed as what they are.
    return None if isinstance(value, (str, int, float)) else f"holds a {kind.__name__}"


class _Form(NamedTuple):
    """How to check and build one type of event."""

    make: type[Any]
    length_min: int
    length_max: int
    kinds: tuple[frozenset[type], ...]
    tuples: tuple[int, ...]


def _kinds(hint: Any) -> frozenset[type]:
    """Return what msgpack may give for a field with this annotation."""
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset[type]().union(*(_kinds(part) for part in get_args(hint)))
    origin = get_origin(hint) or hint
    return frozenset({{tuple: list, Mapping: dict}.get(origin, origin)})


def _form(cls: type[Any]) -> _Form:
    hints = get_type_hints(cls)
    fields: tuple[str, ...] = cls.__struct_fields__
    return _Form(
        make=cls,
        length_min=len(fields) - len(cls.__struct_defaults__),
        length_max=len(fields),
        kinds=tuple(_kinds(hints[field]) for field in fields),
        tuples=tuple(i for i, field in enumerate(fields) if get_origin(hints[field]) is tuple),
    )


_FORMS: Final = {tag: _form(cls) for tag, cls in EVENT_TYPES.items()}


def _value_fields() -> dict[type[Any], str]:
    """Return by type of event the field with data that is not ours."""
    found = {}
    for form in _FORMS.values():
        for field, kinds in zip(form.make.__struct_fields__, form.kinds, strict=True):
            if dict in kinds or field == "results":
                assert form.make not in found, "an event may hold one field of a participant's data"
                found[form.make] = field
    return found


_VALUE_FIELD: Final = _value_fields()


_prove: Final = msgspec.msgpack.Decoder(list[Event]).decode


def _event(row: Any) -> Event:
    if type(row) is not list or not row or type(row[0]) is not int:
        raise ValueError("an event is a list that begins with its tag")
    form = _FORMS.get(row[0])
    if form is None:
        raise _UnknownFormError(f"event {row[0]}")
    fields = row[1:]
    if len(fields) > form.length_max:
        raise _UnknownFormError(f"event {row[0]} with {len(fields)} fields")
    if len(fields) < form.length_min:
        raise ValueError(f"event {row[0]} with {len(fields)} fields")
    for position, (value, kinds) in enumerate(zip(fields, form.kinds, strict=False)):
        if type(value) not in kinds:
            raise ValueError(f"field {position} of event {row[0]} is a {type(value).__name__}")
    for position in form.tuples:
        if position < len(fields):
            fields[position] = tuple(fields[position])
    event: Event = form.make(*fields)
    return event
