"""Everybody who knows a saga, or holds a call, comes to the same trace."""

from __future__ import annotations

import re

import pytest

from raysaga.actors.trace_ids import (
    attempt_span_of,
    saga_span_of,
    saga_traceparent,
    trace_id_of,
    traceparent_of,
)
from raysaga.statemachines.calls import ACTION, COMPENSATION, QUESTION, RELEASE, StepCall
from raysaga.statemachines.ids import Direction

UUID = "2b1f7d9e-0000-4000-8000-000000000001"


def a_call(verb: int, attempt: int = 1, saga_id: str = "order:1") -> StepCall:
    """Return a call of some saga."""
    return StepCall(7, verb, UUID, saga_id, "pay", "charge", {}, "s", 3, attempt, None, 1_000)


def test_a_call_names_its_attempt_in_the_trace_of_its_saga() -> None:
    for verb, direction in ((ACTION, Direction.ACTION), (COMPENSATION, Direction.COMPENSATION)):
        version, trace_id, span_id, flags = traceparent_of(a_call(verb, 2)).split("-")
        assert (version, flags) == ("00", "01")
        assert trace_id == trace_id_of(UUID, "order:1")
        assert span_id == attempt_span_of(UUID, "order:1", "pay", direction, 2)


@pytest.mark.parametrize("verb", [QUESTION, RELEASE])
def test_what_is_no_attempt_belongs_to_the_saga_as_a_whole(verb: int) -> None:
    assert traceparent_of(a_call(verb)) == saga_traceparent(UUID, "order:1")


def test_a_call_that_is_sent_again_by_a_new_owner_is_the_same_span() -> None:
    before = a_call(ACTION)
    assert traceparent_of(before) == traceparent_of(before._replace(epoch=4, call_id=1))


def test_no_two_attempts_and_no_two_folders_share_a_name() -> None:
    names = {saga_span_of(UUID, "order:1")}
    for direction in Direction:
        for attempt in range(1, 50):
            names.add(attempt_span_of(UUID, "order:1", "pay", direction, attempt))
    assert len(names) == 99
    assert trace_id_of(UUID, "order:1") != trace_id_of(UUID.replace("1", "2"), "order:1")


def test_a_trace_context_is_what_w3c_says() -> None:
    """Version, 16 bytes, 8 bytes, flags; lower-case hexadecimal, and neither id all zeros."""
    for number in range(200):
        context = traceparent_of(a_call(ACTION, saga_id=f"order:{number}"))
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", context)
        assert "-" + "0" * 16 + "-" not in context
