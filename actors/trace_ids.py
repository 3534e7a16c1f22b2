"""Names the trace of a saga and the span of each attempt, by hashes of what they are about.

Guarantees: whoever knows a saga, or holds a call, knows its trace, in every process, before
and after a crash, without being told; so nothing of it is stored or sent between hosts.
Refuses: nothing.
Costs: about two microseconds a name, and nothing until somebody asks for one.

A saga is one trace. It outlives requests, and several can submit it under one key, so a
request's own trace is linked to it and does not become it (W3C Trace Context, OpenTelemetry
"Links between spans").
"""

from __future__ import annotations

from hashlib import blake2b

from raysaga.statemachines.calls import ACTION, COMPENSATION, StepCall
from raysaga.statemachines.ids import Direction

TRACE_BYTES, SPAN_BYTES = 16, 8

_DIRECTIONS = {ACTION: Direction.ACTION, COMPENSATION: Direction.COMPENSATION}


def trace_id_of(journal_uuid: str, saga_id: str) -> str:
    """Return the id of a saga's trace, as 32 hexadecimal digits."""
    return _hashed(f"{journal_uuid}/{saga_id}", TRACE_BYTES)


def saga_span_of(journal_uuid: str, saga_id: str) -> str:
    """Return the id of the span that is the saga as a whole, as 16 hexadecimal digits."""
    return _hashed(f"{journal_uuid}/{saga_id}", SPAN_BYTES)


def attempt_span_of(
    journal_uuid: str, saga_id: str, step: str, direction: Direction, attempt: int
) -> str:
    """Return the id of the span of one attempt."""
    return _hashed(f"{journal_uuid}/{saga_id}/{step}/{direction.value}/{attempt}", SPAN_BYTES)


def traceparent_of(call: StepCall) -> str:
    """Return the W3C trace context of a call: its attempt, in the trace of its saga.

    A participant gives it to its own tracing as what its work belongs to. It says *sampled*:
    whether a trace is kept is the exporter's choice, by the trace id.
    """
    direction = _DIRECTIONS.get(call.verb)
    uuid, saga_id = call.journal_uuid, call.saga_id
    if direction is None:
        return saga_traceparent(uuid, saga_id)
    span_id = attempt_span_of(uuid, saga_id, call.step, direction, call.attempt)
    return f"00-{trace_id_of(uuid, saga_id)}-{span_id}-01"


def saga_traceparent(journal_uuid: str, saga_id: str) -> str:
    """Return the W3C trace context of a saga as a whole."""
    return f"00-{trace_id_of(journal_uuid, saga_id)}-{saga_span_of(journal_uuid, saga_id)}-01"


def _hashed(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()
