"""Records come back as they were, or not at all; plain data keeps within its bounds."""

from __future__ import annotations

import datetime
import struct
import types
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints
from zlib import crc32

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.events import EVENT_TYPES, GoGiven, SagaCompleted, StepSucceeded
from raysaga.storage import codec
from raysaga.storage.codec import (
    ARRAY_LENGTH_MAX,
    FORMAT_VERSION,
    RECORD_BYTES_MAX,
    VALUE_DEPTH_MAX,
    chain_of,
    check_value,
    decode_record,
    encode_record,
)
from raysaga.storage.errors import NewerFormatError, RecordCorruptError
from raysaga.storage.journal import CHAIN_BYTES, CHAIN_START

from .every_event import AT_MS, EPOCH, EVENTS_V1, SAGA_ID, SEQ

FIXTURES = Path(__file__).with_name("fixtures")
PREVIOUS = bytes(range(16))

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)
mappings = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain, max_size=4)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of the type that an event's field is annotated with."""
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(part) for part in get_args(hint)])
    if origin is tuple:
        return st.lists(values_of(get_args(hint)[0]), max_size=4).map(tuple)
    if origin is Mapping:
        return mappings
    simple = {
        str: st.text(st.characters(exclude_categories=["Cs"])),
        int: st.integers(-(2**63), 2**64 - 1),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return simple[origin]


def events_of(cls: type[Any]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(cls)
    return st.builds(cls, *(values_of(hints[field]) for field in cls.__struct_fields__))


events = st.one_of([events_of(cls) for cls in EVENT_TYPES.values()])


def forge(payload: object, *, version: int = FORMAT_VERSION, magic: bytes = b"RS") -> bytes:
    """Return a record with a right CRC around anything."""
    body = struct.pack(">2sBxIQq16s", magic, version, SEQ, EPOCH, AT_MS, PREVIOUS)
    body += payload if isinstance(payload, bytes) else msgpack.packb(payload)
    return body + struct.pack(">I", crc32(body, crc32(SAGA_ID.encode())))


@given(
    st.lists(events, max_size=6),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(min_size=CHAIN_BYTES, max_size=CHAIN_BYTES),
)
def test_every_record_comes_back_as_it_was(
    told: list[Any], seq: int, epoch: int, at_ms: int, previous: bytes
) -> None:
    record, chain = encode_record(SAGA_ID, seq, epoch, at_ms, previous, told)
    decoded = decode_record(SAGA_ID, record, previous)
    assert decoded == (seq, epoch, at_ms, chain, tuple(told))
    assert [type(event) for event in decoded.events] == [type(event) for event in told]
    assert chain_of(SAGA_ID, record) == chain


def test_records_of_version_1_can_be_read_for_ever() -> None:
    """Method: the bytes were written once, by the first release; never write them again."""
    record = (FIXTURES / "record_v1.bin").read_bytes()
    decoded = decode_record(SAGA_ID, record, PREVIOUS)
    assert (decoded.seq, decoded.epoch, decoded.at_ms) == (SEQ, EPOCH, AT_MS)
    assert decoded.chain.hex() == "23c11d28aa4b1d5dbf3fac28a9ffdec5"
    assert len(decoded.events) == len(EVENTS_V1)
    for read, written in zip(decoded.events, EVENTS_V1, strict=True):
        assert type(read) is type(written)
        # A later version may have added fields, with defaults.
        assert read == written


def test_the_fixture_holds_every_event_of_its_version() -> None:
    assert {type(event) for event in EVENTS_V1} == set(EVENT_TYPES.values())


def test_every_flipped_bit_is_found() -> None:
    record, _ = encode_record(SAGA_ID, SEQ, EPOCH, AT_MS, PREVIOUS, EVENTS_V1[:3])
    for at in range(len(record)):
        for bit in range(8):
            flipped = bytearray(record)
            flipped[at] ^= 1 << bit
            with pytest.raises(RecordCorruptError):
                decode_record(SAGA_ID, bytes(flipped), PREVIOUS)


def test_every_cut_is_found() -> None:
    record, _ = encode_record(SAGA_ID, SEQ, EPOCH, AT_MS, PREVIOUS, EVENTS_V1[:3])
    for length in range(len(record)):
        with pytest.raises(RecordCorruptError):
            decode_record(SAGA_ID, record[:length], PREVIOUS)


@given(st.binary(max_size=300))
def test_random_bytes_are_corrupt_and_nothing_else(content: bytes) -> None:
    for record in (content, b"RS\x01\x00" + content):
        with pytest.raises(RecordCorruptError):
            decode_record(SAGA_ID, record, None)


@given(st.binary(max_size=200) | plain.map(msgpack.packb))
def test_a_right_crc_around_nonsense_is_refused_in_words(payload: bytes) -> None:
    record = forge(payload)
    try:
        decoded = decode_record(SAGA_ID, record, None)
    except (RecordCorruptError, NewerFormatError):
        return
    # Nonsense that happens to be a list of events; the empty one, mostly.
    assert all(type(event) in EVENT_TYPES.values() for event in decoded.events)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        {"no": "list"},
        [[]],
        ["text"],
        [[True, AT_MS]],
        [[8]],
        [[8, "text"]],
        [[8, 1.5]],
        [[9, AT_MS, "C", "m", 1, ["0"], 3]],
        [[1, "o", "h", "k", "f", "s", "no mapping", AT_MS, None]],
        msgpack.packb([[8, AT_MS]]) + b"\x00",
        msgpack.packb([[8, msgpack.ExtType(4, b"x")]]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 2_000,
    ],
    ids=repr,
)
def test_what_is_no_list_of_events_is_corrupt(payload: object) -> None:
    with pytest.raises(RecordCorruptError):
        decode_record(SAGA_ID, forge(payload), PREVIOUS)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        (forge([[8, AT_MS]], version=FORMAT_VERSION + 1), FORMAT_VERSION + 1),
        (forge([[99, AT_MS]]), "event 99"),
        (forge([[8, AT_MS, "new"]]), "event 8 with 2 fields"),
    ],
)
def test_what_a_later_version_wrote_is_called_newer_and_not_corrupt(
    record: bytes, found: object
) -> None:
    with pytest.raises(NewerFormatError) as caught:
        decode_record(SAGA_ID, record, PREVIOUS)
    assert caught.value.found == found


