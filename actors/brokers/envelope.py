"""What travels through a broker: calls, replies, orders and outcomes, as documented data.

`docs/brokers/envelope.schema.json` says the same to programs that are not ours, and
a test holds the two together. A body is a map, in msgpack or JSON; the content type of
a message tells which.

Guarantees: what is read is of the types below and within bounds; what was written is read
back as it was.
Refuses: a version that this one does not know, a field that is missing or of another type
(`EnvelopeError`). Fields that are not known are passed over, so that later versions
can add some.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from raysaga.actors.brokers.errors import EnvelopeError
from raysaga.actors.trace_ids import saga_traceparent, traceparent_of
from raysaga.actors.wire import MESSAGE_BYTES_MAX, pack_message, unpack_messages
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    Outcome,
    StepCall,
    StepReply,
)
from raysaga.statemachines.errors import ValidationError

VERSION = 1
"""Of the envelope. A later one is refused, and goes where messages go that nobody can read."""

CALL, REPLY, ORDER, OUTCOME = "raysaga.call", "raysaga.reply", "raysaga.order", "raysaga.outcome"
"""Kinds of messages; the `type` of each, in the body and in the broker's properties."""

CONTENT_TYPES = {"msgpack": "application/msgpack", "json": "application/json"}

VERBS = {
    "action": ACTION,
    "compensation": COMPENSATION,
    "question": QUESTION,
    "release": RELEASE,
}

_VERB_NAMES = {number: name for name, number in VERBS.items()}
_OUTCOMES = {"succeeded": 1, "refused": 2, "unknown": 3}
_OUTCOME_NAMES = {number: name for name, number in _OUTCOMES.items()}
_WHOLE = (1 << 63) - 1


class Message(NamedTuple):
    """One message as a driver carries it.

    Attributes:
        body: See the head of this module.
        content_type: One of `CONTENT_TYPES`, of the body.
        type: Its kind.
        message_id: The same whenever the same message is sent again.
        group: What is to stay in order: the id of a saga. Kafka's key.
        correlation_id: The idempotency key that it is about.
        reply_to: Where an answer goes; empty for none.
        traceparent: W3C trace context.
    """

    body: bytes
    content_type: str
    type: str
    message_id: str
    group: str
    correlation_id: str = ""
    reply_to: str = ""
    traceparent: str = ""


class Order(NamedTuple):
    """A saga that somebody wants; `traceparent` is the context that it is wanted in."""

    definition: str
    key: str
    input: Mapping[str, Any]
    deadline_ms: int | None
    traceparent: str = ""


# -- writing -----------------------------------------------------------------


def call_message(call: StepCall, *, reply_to: str, body_format: str) -> Message:
    """Return the message that a call travels as.

    Raises:
        ValidationError: If the request cannot be written so, or is too large.
    """
    verb = _VERB_NAMES[call.verb]
    key = f"{call.journal_uuid}/{call.saga_id}/{call.step}/{verb}"
    message_id = f"{key}/{call.epoch}/{call.call_id}"
    trace = traceparent_of(call)
    fields = {
        "type": CALL,
        "version": VERSION,
        "call_id": call.call_id,
        "key": {"journal": call.journal_uuid, "saga_id": call.saga_id, "step": call.step},
        "verb": verb,
        "operation": call.operation,
        "request": call.request,
        "scope": call.scope,
        "epoch": call.epoch,
        "attempt": call.attempt,
        "expires_at_ms": call.expires_at_ms,
        "timeout_ms": call.timeout_ms,
        "reply_to": reply_to,
        "traceparent": trace,
    }
    return _message(fields, body_format, message_id, call.saga_id, key, reply_to, trace)


def reply_message(call: StepCall, reply: StepReply, *, to: Message) -> Message:
    """Return the message that the reply to `call` travels as, in the form that `to` came in.

    Raises:
        ValidationError: If the result cannot be written so, or is too large.
    """
    fields = {
        "type": REPLY,
        "version": VERSION,
        "call_id": reply.call_id,
        "key": {"journal": call.journal_uuid, "saga_id": reply.saga_id, "step": reply.step},
        "verb": _VERB_NAMES[reply.verb],
        "epoch": reply.epoch,
        "attempt": reply.attempt,
        "outcome": _OUTCOME_NAMES[reply.outcome],
        "result": reply.result,
        "code": reply.code,
        "message": reply.message,
        "stored": reply.stored,
        "retry_after_ms": reply.retry_after_ms,
        "duplicate": reply.duplicate,
        "traceparent": to.traceparent,
    }
    message_id = f"{to.message_id}/reply"
    return _message(
        fields,
        format_of(to),
        message_id,
        reply.saga_id,
        to.correlation_id,
        "",
        to.traceparent,
    )


def order_message(order: Order, *, body_format: str = "msgpack") -> Message:
    """Return the message that an order travels as.

    Raises:
        ValidationError: If its input cannot be written so, or is too large.
    """
    saga_id = f"{order.definition}:{order.key}"
    fields = {"type": ORDER, "version": VERSION, **order._asdict()}
    if not order.traceparent:
        del fields["traceparent"]
    return _message(fields, body_format, saga_id, saga_id, saga_id, "", order.traceparent)


def outcome_message(
    journal_uuid: str, seq: int, chain: bytes, outcome: Mapping[str, Any], *, body_format: str
) -> Message:
    """Return the message that tells an outcome; it is the same however often it is made.

    Args:
        journal_uuid: Of the journal that holds it.
        seq: Number of the saga's record that it is told in.
        chain: Hash of that record: after a restore, another one can have its number.
        outcome: As `outcome_of` gives it, with the definition and the time it was decided.
        body_format: How to write it.

    Raises:
        ValidationError: If the results cannot be written so, or are too large.
    """
    saga_id = outcome["saga_id"]
    message_id = f"{journal_uuid}/{saga_id}/{seq}/{chain[:4].hex()}"
    trace = saga_traceparent(journal_uuid, saga_id)
    fields = {
        "type": OUTCOME,
        "version": VERSION,
        "id": message_id,
        "seq": seq,
        **outcome,
        "traceparent": trace,
    }
    return _message(fields, body_format, message_id, saga_id, saga_id, "", trace)


