"""Turns a saga's history into spans: one for the saga, one for each attempt.

Guarantees: the same history gives the same spans with the same ids, so that sending them
again changes nothing where ids count. An attempt after a restart, and the undo of what was
done, are linked to the attempt they follow. No request or result is in a span.
Refuses nothing: a history that is not over gives the attempts that are, and no span of the
saga, which has no end yet.
Costs: one pass over the rows of a timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from raysaga.actors.trace_ids import attempt_span_of, saga_span_of
from raysaga.statemachines.ids import Direction

Attributes = Mapping[str, str | int | bool | tuple[str, ...]]

ENDS = {"saga_completed": "completed", "saga_compensated": "compensated"}

_UNTOLD = frozenset({"kind", "event", "at_ms", "scope", "fingerprint"})
"""Facts of a turning point that say nothing in a trace."""

_GOOD = frozenset({"succeeded", "undone"})


class Moment(NamedTuple):
    """Something that happened to the saga as a whole."""

    name: str
    at_ms: int
    attributes: Attributes


class Linked(NamedTuple):
    """Another span of the same trace, and why it is named: `restart` or `undoes`."""

    span_id: str
    why: str


class Span(NamedTuple):
    """One span of a saga's trace.

    Attributes:
        name: What people read first: a step's operation, or the definition.
        span_id: 16 hexadecimal digits.
        parent_id: The same of its parent; empty for the saga itself.
        began_at_ms: Unix time.
        ended_at_ms: Unix time.
        attributes: Facts.
        moments: Turning points; of the saga itself only.
        links: Attempts that this one follows.
        error: Why it did not succeed; empty if it did.
    """

    name: str
    span_id: str
    parent_id: str
    began_at_ms: int
    ended_at_ms: int
    attributes: Attributes
    moments: tuple[Moment, ...] = ()
    links: tuple[Linked, ...] = ()
    error: str = ""


def spans_of(journal_uuid: str, saga_id: str, rows: Iterable[Mapping[str, Any]]) -> list[Span]:
    """Return the spans of one saga, the saga's own last if it has ended.

    Args:
        journal_uuid: Of the data folder.
        saga_id: The saga.
        rows: Its timeline, as `Archive.timeline` gives it.
    """
    told = list(rows)
    names = (journal_uuid, saga_id)
    spans: list[Span] = []
    last: dict[str, tuple[Linked, int]] = {}
    done: dict[str, str] = {}
    restart_count = 0
    for place, row in enumerate(told):
        if row["kind"] == "turn":
            restart_count += row["event"] == "recovered"
            continue
        step, undo = row["step"], row["direction"] == Direction.COMPENSATION
        span_id = attempt_span_of(*names, step, Direction(row["direction"]), row["attempt"])
        links = []
        before = last.get(step)
        if before is not None and before[1] < restart_count:
            links.append(before[0])
        if undo and step in done:
            links.append(Linked(done[step], "undoes"))
        last[step] = Linked(span_id, "restart"), restart_count
        if not undo:
            done[step] = span_id
        ended_at_ms = _end_of(row, told[place + 1 :])
        if ended_at_ms is not None:
            spans.append(_attempt(names, span_id, row, ended_at_ms, tuple(links)))
    whole = _saga(names, told)
    return spans if whole is None else [*spans, whole]


def _end_of(row: Mapping[str, Any], later: list[Mapping[str, Any]]) -> int | None:
    """Return when an attempt was over; None if it is not.

    One without an answer was over, as far as anybody knows, when its host was replaced, its
    step was called again, or the saga came to rest.
    """
    if row["took_ms"] is not None:
        return int(row["at_ms"]) + int(row["took_ms"])
    if row["answer"]:
        return int(row["at_ms"])
    for other in later:
        if other.get("event") in ("recovered", "saga_parked", *ENDS):
            return int(other["at_ms"])
        if other["kind"] == "attempt" and other["step"] == row["step"]:
            return int(other["at_ms"])
    return None


def _attempt(
    names: tuple[str, str],
    span_id: str,
    row: Mapping[str, Any],
    ended_at_ms: int,
    links: tuple[Linked, ...],
) -> Span:
    attributes: dict[str, str | int | bool | tuple[str, ...]] = {
        "saga.id": names[1],
        "saga.step": row["step"],
        "saga.direction": str(row["direction"].value),
        "saga.attempt": row["attempt"],
        "saga.answer": row["answer"] or "none",
        "peer.service": row["participant"],
    }
    if row["code"]:
        attributes["saga.code"] = row["code"]
    error = "" if row["answer"] in _GOOD else row["code"] or "no answer is recorded"
    return Span(
        f"{row['step']} {row['operation']}",
        span_id,
        saga_span_of(*names),
        row["at_ms"],
        max(ended_at_ms, row["at_ms"]),
        attributes,
        (),
        links,
        error,
    )


def _saga(names: tuple[str, str], rows: list[Mapping[str, Any]]) -> Span | None:
    """Return the span of the saga as a whole, None if it has not ended."""
    turns = [row for row in rows if row["kind"] == "turn"]
    if not turns or turns[-1]["event"] not in ENDS:
        return None
    first, last = turns[0], turns[-1]
    outcome = ENDS[last["event"]]
    reason = next((row["code"] for row in turns if row["event"] == "compensation_started"), "")
    attributes: dict[str, str | int | bool | tuple[str, ...]] = {
        "saga.id": names[1],
        "saga.definition": first["definition_name"],
        "saga.outcome": outcome,
        "saga.restarts": sum(row["event"] == "recovered" for row in turns),
    }
    if reason:
        attributes["saga.reason"] = reason
    if last.get("remaining"):
        attributes["saga.remaining"] = tuple(last["remaining"])
    return Span(
        first["definition_name"],
        saga_span_of(*names),
        "",
        first["at_ms"],
        max(last["at_ms"], first["at_ms"]),
        attributes,
        tuple(_moment(row) for row in turns[1:]),
        (),
        reason if outcome == "compensated" else "",
    )


def _moment(row: Mapping[str, Any]) -> Moment:
    facts: dict[str, str | int | bool | tuple[str, ...]] = {}
    for name, value in row.items():
        if name in _UNTOLD or value in (None, "", [], ()):
            continue
        if isinstance(value, str | int | bool):
            facts[f"saga.{name}"] = value
        elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            facts[f"saga.{name}"] = tuple(value)
    return Moment(row["event"], row["at_ms"], facts)
