"""Counts what a run has reached: a run that never got into trouble proves nothing.

The idea is Antithesis's *sometimes assertions*: each of these must have happened
at least once in a run that is long enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from raysaga.simulation.history import (
    EFFECT_TOMBSTONE,
    EFFECT_UNDO,
    Effect,
    Granted,
    Observation,
    Replied,
    Sent,
    Told,
    Trouble,
)
from raysaga.statemachines.calls import ACTION, COMPENSATION, Code, Outcome

SEEDS_MIN = 1_000
"""Histories from which on each of them must have happened."""

SOMETIMES: tuple[str, ...] = (
    "a tombstone refused a late action",
    "an undone step refused a late action",
    "an undo came before its action",
    "a duplicate was answered from the ledger",
    "an action came after its expiry",
    "a participant was overloaded",
    "a participant had no room",
    "a participant's disk failed",
    "a participant fenced an earlier owner",
    "an earlier participant woke and stopped",
    "a commit failed with an unknown outcome",
    "a journal had no room for a saga",
    "a host died of a full journal at its start",
    "a host died before a commit",
    "a host died after a commit",
    "a host died while it sent",
    "a zombie was fenced by the journal",
    "a takeover sent a call again",
    "a call was lost",
    "a call was held until later",
    "a reply was held until later",
    "an exchange was lost",
    "an exchange was lost on its way back",
    "an exchange was slow",
    "a wire was cut",
    "a clock jumped",
    "a lost reply was resolved by asking again",
    "a compensation was retried",
    "a compensation was refused",
    "a dedicated saga was taken over",
    "a saga was refused and undone",
    "a saga ran into its deadline",
    "a saga was cancelled",
    "a cancel came too late",
    "a key was in use for another request",
    "a shard was overloaded",
    "a saga was parked facing backward",
    "a saga was parked facing forward",
    "a parked saga was sent on",
    "a saga was parked as poison",
    "a saga completed",
    "a saga was compensated",
    "a pruned saga was read",
    "a relaxed saga was lost in a crash",
)
"""What must have happened, in words."""

_CODES = {
    Code.EXPIRED: "an action came after its expiry",
    Code.OVERLOADED: "a participant was overloaded",
    Code.STORAGE_FULL: "a participant had no room",
    Code.FENCED: "a participant fenced an earlier owner",
    "CANNOT_UNDO": "a compensation was refused",
}

_STRUCK = {
    "call_lost": "a call was lost",
    "call_held": "a call was held until later",
    "reply_held": "a reply was held until later",
    "request_lost": "an exchange was lost",
    "answer_lost": "an exchange was lost on its way back",
    "exchange_slow": "an exchange was slow",
    "commit_kept": "a commit failed with an unknown outcome",
    "commit_lost": "a commit failed with an unknown outcome",
    "crash_before_commit": "a host died before a commit",
    "crash_after_commit": "a host died after a commit",
    "crash_at_send": "a host died while it sent",
    "ledger_kept": "a participant's disk failed",
    "ledger_lost": "a participant's disk failed",
}

_ERRORS = {
    "STORAGE_FULL": "a journal had no room for a saga",
    "CANCEL_TOO_LATE": "a cancel came too late",
    "IDEMPOTENCY_CONFLICT": "a key was in use for another request",
    "OVERLOADED": "a shard was overloaded",
}


def reached(seen: Observation) -> Counter[str]:
    """Return how often each of them happened in one history."""
    found: Counter[str] = Counter()
    for fault, count in seen.struck.items():
        if fault in _STRUCK:
            found[_STRUCK[fault]] += count
    found.update(_in_lines(seen))
    found.update(_at_last(seen))
    return found


def _in_lines(seen: Observation) -> Iterator[str]:
    tombstones: set[tuple[str, str]] = set()
    undone: set[tuple[str, str]] = set()
    sent: set[tuple[str, str, int]] = set()
    unheard: set[tuple[str, str]] = set()
    for line in seen.lines:
        match line:
            case Effect(kind=kind):
                key = (line.saga_id, line.step)
                if kind == EFFECT_TOMBSTONE:
                    tombstones.add(key)
                    yield "an undo came before its action"
                elif kind == EFFECT_UNDO:
                    undone.add(key)
            case Replied():
                yield from _of_reply(line, tombstones, undone)
                key = (line.saga_id, line.step)
                if line.duplicate and key in unheard and line.outcome == Outcome.SUCCEEDED:
                    yield "a lost reply was resolved by asking again"
            case Sent():
                if line.verb == COMPENSATION and line.attempt > 1:
                    yield "a compensation was retried"
                if line.attempt > 1:
                    unheard.add((line.saga_id, line.step))
                epochs = (line.saga_id, line.step, line.verb)
                if line.epoch > 1 and line.attempt == 1 and epochs in sent:
                    yield "a takeover sent a call again"
                sent.add(epochs)
            case Granted() if line.epoch > 1 and ":" in line.scope:
                yield "a dedicated saga was taken over"
            case Told():
                yield from _of_answer(line)
            case Trouble():
                yield from _of_trouble(line)
            case _:
                continue


def _of_reply(
    line: Replied, tombstones: set[tuple[str, str]], undone: set[tuple[str, str]]
) -> Iterator[str]:
    if line.verb == ACTION and line.code == Code.CANCELLED_BEFORE_START:
        key = (line.saga_id, line.step)
        if key in tombstones:
            yield "a tombstone refused a late action"
        if key in undone:
            yield "an undone step refused a late action"
    if line.duplicate and line.outcome == Outcome.SUCCEEDED:
        yield "a duplicate was answered from the ledger"
    if line.code in _CODES:
        yield _CODES[line.code]


def _of_answer(line: Told) -> Iterator[str]:
    code = line.facts.get("code", "")
    if line.kind == "error" and code in _ERRORS:
        yield _ERRORS[code]
    if line.kind == "ok" and line.operation in ("retry", "skip"):
        yield "a parked saga was sent on"
    if line.kind == "ended":
        phase = line.facts["phase"]
        if phase == "parked_backward":
            yield "a saga was parked facing backward"
        elif phase == "parked_forward":
            yield "a saga was parked facing forward"
        if code == "POISON":
            yield "a saga was parked as poison"


def _of_trouble(line: Trouble) -> Iterator[str]:
    if line.what == "cut":
        yield "a wire was cut"
    elif line.what == "clock":
        yield "a clock jumped"
    elif line.what == "stopped: FENCED":
        is_host = ":" in line.target or line.target.startswith("shard")
        yield (
            "a zombie was fenced by the journal"
            if is_host
            else "an earlier participant woke and stopped"
        )
    elif line.what == "stopped: STORAGE_FULL":
        yield "a host died of a full journal at its start"


def _at_last(seen: Observation) -> Iterator[str]:
    for saga_id, reading in seen.readings.items():
        if reading is None:
            if any(
                isinstance(line, Told) and line.saga_id == saga_id and line.kind == "ok"
                for line in seen.lines
            ):
                yield "a relaxed saga was lost in a crash"
            continue
        if not reading.is_whole:
            yield "a pruned saga was read"
        if reading.phase == "completed":
            yield "a saga completed"
        elif reading.phase == "compensated":
            yield "a saga was compensated"
            if reading.code in ("OUT_OF_STOCK", "NOT_WANTED"):
                yield "a saga was refused and undone"
            elif reading.code == "DEADLINE_EXCEEDED":
                yield "a saga ran into its deadline"
            elif reading.code == "CANCELLED":
                yield "a saga was cancelled"
