"""The envelope is what its schema says, and nothing that breaks it gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysaga.actors.brokers.address import BrokerAddress, parse_address, without_password
from raysaga.actors.brokers.envelope import (
    CONTENT_TYPES,
    Message,
    Order,
    call_message,
    order_message,
    read_call,
    read_order,
    read_reply,
    reply_message,
)
from raysaga.actors.brokers.errors import BrokerAddressError, EnvelopeError
from raysaga.statemachines.calls import Outcome, StepCall, StepReply, reply_to
from raysaga.statemachines.errors import ValidationError

DOCS = Path(__file__).parents[3] / "docs" / "brokers"
FORMATS = sorted(CONTENT_TYPES)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
maps = st.dictionaries(st.text(max_size=8), plain, max_size=4)
words = st.text("abcXYZ019._:-", min_size=1, max_size=12)
numbers = st.integers(0, 2**53)
calls = st.builds(
    StepCall, numbers, st.integers(0, 3), words, words, words, words, maps, words, numbers,
    numbers, st.none() | numbers, numbers,
)  # fmt: skip


def body_of(message: Message) -> Any:
    if message.content_type == CONTENT_TYPES["json"]:
        return json.loads(message.body)
    return msgpack.unpackb(message.body)


def check_against_schema(message: Message) -> None:
    schema = json.loads((DOCS / "envelope.schema.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(body_of(message))


@settings(max_examples=60, deadline=None)
@given(call=calls, body_format=st.sampled_from(FORMATS))
def test_a_call_arrives_as_it_was_sent_and_as_the_schema_says(
    call: StepCall, body_format: str
) -> None:
    message = call_message(call, reply_to="back", body_format=body_format)
    check_against_schema(message)
    assert read_call(message) == call


@settings(max_examples=60, deadline=None)
@given(call=calls, result=st.none() | maps, outcome=st.sampled_from(Outcome), stored=st.booleans())
def test_a_reply_arrives_as_it_was_sent_and_as_the_schema_says(
    call: StepCall, result: Any, outcome: Outcome, stored: bool
) -> None:
    asked = call_message(call, reply_to="back", body_format="json")
    reply = reply_to(call, outcome, result=result, code="C", message="m", stored=stored)
    message = reply_message(call, reply, to=asked)
    check_against_schema(message)
    assert read_reply(message) == reply
    assert isinstance(reply, StepReply)
    assert message.traceparent == asked.traceparent


@pytest.mark.parametrize("trace", ["", f"00-{'a' * 32}-{'b' * 16}-01"])
@pytest.mark.parametrize("body_format", FORMATS)
def test_an_order_arrives_as_it_was_sent_and_as_the_schema_says(
    body_format: str, trace: str
) -> None:
    """With the trace context that it is wanted in, in its header or in its body alone."""
    order = Order("order", "o-1", {"order_id": "o-1", "amount": 3}, None, trace)
    message = order_message(order, body_format=body_format)
    check_against_schema(message)
    assert read_order(message) == order
    assert read_order(message._replace(traceparent="")) == order


def test_each_attempt_has_its_own_message_and_all_have_one_trace() -> None:
    call = StepCall(1, 0, "j", "order:1", "pay", "charge", {}, "j/shard-0", 1, 1, None, 5)
    first = call_message(call, reply_to="", body_format="json")
    again = call_message(call._replace(call_id=2, attempt=2), reply_to="", body_format="json")
    assert first.message_id != again.message_id
    assert first.correlation_id == again.correlation_id == "j/order:1/pay/action"
    assert first.traceparent.split("-")[1] == again.traceparent.split("-")[1]


CALL: dict[str, Any] = body_of(
    call_message(
        StepCall(1, 0, "j", "order:1", "pay", "charge", {}, "j/shard-0", 1, 1, None, 5),
        reply_to="",
        body_format="json",
    )
)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "raysaga.reply"},
        {"version": None},
        {"version": True},
        {"key": "j/order:1/pay"},
        {"key": {"journal": "j", "saga_id": 7, "step": "pay"}},
        {"verb": "perform"},
        {"request": []},
        {"epoch": -1},
        {"epoch": 1.0},
        {"epoch": 2**63},
        {"attempt": "1"},
        {"operation": "x" * 5_000},
        {"expires_at_ms": "later"},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused(change: dict[str, Any]) -> None:
    body = json.dumps(CALL | change).encode()
    with pytest.raises(EnvelopeError) as caught:
        read_call(Message(body, CONTENT_TYPES["json"], "raysaga.call", "", ""))
    assert caught.value.reason == "MALFORMED"


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200), body_format=st.sampled_from(FORMATS))
def test_no_bytes_at_all_raise_anything_but_a_refusal(body: bytes, body_format: str) -> None:
    with pytest.raises(EnvelopeError):
        read_call(Message(body, CONTENT_TYPES[body_format], "", "", ""))


def test_what_no_ledger_could_keep_is_refused() -> None:
    half = json.dumps(CALL).replace("order:1", "\\ud800").encode()
    deep = b"[" * 100_000
    for body in (half, deep, b'{"type": NaN}'):
        with pytest.raises(EnvelopeError, match="UNDECODABLE"):
            read_call(Message(body, CONTENT_TYPES["json"], "", "", ""))


def test_a_field_that_is_not_known_is_passed_over() -> None:
    body = json.dumps(CALL | {"colour": "green"}).encode()
    assert read_call(Message(body, CONTENT_TYPES["json"], "", "", "")).operation == "charge"


def test_what_json_cannot_carry_is_told_before_it_is_sent() -> None:
    with pytest.raises(ValidationError):
        order_message(Order("order", "o-1", {"blob": b"\x00"}, None), body_format="json")


def test_the_asyncapi_document_names_what_the_schema_has_and_nothing_else() -> None:
    document = json.loads((DOCS / "asyncapi.json").read_bytes())
    schema = json.loads((DOCS / "envelope.schema.json").read_bytes())
    named = set()
    for message in document["components"]["messages"].values():
        name = message["payload"]["schema"]["$ref"].rpartition("/")[2]
        assert schema["$defs"][name]["properties"]["type"]["const"] == message["name"]
        named.add(f"#/$defs/{name}")
    assert named == {one["$ref"] for one in schema["oneOf"]}
    carried = [c["messages"] for c in document["channels"].values()]
    assert {name for messages in carried for name in messages} == {
        ref.rpartition("/")[2] for ref in named
    }


def test_an_address_is_taken_apart_and_never_shows_its_password() -> None:
    text = "amqps://ann:s%40crt@mq.example:5671/shop?queue=stock&format=json&cafile=ca.pem"
    address = parse_address(text)
    assert address == BrokerAddress(
        url="amqps://ann:s%40crt@mq.example:5671/shop",
        shown="amqps://ann:***@mq.example:5671/shop",
        scheme="amqps",
        queue="stock",
        format="json",
        cafile="ca.pem",
    )
    for shown in (str(address), repr(address), without_password(text)):
        assert "s%40crt" not in shown
    assert without_password("module:function") == "module:function"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://host/",
        "amqp:///x",
        "kafka:///x",
        "amqp://host:port/",
        "amqp://h/?color=red",
        "amqp://[::1/",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BrokerAddressError):
        parse_address(text)
