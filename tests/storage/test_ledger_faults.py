"""What damages, kills, outlives or fills a ledger."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raysaga.statemachines.calls import ACTION, COMPENSATION, QUESTION, RELEASE, Outcome
from raysaga.storage.errors import RecordCorruptError, StaleEpochError
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_batch import ROWS, SCOPES, Prepared
from raysaga.storage.ledger_reader import LedgerReader
from raysaga.storage.lmdb_environment import WriteTransaction

from .ledger_desk import JOURNAL, NOW_MS, SETTINGS, TABLE, Desk, make_call

CHILD = Path(__file__).with_name("ledger_child.py")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "ledger")
    yield made
    made.ledger.close()


def child(path: Path, mode: str) -> subprocess.Popen[str]:
    """Start a process of its own that owns the ledger in `path`."""
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- processes that die --------------------------------------------------------


def test_killed_after_the_commit_and_before_the_reply_the_retry_gets_the_stored_answer(
    tmp_path: Path,
) -> None:
    with child(tmp_path / "ledger", "after commit") as process:
        told, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert "reply" not in told
    desk = Desk(tmp_path / "ledger")
    reply = desk.ask(make_call(attempt=2))
    assert (reply.outcome, reply.stored, reply.duplicate) == (Outcome.SUCCEEDED, True, True)
    assert reply.result == {"count": 1, "context": None}
    assert desk.effects("done") == 1
    assert len(list(desk.ledger.effects())) == 1
    desk.ledger.close()


@pytest.mark.parametrize("mode", ["in the handler", "before commit"])
def test_killed_before_the_commit_nothing_has_happened(tmp_path: Path, mode: str) -> None:
    with child(tmp_path / "ledger", mode) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    desk = Desk(tmp_path / "ledger")
    assert (desk.row(), desk.effects("done")) == (None, 0)
    reply = desk.ask(make_call(attempt=2))
    assert (reply.outcome, reply.duplicate) == (Outcome.SUCCEEDED, False)
    assert desk.effects("done") == 1
    desk.ledger.close()


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_what_was_answered_has_happened_and_once(
    tmp_path: Path, seed: int
) -> None:
    """Method: a process answers batch after batch and tells which; kill it after a random one."""
    patience = random.Random(seed).randint(1, 25)
    answered: set[str] = set()
    with child(tmp_path / "ledger", "work") as process:
        assert process.stdout is not None
        for line in process.stdout:
            answered.update(line.split())
            patience -= 1
            if patience == 0:
                process.kill()
                break
        answered.update(word for word in process.stdout.read().split() if word[-1] == ";")
    sagas = [saga.strip(";") for saga in answered]
    assert sagas
    desk = Desk(tmp_path / "ledger")
    assert list(desk.ledger.damaged_rows()) == []
    assert [desk.effects("done", saga=saga) for saga in sagas] == [1] * len(sagas)
    stored = {row.key.saga_id for row in desk.ledger.rows()}
    assert stored >= set(sagas)
    assert [entry.key.saga_id for entry in desk.ledger.effects()] == sorted(stored)
    desk.send(*(make_call(saga=saga, attempt=2) for saga in sorted(stored)))
    assert {desk.effects("done", saga=saga) for saga in stored} == {1}
    desk.ledger.close()


def test_an_older_process_is_fenced_out_by_a_newer_one(tmp_path: Path) -> None:
    with child(tmp_path / "ledger", "wait") as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "open\n"
        desk = Desk(tmp_path / "ledger")
        desk.ask(make_call(saga="order:2"))
        told, _ = process.communicate("go\n")
    assert told == "StaleEpochError\n"
    assert desk.row() is None
    assert desk.effects("done") == 0
    desk.ledger.close()


def test_an_auditor_reads_beside_the_running_owner(tmp_path: Path) -> None:
    with child(tmp_path / "ledger", "wait") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        auditor = LedgerReader.open(tmp_path / "ledger", tables=(TABLE,))
        assert list(auditor.rows()) == []
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1\n"
        assert [row.key.saga_id for row in auditor.rows()] == ["order:1"]
        assert auditor.get(TABLE, "done/order:1/reserve") == 1
        auditor.close()
        process.communicate()


# -- damage, owners, space -----------------------------------------------------


def damage(desk: Desk, table: str) -> None:
    """Flip one bit of every value of `table`."""

    def flip(transaction: WriteTransaction) -> None:
        for key, value in list(transaction.scan(table)):
            transaction.put(table, key, value[:-1] + bytes([value[-1] ^ 1]))

    desk.ledger.environment.write(flip)


@pytest.mark.parametrize("verb", [ACTION, COMPENSATION, QUESTION, RELEASE])
@pytest.mark.parametrize("table", [ROWS, SCOPES])
def test_what_is_damaged_answers_nobody_and_is_not_overwritten(
    desk: Desk, table: str, verb: int
) -> None:
    desk.ask(make_call())
    damage(desk, table)
    other = make_call(saga="order:2", scope=f"{JOURNAL}/shard-1")
    reply, good = desk.send(make_call(verb), other)
    assert (reply.outcome, reply.code) == (Outcome.UNKNOWN, "JOURNAL_CORRUPT")
    assert good.outcome == Outcome.SUCCEEDED
    assert desk.effects("done") == 1
    assert len(list(desk.ledger.damaged_rows())) == (table == ROWS)
    if table == ROWS:
        with pytest.raises(RecordCorruptError):
            list(desk.ledger.rows())


def test_a_row_does_not_answer_for_another_key(desk: Desk) -> None:
    desk.ask(make_call())

    def swap(transaction: WriteTransaction) -> None:
        ((_, value),) = transaction.scan(ROWS)
        transaction.put(ROWS, f"{JOURNAL}/order:2/reserve".encode(), value)

    desk.ledger.environment.write(swap)
    assert desk.ask(make_call(saga="order:2")).code == "JOURNAL_CORRUPT"


def test_an_older_incarnation_finds_the_newer_one_and_stops(desk: Desk) -> None:
    older = desk.ledger
    newer = Ledger(
        older.environment,
        handlers=desk.handlers(),
        tables=(TABLE,),
        now_ms=lambda: NOW_MS,
        settings=SETTINGS,
    )
    assert newer.incarnation == older.incarnation + 1
    with pytest.raises(StaleEpochError):
        older.handle([Prepared(make_call())])
    with pytest.raises(StaleEpochError):
        older.prune(NOW_MS, 0)
    with pytest.raises(StaleEpochError):
        older.prune_effects(NOW_MS)
    assert newer.handle([Prepared(make_call())])[0].outcome == Outcome.SUCCEEDED
    assert desk.effects("done") == 1


def test_a_full_ledger_turns_actions_away_and_lets_the_rest_go_home(tmp_path: Path) -> None:
    cap, reserve = 2 << 20, 1 << 20
    settings = replace(SETTINGS, map_bytes_first=1 << 19, map_bytes_max=cap, reserve_bytes=reserve)
    desk = Desk(tmp_path / "ledger", settings)
    desk.ask(make_call())
    desk.during = lambda effects, call: effects.put(TABLE, call.saga_id, "x" * 20_000)
    filled = 2
    while desk.ask(make_call(saga=f"order:{filled}")).outcome == Outcome.SUCCEEDED:
        filled += 1
    desk.during = lambda effects, call: effects.put(TABLE, call.saga_id, "x" * 200_000)
    refused, undone, asked, released, tombstone = desk.send(
        make_call(saga="order:no"),
        make_call(COMPENSATION),
        make_call(QUESTION),
        make_call(RELEASE, saga="order:2"),
        make_call(COMPENSATION, saga="order:no"),
    )
    assert (refused.outcome, refused.code) == (Outcome.UNKNOWN, "STORAGE_FULL")
    assert undone.outcome == released.outcome == tombstone.outcome == Outcome.SUCCEEDED
    assert asked.result == {"status": "undone", "result": undone.result}
    assert desk.effects("done", saga="order:no") == 0
    assert desk.effects("undone") == 1
    seqs = [entry.seq for entry in desk.ledger.effects()]
    assert seqs == list(range(len(seqs)))
    desk.ledger.close()
