"""A history becomes one span for the saga and one for each attempt, with links where it broke."""

from __future__ import annotations

from typing import Any

from raysaga.actors.trace_ids import attempt_span_of, saga_span_of
from raysaga.api.traces.spans import Linked, Span, spans_of
from raysaga.statemachines.ids import Direction

UUID, SAGA = "u", "order:1"
DO, UNDO = Direction.ACTION, Direction.COMPENSATION


def turn(event: str, at_ms: int, **facts: Any) -> dict[str, Any]:
    """Return a turning point as a timeline tells it."""
    return {"kind": "turn", "event": event, "at_ms": at_ms, **facts}


def attempt(
    step: str,
    number: int,
    at_ms: int,
    took_ms: int | None,
    answer: str = "succeeded",
    direction: Direction = DO,
    code: str = "",
) -> dict[str, Any]:
    """Return an attempt as a timeline tells it."""
    return {
        "kind": "attempt",
        "at_ms": at_ms,
        "step": step,
        "direction": direction,
        "participant": "bank",
        "operation": "charge",
        "attempt": number,
        "answer": answer,
        "took_ms": took_ms,
        "code": code,
        "message": "",
        "retry_at_ms": None,
    }


def span_id(step: str, number: int, direction: Direction = DO) -> str:
    """Return the id of an attempt's span."""
    return attempt_span_of(UUID, SAGA, step, direction, number)


def told(*rows: dict[str, Any]) -> dict[str, Span]:
    """Return the spans of a saga with this history, by id."""
    accepted = turn("accepted", 100, definition_name="order", key="1", fingerprint="f", scope="s")
    return {span.span_id: span for span in spans_of(UUID, SAGA, [accepted, *rows])}


def test_a_saga_that_went_well_is_a_span_with_its_attempts_below() -> None:
    spans = told(
        attempt("pay", 1, 110, 30, answer="failed", code="TIMEOUT"),
        attempt("pay", 2, 150, 40),
        turn("go_given", 190),
        turn("saga_completed", 200),
    )
    root = spans[saga_span_of(UUID, SAGA)]
    assert (root.name, root.began_at_ms, root.ended_at_ms) == ("order", 100, 200)
    assert (root.parent_id, root.error, root.attributes["saga.outcome"]) == ("", "", "completed")
    assert [moment.name for moment in root.moments] == ["go_given", "saga_completed"]
    first, second = spans[span_id("pay", 1)], spans[span_id("pay", 2)]
    assert {first.parent_id, second.parent_id} == {root.span_id}
    assert (first.began_at_ms, first.ended_at_ms, first.error) == (110, 140, "TIMEOUT")
    assert (second.ended_at_ms, second.error) == (190, "")
    # A retry by the same host is no break.
    assert second.links == ()
    assert len(spans) == 3


def test_an_undo_is_linked_to_what_it_undoes() -> None:
    spans = told(
        attempt("pay", 1, 110, 30),
        turn("compensation_started", 150, code="DECLINED", undo=["pay"], by=""),
        attempt("pay", 1, 150, 5, answer="undone", direction=UNDO),
        turn("saga_compensated", 160, remaining=[]),
    )
    assert spans[span_id("pay", 1, UNDO)].links == (Linked(span_id("pay", 1), "undoes"),)
    root = spans[saga_span_of(UUID, SAGA)]
    assert (root.attributes["saga.outcome"], root.error) == ("compensated", "DECLINED")
    assert root.moments[0].attributes["saga.undo"] == ("pay",)


def test_what_follows_a_restart_is_linked_to_the_attempt_that_it_cut_off() -> None:
    spans = told(
        attempt("pay", 1, 110, None, answer=""),
        turn("recovered", 500, epoch=2, recoveries=1, restored=False),
        attempt("pay", 2, 501, 10),
        attempt("ship", 1, 520, 10),
        turn("saga_completed", 540),
    )
    cut_off = spans[span_id("pay", 1)]
    assert (cut_off.ended_at_ms, cut_off.error) == (500, "no answer is recorded")
    assert spans[span_id("pay", 2)].links == (Linked(span_id("pay", 1), "restart"),)
    assert spans[span_id("ship", 1)].links == ()
    assert spans[saga_span_of(UUID, SAGA)].attributes["saga.restarts"] == 1


def test_a_saga_that_is_not_over_has_no_span_of_its_own_yet() -> None:
    spans = told(
        attempt("reserve", 1, 105, 5),
        attempt("pay", 1, 110, None, answer=""),
    )
    assert set(spans) == {span_id("reserve", 1)}


def test_a_parked_saga_tells_its_attempts_and_later_the_rest_under_the_same_ids() -> None:
    rows = (
        attempt("pay", 1, 110, 5, answer="failed", code="TIMEOUT"),
        turn("saga_parked", 120, code="STEP_STUCK", step="pay", net_effect=["pay"]),
    )
    later = (
        turn("saga_resumed", 900, by="ann", note="mended"),
        attempt("pay", 2, 900, 5),
        turn("saga_completed", 910),
    )
    before, after = told(*rows), told(*rows, *later)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2


def test_no_payload_and_no_fingerprint_is_in_a_span() -> None:
    spans = told(turn("saga_completed", 110, fingerprint="f", results={"pay": {"card": "x"}}))
    assert spans[saga_span_of(UUID, SAGA)].moments[0].attributes == {}


def test_clocks_that_went_back_give_no_span_that_ends_before_it_begins() -> None:
    spans = told(attempt("pay", 1, 110, -20), turn("saga_completed", 90))
    assert all(span.ended_at_ms >= span.began_at_ms for span in spans.values())
