"""What structures are packed as, and what they refuse."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import msgpack
import pytest

from raysaga.statemachines.calls import ACTION, StepCall
from raysaga.statemachines.events import EVENT_TYPES, StepSucceeded
from raysaga.statemachines.structure import pack_structures


class Word(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Number(int):
    pass


class Fraction(float):
    pass


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


PLAIN = [None, True, 0, -1, 2**63, -(2**63), 1.5, "text", b"bytes", [1, [2]], {"a": {"b": []}}]


ODD = [Word("word"), Number(7), Fraction(0.5), Colour.RED, Size.LARGE, (1, 2)]


@pytest.mark.parametrize("value", [*PLAIN, *ODD], ids=repr)
def test_values_are_packed_as_msgpack_does(value: Any) -> None:
    event = StepSucceeded(1, 2, 3, {"value": value, "deeper": [{"value": value}]})
    assert pack_structures(event) == msgpack.packb((3, 1, 2, 3, event.result))


def test_a_call_is_packed_as_an_array_of_its_fields_in_order() -> None:
    fields = (7, ACTION, "uuid", "order:1", "pay", "charge", {"a": 1}, "scope", 3, 2, None, 100)
    call = StepCall(*fields)
    assert msgpack.unpackb(pack_structures(call)) == list(fields)
    assert StepCall._make(msgpack.unpackb(pack_structures(call))) == call


@pytest.mark.parametrize("fields", [(), range(11), range(13)], ids=len)
def test_too_few_or_too_many_fields_make_no_call(fields: Any) -> None:
    with pytest.raises(TypeError):
        StepCall._make(fields)


@pytest.mark.parametrize(
    ("value", "error"),
    [(object(), TypeError), (2**64, OverflowError), (1j, TypeError)],
    ids=["object", "too large", "complex"],
)
def test_what_is_no_plain_data_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pack_structures(StepSucceeded(1, 2, 3, {"value": value}))


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.__name__)
def test_an_event_cannot_be_changed(kind: type[Any]) -> None:
    event = kind(*([0] * len(kind.__struct_fields__)))
    with pytest.raises(AttributeError):
        event.at_ms = 1