def test_a_record_of_another_beginning_is_corrupt() -> None:
    with pytest.raises(RecordCorruptError, match="does not begin as a record"):
        decode_record(SAGA_ID, forge([], magic=b"RX"), None)


def test_a_record_is_tied_to_its_saga_and_to_the_record_before_it() -> None:
    record, chain = encode_record(SAGA_ID, 0, 1, AT_MS, CHAIN_START, [GoGiven(AT_MS)])
    other, other_chain = encode_record("order:other", 0, 1, AT_MS, CHAIN_START, [GoGiven(AT_MS)])
    assert chain != other_chain
    with pytest.raises(RecordCorruptError, match="CRC"):
        decode_record(SAGA_ID, other, CHAIN_START)
    with pytest.raises(RecordCorruptError, match="not tied"):
        decode_record(SAGA_ID, record, chain)
    assert decode_record(SAGA_ID, record, None).chain == chain


def test_an_event_with_fewer_fields_takes_the_defaults_of_those_added_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Method: pretend that the last field of `SagaCompleted` came with a later version."""
    form = codec._FORMS[10]
    later = form._replace(make=lambda at_ms=5: SagaCompleted(at_ms), length_min=0)
    monkeypatch.setitem(codec._FORMS, 10, later)
    assert decode_record(SAGA_ID, forge([[10]]), PREVIOUS).events == (SagaCompleted(5),)


@pytest.mark.parametrize(
    "result",
    [
        {"key": object()},
        {"key": {1, 2}},
        {1: "key"},
        {"key": {b"bytes": 1}},
        {"key": datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)},
        {"key": msgpack.Timestamp(1)},
        {"key": msgpack.ExtType(1, b"")},
        {"key": 2**64},
        {"key": "\ud800"},
        {"key": [0] * (ARRAY_LENGTH_MAX + 1)},
    ],
    ids=lambda result: str(result)[:30],
)
def test_data_that_is_not_plain_is_refused_before_it_joins_a_batch(result: Any) -> None:
    with pytest.raises(ValidationError):
        encode_record(SAGA_ID, 0, 1, AT_MS, CHAIN_START, [StepSucceeded(0, 1, AT_MS, result)])


def test_a_field_of_the_wrong_type_is_a_bug_and_is_not_written() -> None:
    """What can be written must be readable; a host that gave a float would lose its sagas."""
    with pytest.raises(AssertionError, match="cannot be read back"):
        encode_record(SAGA_ID, 0, 1, AT_MS, CHAIN_START, [GoGiven(1.5)])  # type: ignore[arg-type]


def test_a_record_that_is_too_large_is_refused() -> None:
    result = {"text": "x" * RECORD_BYTES_MAX}
    with pytest.raises(ValidationError, match="over"):
        encode_record(SAGA_ID, 0, 1, AT_MS, CHAIN_START, [StepSucceeded(0, 1, AT_MS, result)])


def kept(value: Any) -> Any:
    """Return what becomes of a participant's result in a record."""
    event = StepSucceeded(0, 1, AT_MS, {"value": value})
    record, _ = encode_record(SAGA_ID, 0, 1, AT_MS, CHAIN_START, [event])
    (read,) = decode_record(SAGA_ID, record, CHAIN_START).events
    assert isinstance(read, StepSucceeded) and read.result is not None
    return read.result["value"]


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    assert kept(value) == value


class Colour(StrEnum):
    RED = "red"


def test_tuples_come_back_as_lists_and_enumerations_as_what_they_are() -> None:
    assert kept({"a": (1, (2,)), "b": Colour.RED}) == {"a": [1, [2]], "b": "red"}


def nested(depth: int, leaf: Any = 1) -> Any:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def test_plain_data_is_as_deep_as_allowed_and_no_deeper() -> None:
    check_value(nested(VALUE_DEPTH_MAX))
    assert kept(nested(VALUE_DEPTH_MAX)) == nested(VALUE_DEPTH_MAX)
    for too_deep in (nested(VALUE_DEPTH_MAX + 1), nested(VALUE_DEPTH_MAX, {}), nested(10_000)):
        with pytest.raises(ValidationError, match="nested deeper"):
            check_value(too_deep)
        with pytest.raises(ValidationError, match="nested deeper"):
            kept(too_deep)
