"""Batches, handlers that misbehave, requests, releases, pruning and the effect log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    LedgerStatus,
    Outcome,
    StepCall,
)
from raysaga.storage.effects import Effects, Refusal
from raysaga.storage.ledger_row import EffectKind, fingerprint_of

from .ledger_desk import JOURNAL, NOW_MS, SETTINGS, TABLE, Desk, later, make_call

DAY_MS = 86_400_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ledger")
    yield made
    made.ledger.close()


# -- batches -------------------------------------------------------------------


def test_a_batch_costs_one_commit(desk: Desk) -> None:
    before = desk.ledger.environment.commits
    replies = desk.send(*(make_call(saga=f"order:{i}", call_id=i) for i in range(256)))
    assert desk.ledger.environment.commits == before + 1
    assert [reply.call_id for reply in replies] == list(range(256))
    assert all(reply.outcome == Outcome.SUCCEEDED for reply in replies)


def test_duplicates_in_one_batch_take_effect_once(desk: Desk) -> None:
    replies = desk.send(*(make_call(attempt=n) for n in (1, 2, 3)))
    assert [reply.duplicate for reply in replies] == [False, True, True]
    assert {str(reply.result) for reply in replies} == {str(replies[0].result)}
    assert desk.effects("done") == 1


def test_calls_of_one_batch_see_each_other_in_order(desk: Desk) -> None:
    def next_number(effects: Effects, call: StepCall) -> None:
        effects.put(TABLE, "number", int(effects.get(TABLE, "number") or 0) + 1)

    desk.during = next_number
    desk.send(*(make_call(saga=f"order:{i}") for i in range(10)))
    assert desk.ledger.get(TABLE, "number") == 10


def test_a_compensation_before_its_action_in_one_batch_cancels_it(desk: Desk) -> None:
    undo, late = desk.send(make_call(COMPENSATION), make_call())
    assert (undo.outcome, undo.result) == (Outcome.SUCCEEDED, {})
    assert (late.outcome, late.code) == (Outcome.REFUSED, "CANCELLED_BEFORE_START")
    assert late.stored
    assert desk.effects("done") == desk.effects("undone") == 0


def test_an_epoch_counts_for_the_rest_of_its_batch(desk: Desk) -> None:
    calls = [make_call(saga=f"order:{epoch}", epoch=epoch) for epoch in (5, 7, 6)]
    assert [reply.code for reply in desk.send(*calls)] == ["", "", "FENCED"]


def test_a_larger_map_runs_the_batch_again_and_applies_it_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger", replace(SETTINGS, map_bytes_first=1 << 16))
    runs = []

    def much(effects: Effects, call: StepCall) -> None:
        runs.append(call.saga_id)
        effects.put(TABLE, f"much/{call.saga_id}", "x" * 50_000)

    desk.during = much
    replies = desk.send(*(make_call(saga=f"order:{i}") for i in range(20)))
    assert len(runs) > 20, "the map must have been too small at first"
    assert all(reply.outcome == Outcome.SUCCEEDED for reply in replies)
    assert [desk.effects("done", saga=f"order:{i}") for i in range(20)] == [1] * 20
    assert [entry.seq for entry in desk.ledger.effects()] == list(range(20))
    desk.ledger.close()


# -- handlers ------------------------------------------------------------------


def test_what_a_refusing_handler_wrote_is_gone_and_the_refusal_stays(desk: Desk) -> None:
    desk.ask(make_call(saga="order:0"))

    def partly(effects: Effects, call: StepCall) -> None:
        effects.put(TABLE, "left", "over")
        effects.delete(TABLE, "done/order:0/reserve")
        effects.put(TABLE, "done/order:2/reserve", 99)
        if call.saga_id == "order:1":
            raise Refusal("SOLD_OUT", "there is no tea")

    desk.during = partly
    refused = desk.ask(make_call())
    assert (refused.outcome, refused.code, refused.stored) == (Outcome.REFUSED, "SOLD_OUT", True)
    assert list(desk.ledger.scan(TABLE)) == [("done/order:0/reserve", 1)]
    assert desk.status() is LedgerStatus.REFUSED


def test_a_refusal_does_not_drop_what_earlier_calls_of_the_batch_wrote(desk: Desk) -> None:
    def share(effects: Effects, call: StepCall) -> None:
        total = int(effects.get(TABLE, "total") or 0) + 1
        effects.put(TABLE, "total", total)
        if call.saga_id == "order:1":
            raise Refusal("SOLD_OUT", "there is no tea")

    desk.during = share
    desk.send(*(make_call(saga=f"order:{i}") for i in range(3)))
    assert desk.ledger.get(TABLE, "total") == 2


def test_values_read_and_put_are_copies(desk: Desk) -> None:
    def meddle(effects: Effects, call: StepCall) -> None:
        value = {"left": 5}
        effects.put(TABLE, "stock", value)
        value["left"] = 4
        effects.get(TABLE, "stock")["left"] = 3

    desk.during = meddle
    desk.ask(make_call())
    assert desk.ledger.get(TABLE, "stock") == {"left": 5}


def test_a_scan_lays_the_batch_over_what_is_stored(desk: Desk) -> None:
    seen: list[Any] = []

    def prepare(effects: Effects, call: StepCall) -> None:
        for key in ("b/1", "b/2", "b/4", "c"):
            effects.put(TABLE, key, "stored")

    def look(effects: Effects, call: StepCall) -> None:
        effects.put(TABLE, "b/3", "new")
        effects.put(TABLE, "b/4", "changed")
        effects.delete(TABLE, "b/1")
        seen.extend(effects.scan(TABLE, "b/"))

    desk.during = prepare
    desk.ask(make_call())
    desk.during = look
    desk.ask(make_call(step="second"))
    assert seen == [("b/2", "stored"), ("b/3", "new"), ("b/4", "changed")]


def test_try_later_stores_nothing_and_says_when(desk: Desk) -> None:
    desk.during = later("LOCKED", 70)
    reply = desk.ask(make_call())
    assert (reply.outcome, reply.code, reply.retry_after_ms) == (Outcome.UNKNOWN, "LOCKED", 70)
    assert not reply.stored
    assert desk.status() is LedgerStatus.NOTHING
    desk.during = lambda effects, call: None
    assert desk.ask(make_call(attempt=2)).outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize("verb", [ACTION, COMPENSATION])
def test_a_handler_that_breaks_hurts_its_own_call_only(desk: Desk, verb: int) -> None:
    if verb == COMPENSATION:
        desk.send(*(make_call(saga=f"order:{i}") for i in range(3)))

    def break_one(effects: Effects, call: StepCall) -> None:
        effects.put(TABLE, f"left/{call.saga_id}", 1)
        if call.saga_id == "order:1":
            raise ZeroDivisionError

    desk.during = break_one
    replies = desk.send(*(make_call(verb, saga=f"order:{i}") for i in range(3)))
    assert [reply.outcome for reply in replies] == [1, 3, 1]
    assert (replies[1].code, replies[1].stored) == ("INTERNAL_ERROR", False)
    assert desk.ledger.get(TABLE, "left/order:1") is None
    assert [type(error) for error in desk.defects] == [ZeroDivisionError]
    assert desk.status() is (LedgerStatus.APPLIED if verb == COMPENSATION else LedgerStatus.NOTHING)


@pytest.mark.parametrize("verb", ["get", "put", "delete", "scan"])
def test_a_table_or_a_key_that_cannot_be_hurts_its_own_call_only(desk: Desk, verb: str) -> None:
    def stray(effects: Effects, call: StepCall) -> None:
        values = (1,) if verb == "put" else ()
        if call.saga_id == "order:1":
            list(getattr(effects, verb)("no such table", "key", *values) or ())
        if call.saga_id == "order:2" and verb != "scan":
            getattr(effects, verb)(TABLE, "k" * 600, *values)

    desk.during = stray
    replies = desk.send(*(make_call(saga=f"order:{i}") for i in (1, 2, 3)))
    codes = ["INTERNAL_ERROR", "" if verb == "scan" else "INTERNAL_ERROR", ""]
    assert [reply.code for reply in replies] == codes


@pytest.mark.parametrize(
    "answer",
    [{"when": object()}, {"big": 1 << 80}, {"much": "x" * 70_000}, {"deep": None}],
    ids=["not plain data", "too large a number", "too many bytes", "too deep"],
)
def test_an_answer_that_cannot_be_stored_hurts_its_own_call_only(
    desk: Desk, answer: dict[str, Any]
) -> None:
    if "deep" in answer:
        for _ in range(2_000):
            answer = {"deep": answer}
    apply = desk.apply
    desk.apply = lambda effects, call, context: (  # type: ignore[method-assign]
        {**apply(effects, call, context), **(answer if call.saga_id == "order:1" else {})}
    )
    desk.reopen()
    replies = desk.send(make_call(saga="order:0"), make_call(), make_call(saga="order:2"))
    assert [reply.outcome for reply in replies] == [1, 3, 1]
    assert replies[1].code == "INTERNAL_ERROR"
    assert desk.status() is LedgerStatus.NOTHING
    assert desk.effects("done") == 0
    assert [entry.key.saga_id for entry in desk.ledger.effects()] == ["order:0", "order:2"]


def test_only_successful_undos_are_stored_so_that_a_retry_is_a_retry(desk: Desk) -> None:
    desk.bring_to(LedgerStatus.APPLIED)
    desk.refuses = True
    refused = desk.ask(make_call(COMPENSATION))
    assert (refused.outcome, refused.code, refused.stored) == (Outcome.REFUSED, "SOLD_OUT", False)
    assert desk.status() is LedgerStatus.APPLIED
    assert desk.effects("undone") == 0
    desk.refuses = False
    assert desk.ask(make_call(COMPENSATION, attempt=2)).outcome == Outcome.SUCCEEDED
    assert desk.effects("undone") == 1


def test_a_code_declared_retryable_is_no_refusal_whatever_raised_it(desk: Desk) -> None:
    def busy(effects: Effects, call: StepCall) -> None:
        raise Refusal("BUSY", "the carrier is busy")

    desk.during = busy
    reply = desk.ask(make_call())
    assert (reply.outcome, reply.code, reply.stored) == (Outcome.UNKNOWN, "BUSY", False)
    assert desk.status() is LedgerStatus.NOTHING


def test_an_operation_that_is_not_offered_is_not_applied(desk: Desk) -> None:
    reply = desk.ask(make_call(operation="give_away"))
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "UNKNOWN_OPERATION")
    assert desk.status() is LedgerStatus.NOTHING


@pytest.mark.parametrize(("action", "undo"), [("take", "give_back"), ("keep", "put_back")])
def test_an_undo_that_does_not_belong_to_the_action_is_not_run(
    desk: Desk, action: str, undo: str
) -> None:
    desk.ask(make_call(operation=action))
    reply = desk.ask(make_call(COMPENSATION, operation=undo))
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "UNKNOWN_OPERATION")
    assert desk.effects("undone") == 0


# -- requests ------------------------------------------------------------------


def test_the_same_request_in_another_order_is_the_same_request(desk: Desk) -> None:
    desk.ask(make_call(request={"sku": "tea", "extra": {"a": [1, (2, 3)], "b": None}}))
    again = make_call(request={"extra": {"b": None, "a": [1, [2, 3]]}, "sku": "tea"})
    assert desk.ask(again).duplicate


def test_fingerprints_tell_requests_apart() -> None:
    requests: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "1"}, {"a": [1]}, {"a": {"1": 1}}]
    requests += [{"a": None}, {"a": [["b", 1]]}, {"a": b"1"}, {"b": 1}, {"a": True}]
    assert len({fingerprint_of(request) for request in requests}) == len(requests)


@pytest.mark.parametrize(
    "call",
    [
        make_call()._replace(expires_at_ms=None),
        make_call(saga="order:1/x"),
        make_call(step="s" * 600),
        make_call(scope=""),
        make_call(epoch=0),
        make_call(epoch=1 << 70),
        make_call(expires_at_ms=1 << 70),
        make_call(verb=7),
        make_call(request={"when": object()}),
        make_call(COMPENSATION, request={"when": object()}),
    ],
    ids=lambda call: "",
)
def test_a_call_that_makes_no_sense_hurts_nobody_else(desk: Desk, call: StepCall) -> None:
    bad, good = desk.send(call, make_call(saga="order:2"))
    assert (bad.outcome, bad.code) == (Outcome.UNKNOWN, "INVALID_REQUEST")
    assert good.outcome == Outcome.SUCCEEDED
    assert [row.key.saga_id for row in desk.ledger.rows()] == ["order:2"]


# -- releases ------------------------------------------------------------------


@pytest.mark.parametrize("status", [LedgerStatus.APPLIED, LedgerStatus.UNDONE], ids=str)
def test_the_end_of_the_saga_is_settled_once(desk: Desk, status: LedgerStatus) -> None:
    desk.bring_to(status)
    first, again = desk.send(make_call(RELEASE), make_call(RELEASE, attempt=2))
    assert (first.outcome, again.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert desk.settled == [("order:1", status, "completed")]
    assert desk.effects("settled") == 1
    row = desk.row()
    assert row is not None and row.is_released


def test_a_settled_step_is_not_undone_any_more(desk: Desk) -> None:
    """A compensation that comes now is a copy of an old one, or an operator let it stand."""
    desk.send(make_call(), make_call(RELEASE))
    reply = desk.ask(make_call(COMPENSATION))
    assert (reply.outcome, reply.code, reply.stored) == (Outcome.UNKNOWN, "RELEASED", False)
    assert desk.effects("undone") == 0
    assert desk.ask(make_call(attempt=2)).result == {"count": 1, "context": None}


def test_a_settlement_that_breaks_leaves_the_row_unreleased(desk: Desk) -> None:
    desk.ask(make_call())
    broken = make_call(RELEASE)._replace(request=None)  # type: ignore[arg-type]
    assert desk.ask(broken).code == "INTERNAL_ERROR"
    row = desk.row()
    assert row is not None and not row.is_released
    assert desk.ask(make_call(RELEASE)).outcome == Outcome.SUCCEEDED


# -- pruning -------------------------------------------------------------------


def test_a_row_goes_after_release_and_retention_and_expiry(desk: Desk) -> None:
    desk.ask(make_call(expires_at_ms=NOW_MS + 10 * DAY_MS))
    assert desk.ledger.prune(NOW_MS + 99 * DAY_MS, DAY_MS) == 0, "not released"
    desk.ask(make_call(RELEASE))
    assert desk.ledger.prune(NOW_MS + DAY_MS, DAY_MS) == 0, "not old enough"
    assert desk.ledger.prune(NOW_MS + 2 * DAY_MS, DAY_MS) == 0, "a copy could still act"
    last_ms = NOW_MS + 10 * DAY_MS + SETTINGS.clock_skew_ms
    assert desk.ledger.prune(last_ms, DAY_MS) == 0, "by a clock that is slow"
    assert desk.ledger.prune(last_ms + 1, DAY_MS) == 1
    assert desk.row() is None
    assert desk.effects("done") == 1, "the participant's own data is its own"
    desk.now_ms = last_ms + 1
    late = make_call(expires_at_ms=NOW_MS + 10 * DAY_MS)
    assert desk.ask(late).code == "EXPIRED", "a copy of the action is dead by itself"


@pytest.mark.parametrize(
    "status", [LedgerStatus.APPLIED, LedgerStatus.TOMBSTONE, LedgerStatus.UNDONE], ids=str
)
def test_the_largest_expiry_seen_keeps_a_row(desk: Desk, status: LedgerStatus) -> None:
    desk.bring_to(status)
    desk.ask(make_call(attempt=2, expires_at_ms=NOW_MS + 5 * DAY_MS))
    desk.ask(make_call(attempt=3, expires_at_ms=NOW_MS + 1))
    desk.ask(make_call(RELEASE))
    assert desk.ledger.prune(NOW_MS + 5 * DAY_MS, DAY_MS) == 0
    assert desk.ledger.prune(NOW_MS + 6 * DAY_MS, DAY_MS) == 1


def test_pruning_goes_in_bounded_bites_and_past_rows_that_must_stay(desk: Desk) -> None:
    desk.ask(make_call(saga="order:old", expires_at_ms=NOW_MS + 99 * DAY_MS))
    desk.ask(make_call(RELEASE, saga="order:old"))
    for verb in (ACTION, RELEASE):
        desk.send(*(make_call(verb, saga=f"order:{i}") for i in range(5)))
    now_ms = NOW_MS + 2 * DAY_MS
    assert [desk.ledger.prune(now_ms, DAY_MS, rows_max=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [row.key.saga_id for row in desk.ledger.rows()] == ["order:old"]


def test_the_epoch_of_a_saga_of_its_own_goes_with_its_last_row(desk: Desk) -> None:
    dedicated = f"{JOURNAL}/order:1"
    first, second = (make_call(step=step, scope=dedicated) for step in ("one", "two"))
    desk.send(first, second, make_call(saga="order:2"))
    desk.ask(make_call(RELEASE, step="one"))
    now_ms = NOW_MS + 2 * DAY_MS
    assert desk.ledger.prune(now_ms, DAY_MS) == 1
    assert dedicated in desk.ledger.epochs(), "another row of the saga is still there"
    desk.ask(make_call(RELEASE, step="two"))
    assert desk.ledger.prune(now_ms, DAY_MS) == 1
    assert list(desk.ledger.epochs()) == [f"{JOURNAL}/shard-0"], "a shard's epoch stays for ever"


def test_a_young_epoch_without_rows_stays(desk: Desk) -> None:
    """It was only asked; what it fences may still be on its way."""
    desk.ask(make_call(QUESTION, scope=f"{JOURNAL}/order:1"))
    assert desk.ledger.prune(NOW_MS + DAY_MS - 1, DAY_MS) == 0
    assert len(desk.ledger.epochs()) == 1
    desk.ledger.prune(NOW_MS + DAY_MS + 1, DAY_MS)
    assert len(desk.ledger.epochs()) == 0


# -- the effect log ------------------------------------------------------------


def test_the_log_tells_each_effect_once_in_order(desk: Desk) -> None:
    desk.send(make_call(), make_call(attempt=2), make_call(COMPENSATION))
    desk.send(make_call(COMPENSATION, saga="order:2"), make_call(saga="order:2"))
    desk.refuses = True
    desk.send(make_call(saga="order:3"), make_call(saga="order:3", attempt=2))
    told = [(entry.key.saga_id, entry.kind, entry.operation) for entry in desk.ledger.effects()]
    assert told == [
        ("order:1", EffectKind.ACTION, "take"),
        ("order:1", EffectKind.COMPENSATION, "put_back"),
        ("order:2", EffectKind.TOMBSTONE, "put_back"),
        ("order:3", EffectKind.REFUSED, "take"),
    ]
    first = next(desk.ledger.effects())
    assert (first.seq, first.epoch, first.at_ms) == (0, 5, NOW_MS)
    assert first.summary == {"count": 1, "context": None}
    assert [entry.seq for entry in desk.ledger.effects(from_seq=2)] == [2, 3]


def test_numbers_of_the_log_are_never_given_twice(desk: Desk) -> None:
    desk.send(*(make_call(saga=f"order:{i}") for i in range(4)))
    assert desk.ledger.prune_effects(NOW_MS, lines_max=3) == 0, "none is older"
    assert desk.ledger.prune_effects(NOW_MS + 1, lines_max=3) == 3
    assert desk.ledger.prune_effects(NOW_MS + 1) == 1
    desk.reopen()
    desk.ask(make_call(saga="order:9"))
    assert [entry.seq for entry in desk.ledger.effects()] == [4]


def test_the_log_can_be_left_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "ledger", replace(SETTINGS, keeps_effect_log=False))
    desk.send(make_call(), make_call(COMPENSATION))
    assert list(desk.ledger.effects()) == []
    desk.ledger.close()


def test_long_reads_go_in_pages_and_miss_nothing(desk: Desk) -> None:
    sagas = [f"order:{i:04}" for i in range(1_100)]
    desk.send(*(make_call(saga=saga) for saga in sagas))
    assert [row.key.saga_id for row in desk.ledger.rows()] == sagas
    assert [row.key.saga_id for row in desk.ledger.rows(JOURNAL, "order:0007")] == ["order:0007"]
    assert [entry.key.saga_id for entry in desk.ledger.effects()] == sagas
    assert list(desk.ledger.rows("another")) == []
