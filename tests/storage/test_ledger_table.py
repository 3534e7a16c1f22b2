"""The whole table: each verb on each status, at each epoch, before and after the expiry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    LedgerStatus,
    Outcome,
)
from raysaga.storage.ledger_batch import ROWS, Intent, Prepared, Resolution
from raysaga.storage.ledger_row import EffectKind, encode_row

from .ledger_desk import NOW_MS, SCOPE, Desk, make_call

OK, NO, DUNNO = Outcome.SUCCEEDED, Outcome.REFUSED, Outcome.UNKNOWN
NOTHING, PENDING, APPLIED, REFUSED, TOMBSTONE, UNDONE, UNKNOWN = (
    LedgerStatus.NOTHING,
    LedgerStatus.PENDING,
    LedgerStatus.APPLIED,
    LedgerStatus.REFUSED,
    LedgerStatus.TOMBSTONE,
    LedgerStatus.UNDONE,
    LedgerStatus.UNKNOWN,
)


class Cell(NamedTuple):
    """What is answered, and what is there afterwards."""

    outcome: Outcome
    code: str
    stored: bool
    after: LedgerStatus


# Written out by hand from the design, so as not to share code with what is tested.
TABLE = {
    (ACTION, NOTHING): Cell(OK, "", True, APPLIED),
    (ACTION, PENDING): Cell(DUNNO, "PENDING", False, PENDING),
    (ACTION, APPLIED): Cell(OK, "", True, APPLIED),
    (ACTION, REFUSED): Cell(NO, "SOLD_OUT", True, REFUSED),
    (ACTION, TOMBSTONE): Cell(NO, "CANCELLED_BEFORE_START", True, TOMBSTONE),
    (ACTION, UNDONE): Cell(NO, "CANCELLED_BEFORE_START", True, UNDONE),
    (ACTION, UNKNOWN): Cell(DUNNO, "OUTCOME_UNKNOWN", True, UNKNOWN),
    (COMPENSATION, NOTHING): Cell(OK, "", True, TOMBSTONE),
    (COMPENSATION, PENDING): Cell(DUNNO, "PENDING", False, PENDING),
    (COMPENSATION, APPLIED): Cell(OK, "", True, UNDONE),
    (COMPENSATION, REFUSED): Cell(OK, "", True, REFUSED),
    (COMPENSATION, TOMBSTONE): Cell(OK, "", True, TOMBSTONE),
    (COMPENSATION, UNDONE): Cell(OK, "", True, UNDONE),
    # Nobody knows whether there is anything to undo, so it is undone.
    (COMPENSATION, UNKNOWN): Cell(OK, "", True, UNDONE),
    (QUESTION, NOTHING): Cell(OK, "", False, NOTHING),
    **{
        (QUESTION, status): Cell(OK, "", True, status)
        for status in (PENDING, APPLIED, REFUSED, TOMBSTONE, UNDONE, UNKNOWN)
    },
    (RELEASE, NOTHING): Cell(OK, "", False, NOTHING),
    (RELEASE, PENDING): Cell(DUNNO, "PENDING", False, PENDING),
    **{
        (RELEASE, status): Cell(OK, "", True, status)
        for status in (APPLIED, REFUSED, TOMBSTONE, UNDONE, UNKNOWN)
    },
}
VERBS = {ACTION: "action", COMPENSATION: "compensation", QUESTION: "question", RELEASE: "release"}
EPOCHS = {"lower": 4, "same": 5, "higher": 6}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ledger")
    yield made
    assert list(made.ledger.damaged_rows()) == []
    made.ledger.close()


def cell_of(verb: int, status: LedgerStatus, epoch: str, late: bool) -> Cell:
    if epoch == "lower":
        return Cell(DUNNO, "FENCED", False, status)
    if verb == ACTION and status is NOTHING and late:
        return Cell(DUNNO, "EXPIRED", False, NOTHING)
    return TABLE[verb, status]


@pytest.mark.parametrize("late", [False, True], ids=["in time", "expired"])
@pytest.mark.parametrize("epoch", EPOCHS)
@pytest.mark.parametrize("status", list(LedgerStatus), ids=str)
@pytest.mark.parametrize("verb", VERBS, ids=VERBS.get)
def test_each_cell_of_the_table_answers_and_stores_as_designed(
    desk: Desk, verb: int, status: LedgerStatus, epoch: str, late: bool
) -> None:
    desk.bring_to(status)
    done, undone = desk.effects("done"), desk.effects("undone")
    row_before = desk.row()
    expires_at_ms = (NOW_MS - 1 if late else NOW_MS + 1) if verb == ACTION else None
    want = cell_of(verb, status, epoch, late)

    reply = desk.ask(make_call(verb, epoch=EPOCHS[epoch], expires_at_ms=expires_at_ms))

    assert (reply.outcome, reply.code, reply.stored) == want[:3]
    assert desk.status() is want.after
    applied = verb == ACTION and want.after is APPLIED and status is NOTHING
    undid = verb == COMPENSATION and want.after is UNDONE and status is not UNDONE
    assert desk.effects("done") == done + applied
    assert desk.effects("undone") == undone + undid
    assert desk.ledger.epochs() == {SCOPE: max(5, EPOCHS[epoch])}
    if want.code in ("FENCED", "EXPIRED") or verb == QUESTION:
        assert desk.row() == row_before, "what is turned away stores nothing"


@pytest.mark.parametrize("status", [APPLIED, REFUSED, TOMBSTONE, UNDONE], ids=str)
@pytest.mark.parametrize("verb", [ACTION, COMPENSATION], ids=VERBS.get)
def test_a_stored_answer_is_the_same_for_ever(desk: Desk, verb: int, status: LedgerStatus) -> None:
    desk.bring_to(status)
    first = desk.ask(make_call(verb))
    desk.reopen()
    again = desk.ask(make_call(verb, attempt=2))
    assert again._replace(attempt=1, duplicate=first.duplicate) == first
    assert again.stored


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (NOTHING, None),
        (PENDING, None),
        (APPLIED, {"count": 1, "context": None}),
        (REFUSED, {"code": "SOLD_OUT", "message": "there is no tea"}),
        (TOMBSTONE, {}),
        (UNDONE, {"undone": 1, "of": {"count": 1, "context": None}}),
        (UNKNOWN, None),
    ],
    ids=lambda value: value if isinstance(value, LedgerStatus) else "",
)
def test_a_question_tells_status_and_answer(
    desk: Desk, status: LedgerStatus, result: object
) -> None:
    desk.bring_to(status)
    assert desk.ask(make_call(QUESTION, request={})).result == {"status": status, "result": result}


@pytest.mark.parametrize("verb", [COMPENSATION, QUESTION, RELEASE], ids=VERBS.get)
def test_whatever_comes_with_a_higher_epoch_fences_what_comes_with_a_lower(
    desk: Desk, verb: int
) -> None:
    desk.ask(make_call(verb, epoch=9))
    reply = desk.ask(make_call(epoch=8, step="another"))
    assert (reply.outcome, reply.code) == (DUNNO, "FENCED")
    assert desk.effects("done", step="another") == 0


def test_a_scope_is_not_fenced_by_another(desk: Desk) -> None:
    desk.ask(make_call(epoch=9))
    other = make_call(saga="order:2", scope=f"{SCOPE}-another", epoch=1)
    assert desk.ask(other).outcome == OK


@pytest.mark.parametrize("status", [APPLIED, REFUSED, TOMBSTONE, UNDONE, PENDING, UNKNOWN], ids=str)
@pytest.mark.parametrize("verb", [ACTION, COMPENSATION], ids=VERBS.get)
def test_a_key_that_comes_back_with_another_request_is_never_applied(
    desk: Desk, verb: int, status: LedgerStatus
) -> None:
    desk.bring_to(status)
    before = desk.row()
    reply = desk.ask(make_call(verb, request={"sku": "tea", "quantity": 3}))
    assert (reply.outcome, reply.code, reply.stored) == (DUNNO, "INVALID_REQUEST", False)
    assert desk.row() == before


@pytest.mark.parametrize("verb", [ACTION, COMPENSATION], ids=VERBS.get)
def test_the_rows_of_the_first_builds_are_known_by_their_fingerprints(
    desk: Desk, verb: int
) -> None:
    """Method: the fingerprint was computed once, by such a build; never compute it again."""
    desk.bring_to(APPLIED)
    row = desk.row()
    assert row is not None
    old = row._replace(fingerprint=bytes.fromhex("5d53a531f9eae15a6fadb05f"))
    assert old != row
    raw = str(row.key).encode()
    desk.ledger.environment.write(lambda txn: txn.put(ROWS, raw, encode_row(raw, old)))
    reply = desk.ask(make_call(verb))
    assert (reply.outcome, reply.stored) == (OK, True)
    assert (desk.effects("done"), desk.effects("undone")) == (1, int(verb == COMPENSATION))
    other = desk.ask(make_call(verb, request={"sku": "tea", "quantity": 3}))
    assert (other.outcome, other.code) == (DUNNO, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("status", "summary", "after"),
    [
        (APPLIED, EffectKind.ACTION, APPLIED),
        (REFUSED, EffectKind.REFUSED, REFUSED),
        (TOMBSTONE, EffectKind.TOMBSTONE, TOMBSTONE),
        (UNKNOWN, EffectKind.ACTION, UNKNOWN),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", VERBS, ids=VERBS.get)
def test_a_pending_row_is_resolved_once_whoever_brings_the_answer(
    desk: Desk, verb: int, status: LedgerStatus, summary: EffectKind, after: LedgerStatus
) -> None:
    desk.bring_to(PENDING)
    resolution = Resolution(status, {"charge": 7}, "CARD_DECLINED", "the card was declined")
    call = make_call(verb)
    desk.resolve(call, resolution)
    assert desk.status() is after
    assert desk.effects("done") == (status is APPLIED)
    assert [entry.kind for entry in desk.ledger.effects()] == [summary]
    # A second answer, whatever it says, changes nothing.
    row = desk.row()
    desk.resolve(call, Resolution(APPLIED, {"charge": 8}))
    assert desk.row() == row
    assert desk.effects("done") == (status is APPLIED)


def test_a_pending_action_that_did_not_happen_can_be_asked_for_again(desk: Desk) -> None:
    desk.bring_to(PENDING)
    reply = desk.resolve(make_call(), Resolution(NOTHING, None, "BUSY", "later"))
    assert (reply.outcome, reply.code, desk.status()) == (DUNNO, "BUSY", NOTHING)
    assert desk.mark(make_call()).code == "PENDING"
    assert desk.status() is PENDING


def test_a_fenced_caller_cannot_mark_or_resolve(desk: Desk) -> None:
    desk.bring_to(PENDING)
    desk.ask(make_call(QUESTION, epoch=6))
    resolution = Resolution(APPLIED, {"charge": 7})
    assert desk.resolve(make_call(epoch=5), resolution).code == "FENCED"
    again = Prepared(make_call(epoch=5), None, Intent.MARK_AGAIN)
    assert desk.ledger.handle([again])[0].code == "FENCED"
    assert desk.status() is PENDING