def _message(
    fields: dict[str, Any],
    body_format: str,
    message_id: str,
    group: str,
    correlation_id: str,
    reply_to: str,
    trace: str,
) -> Message:
    content_type = CONTENT_TYPES[body_format]
    if body_format == "msgpack":
        body = pack_message(fields)
    else:
        try:
            text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            body = text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValidationError(f"the message cannot be sent as JSON: {error}") from error
        if len(body) > MESSAGE_BYTES_MAX:
            raise ValidationError(f"the message is {len(body)} bytes, over {MESSAGE_BYTES_MAX}")
    return Message(
        body, content_type, fields["type"], message_id, group, correlation_id, reply_to, trace
    )


# -- reading -----------------------------------------------------------------


def read_call(message: Message) -> StepCall:
    """Return the call that a message is.

    Raises:
        EnvelopeError: If it is none.
    """
    fields = _fields(message, CALL)
    key = _map(fields, "key")
    verb = VERBS.get(_text(fields, "verb"))
    if verb is None:
        raise EnvelopeError("MALFORMED", f"verb must be one of {', '.join(VERBS)}")
    return StepCall(
        _number(fields, "call_id"),
        verb,
        _text(key, "journal"),
        _text(key, "saga_id"),
        _text(key, "step"),
        _text(fields, "operation"),
        _map(fields, "request"),
        _text(fields, "scope"),
        _number(fields, "epoch"),
        _number(fields, "attempt"),
        _number(fields, "expires_at_ms") if fields.get("expires_at_ms") is not None else None,
        _number(fields, "timeout_ms"),
    )


def read_reply(message: Message) -> StepReply:
    """Return the reply that a message is; whether it is ours to hear is for the host to tell.

    Raises:
        EnvelopeError: If it is none.
    """
    fields = _fields(message, REPLY)
    key = _map(fields, "key")
    verb, outcome = _text(fields, "verb"), _text(fields, "outcome")
    if verb not in VERBS or outcome not in _OUTCOMES:
        raise EnvelopeError("MALFORMED", "verb or outcome is none that is known")
    stored, duplicate = fields.get("stored", False), fields.get("duplicate", False)
    if type(stored) is not bool or type(duplicate) is not bool:
        raise EnvelopeError("MALFORMED", "stored and duplicate must be true or false")
    return StepReply(
        _number(fields, "call_id"),
        VERBS[verb],
        _text(key, "saga_id"),
        _text(key, "step"),
        _number(fields, "epoch"),
        _number(fields, "attempt"),
        int(Outcome(_OUTCOMES[outcome])),
        _map(fields, "result") if fields.get("result") is not None else None,
        _text(fields, "code") if "code" in fields else "",
        _text(fields, "message") if "message" in fields else "",
        stored,
        _number(fields, "retry_after_ms") if "retry_after_ms" in fields else 0,
        duplicate,
    )


def read_order(message: Message) -> Order:
    """Return the order that a message is.

    Raises:
        EnvelopeError: If it is none.
    """
    fields = _fields(message, ORDER)
    deadline = fields.get("deadline_ms")
    return Order(
        _text(fields, "definition"),
        _text(fields, "key"),
        _map(fields, "input"),
        None if deadline is None else _number(fields, "deadline_ms"),
        message.traceparent or (_text(fields, "traceparent") if "traceparent" in fields else ""),
    )


def format_of(message: Message) -> str:
    """Return how the body of a message is written.

    Raises:
        EnvelopeError: If its content type is none of ours.
    """
    for name, content_type in CONTENT_TYPES.items():
        if message.content_type.partition(";")[0].strip().lower() == content_type:
            return name
    raise EnvelopeError("UNDECODABLE", "its content type is neither msgpack nor JSON")


def _fields(message: Message, kind: str) -> dict[str, Any]:
    """Return the map in a message's body, once it is known to be of this kind and version."""
    if len(message.body) > MESSAGE_BYTES_MAX:
        raise EnvelopeError(
            "OVERSIZED", f"it has {len(message.body)} bytes, over {MESSAGE_BYTES_MAX}"
        )
    fields: Any
    try:
        if format_of(message) == "json":
            fields = json.loads(message.body, parse_constant=_refuse_constant)
            # What msgpack cannot carry, such as half a surrogate pair, no ledger can keep.
            pack_message(fields)
        else:
            (fields,) = unpack_messages(message.body)
    except (ValidationError, ValueError, RecursionError):
        # The cause may quote the body, which is not for logs.
        raise EnvelopeError("UNDECODABLE", "its body cannot be read") from None
    if not isinstance(fields, dict) or fields.get("type") != kind:
        raise EnvelopeError("MALFORMED", f"it is no {kind}")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        raise EnvelopeError("MALFORMED", "it has no version")
    if version > VERSION:
        raise EnvelopeError("UNKNOWN_VERSION", f"its version is {version}, over {VERSION}")
    return fields


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if type(value) is not str or len(value) > 4_096:
        raise EnvelopeError("MALFORMED", f"{name} must be text of at most 4096 characters")
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _WHOLE:
        raise EnvelopeError("MALFORMED", f"{name} must be a whole number, not negative")
    return value


def _map(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    if type(value) is not dict:
        raise EnvelopeError("MALFORMED", f"{name} must be a map")
    return value
