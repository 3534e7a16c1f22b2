"""Proves what the commands that only look tell of a folder, with no engine anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.inputs import RetryOrdered
from raysaga.storage.data_folder import record_owner

Cli = Callable[..., Any]
Script = Callable[[str, bool, int], tuple[Outcome, str, str]]

WELL = (Outcome.SUCCEEDED, "", "")


def declined(step: str, undo: bool, _attempt: int) -> tuple[Outcome, str, str]:
    """The payment is refused for certain."""
    if step == "process_payment" and not undo:
        return Outcome.REFUSED, "PAYMENT_DECLINED", "the card has expired"
    return WELL


def flaky(step: str, undo: bool, attempt: int) -> tuple[Outcome, str, str]:
    """The shipping answers at the third attempt only."""
    if step == "schedule_shipping" and attempt < 3:
        return Outcome.UNKNOWN, "TIMEOUT", "no answer"
    return WELL


def stuck(step: str, undo: bool, _attempt: int) -> tuple[Outcome, str, str]:
    """The refund never answers, and says something nasty."""
    if step == "process_payment" and undo:
        return Outcome.UNKNOWN, "TIMEOUT", "no \x1b[31mred\nanswer [bold]"
    if step == "schedule_shipping" and not undo:
        return Outcome.REFUSED, "ADDRESS_UNSERVICEABLE", "nobody goes there"
    return WELL


@pytest.fixture
def data(keeper: Any) -> Path:
    """A folder with a saga of each kind."""
    keeper.tell("done")
    keeper.tell("undone", declined)
    keeper.tell("slow", flaky)
    keeper.tell("parked", stuck)
    keeper.tell("open", calls_max=2)
    keeper.close()
    path: Path = keeper.path
    return path


def rows(result: Any) -> list[dict[str, Any]]:
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_show_tells_each_attempt_and_mirrors_the_compensations(cli: Cli, data: Path) -> None:
    (told,) = rows(cli("show", "undone", "--data", data, "--json"))
    assert (told["saga_id"], told["phase"]) == ("order:undone", "compensated")
    assert (told["code"], told["step"]) == ("PAYMENT_DECLINED", "process_payment")
    attempts = [row for row in told["timeline"] if row["kind"] == "attempt"]
    assert [(a["operation"], a["direction"], a["answer"]) for a in attempts] == [
        ("reserve", "action", "succeeded"),
        ("charge", "action", "refused"),
        ("refund", "compensation", "undone"),
        ("release", "compensation", "undone"),
    ]
    assert all(attempt["took_ms"] >= 0 for attempt in attempts)
    assert [r["event"] for r in told["timeline"] if r["kind"] == "turn"] == [
        "accepted",
        "compensation_started",
        "saga_compensated",
    ]


def test_show_prints_a_table_of_a_hundred_columns_for_people(cli: Cli, data: Path) -> None:
    result = cli("show", "order:undone", "--data", data)
    assert (result.exit_code, result.stderr) == (0, "")
    assert all(len(line) <= 100 for line in result.stdout.splitlines())
    assert "order:undone  compensated" in result.stdout
    assert "reason  PAYMENT_DECLINED at process_payment" in result.stdout
    forward, back = (result.stdout.index(word) for word in ("charge refused", "refund undone"))
    assert forward < back


def test_show_tells_what_was_waited_for(cli: Cli, data: Path) -> None:
    (told,) = rows(cli("show", "slow", "--data", data, "--json"))
    shipping = [row for row in told["timeline"] if row.get("step") == "schedule_shipping"]
    assert [(row["attempt"], row["answer"]) for row in shipping] == [
        (1, "failed"),
        (2, "failed"),
        (3, "succeeded"),
    ]
    assert shipping[0]["retry_at_ms"] > shipping[0]["at_ms"]
    assert shipping[2]["retry_at_ms"] is None


def test_show_keeps_results_to_itself_unless_asked(cli: Cli, data: Path) -> None:
    (told,) = rows(cli("show", "done", "--data", data, "--json"))
    assert "results" not in told
    assert not any("result" in row for row in told["timeline"])
    (told,) = rows(cli("show", "done", "--data", data, "--json", "--payloads"))
    assert told["results"]["process_payment"] == {"of": "process_payment"}


def test_an_attempt_without_an_answer_is_told_as_such(cli: Cli, data: Path) -> None:
    (told,) = rows(cli("show", "open", "--data", data, "--json"))
    last = told["timeline"][-1]
    assert (told["phase"], last["answer"], last["took_ms"]) == ("running", "", None)
    assert "no answer" in cli("show", "open", "--data", data).stdout


def test_list_filters_and_tells_the_newest_first(cli: Cli, data: Path) -> None:
    def listed(*conditions: str) -> list[str]:
        found = rows(cli("list", "--data", data, "--json", *conditions))
        return [row["saga_id"].removeprefix("order:") for row in found]

    assert listed() == ["open", "parked", "slow", "undone", "done"]
    assert listed("--limit", "2") == ["open", "parked"]
    assert listed("--state", "completed") == ["slow", "done"]
    assert listed("--state", "completed", "--state", "parked") == ["parked", "slow", "done"]
    assert listed("--state", "open") == ["open", "parked"]
    assert listed("--reason", "PAYMENT_DECLINED") == ["undone"]
    assert listed("--step", "process_payment") == ["parked", "undone"]
    assert listed("--definition", "other") == []
    assert listed("--older-than", "1d") == ["open", "parked", "slow", "undone", "done"]
    assert listed("--older-than", "99999d") == []


def test_list_merges_the_shards_by_age(cli: Cli, tmp_path: Path, make_keeper: Any) -> None:
    keeper = make_keeper(tmp_path / "many", shard_count=4)
    keys = [f"o-{i}" for i in range(40)]
    for key in keys:
        keeper.tell(key)
    keeper.close()
    found = rows(cli("list", "--data", keeper.path, "--json", "--limit", "25"))
    assert [row["saga_id"] for row in found] == [f"order:{key}" for key in keys[:14:-1]]


def test_a_saga_is_found_by_its_key_even_if_that_has_colons(cli: Cli, keeper: Any) -> None:
    keeper.tell("shop:42")
    keeper.close()
    for name in ("shop:42", "order:shop:42"):
        (told,) = rows(cli("show", name, "--data", keeper.path, "--json"))
        assert told["saga_id"] == "order:shop:42"


def test_parked_tells_why_and_what_can_be_done(cli: Cli, data: Path) -> None:
    (told,) = [json.loads(cli("parked", "--data", data, "--json").stdout)]
    assert (told["code"], told["step"]) == ("COMPENSATION_STUCK", "process_payment")
    assert told["remaining"] == ["reserve_inventory", "process_payment"]
    assert told["ways_on"] == ["retry", "skip"]
    shown = cli("parked", "--data", data)
    assert "raysaga skip order:parked --note WHY" in shown.stdout
    assert "1 parked" in shown.stderr


def test_what_participants_say_cannot_colour_or_break_a_table(cli: Cli, data: Path) -> None:
    for command in (("show", "parked"), ("parked",), ("logs", "parked"), ("list",)):
        printed = cli(*command, "--data", data).stdout
        assert "\x1b" not in printed
        assert "\\x1b[31mred" in printed.replace("\n", "") or command == ("list",)


def test_an_operator_who_sent_a_saga_on_is_in_its_timeline(cli: Cli, keeper: Any) -> None:
    bank = {"is": "down"}

    def mended(step: str, undo: bool, attempt: int) -> tuple[Outcome, str, str]:
        if bank["is"] == "up" and undo:
            return WELL
        return stuck(step, undo, attempt)

    def send_on(_saga: Any) -> RetryOrdered:
        bank["is"] = "up"
        return RetryOrdered("ann", "the bank is back")

    keeper.tell("saved", mended, then=send_on)
    keeper.close()
    (told,) = rows(cli("show", "saved", "--data", keeper.path, "--json"))
    assert told["phase"] == "compensated"
    (resumed,) = [row for row in told["timeline"] if row.get("event") == "saga_resumed"]
    assert (resumed["by"], resumed["note"]) == ("ann", "the bank is back")


def test_logs_lay_the_log_beside_the_journal_by_time(cli: Cli, keeper: Any) -> None:
    saga_id = keeper.tell("undone", declined)
    other = keeper.tell("undone-2")
    refused = {"step": "process_payment", "attempt": 1, "code": "PAYMENT_DECLINED"}
    keeper.log(saga_id, "step_refused", "2023-11-14T22:13:20.050Z", pid=7, **refused)
    keeper.log(saga_id, "order_given", "2030-01-01T00:00:00Z", by="ann", pid=7)
    keeper.log(saga_id, "step_succeeded", "2001-01-01T00:00:00Z", step="none", attempt=9, pid=7)
    keeper.log(other, "order_given", "2030-01-01T00:00:00Z", by="bob")
    with (keeper.folder.log_path / "shard-0.jsonl").open("a") as file:
        file.write(f'{{"saga_id": "{saga_id}", "torn')
    keeper.close()
    told = rows(cli("logs", "undone", "--data", keeper.path, "--json"))
    assert [row["at_ms"] for row in told] == sorted(row["at_ms"] for row in told)
    by_source = {(row["source"], row["event"]) for row in told}
    assert ("both", "step_refused") in by_source
    assert ("journal", "accepted") in by_source
    assert (told[0]["source"], told[0]["event"]) == ("log", "step_succeeded")
    assert (told[-1]["source"], told[-1]["by"]) == ("log", "ann")
    assert len([row for row in told if row["event"] == "step_refused"]) == 1


def test_status_counts_and_says_that_no_engine_runs(cli: Cli, data: Path) -> None:
    (told,) = rows(cli("status", "--data", data, "--json"))
    assert told["engine"] == {
        "running": False,
        "shards": {},
        "address": None,
        "driver_pid": None,
    }
    counts = {phase: n for phase, n in told["counts"].items() if n}
    assert counts == {"running": 1, "parked_backward": 1, "completed": 2, "compensated": 1}
    assert "does not run" in cli("status", "--data", data).stdout


def test_an_engine_is_seen_by_the_process_that_owns_a_shard(cli: Cli, keeper: Any) -> None:
    keeper.tell("o-1")
    keeper.close()
    record_owner(keeper.folder.journal_path(0))
    (told,) = rows(cli("status", "--data", keeper.path, "--json"))
    assert told["engine"]["running"] is True
    assert told["engine"]["shards"] == {"0": os.getpid()}
    record_owner(keeper.folder.journal_path(0), start_time=1)
    (told,) = rows(cli("status", "--data", keeper.path, "--json"))
    assert told["engine"]["running"] is False


def test_of_a_pruned_saga_the_end_is_still_told(cli: Cli, keeper: Any) -> None:
    keeper.prune(keeper.tell("undone", declined))
    keeper.tell("other")
    keeper.close()
    (told,) = rows(cli("show", "order:undone", "--data", keeper.path, "--json"))
    assert (told["phase"], told["code"], told["pruned"]) == (
        "compensated",
        "PAYMENT_DECLINED",
        True,
    )
    assert "were pruned" in cli("show", "undone", "--data", keeper.path).stdout
    (left,) = rows(cli("list", "--data", keeper.path, "--json"))
    assert left["saga_id"] == "order:other"


def test_watch_ends_after_its_count(cli: Cli, data: Path) -> None:
    looks = rows(cli("watch", "--data", data, "--count", 2, "--interval", 0.1, "--json"))
    assert [look["open"] for look in looks] == [2, 2]
    assert looks[0]["ended_per_s"] is None
    assert looks[1]["ended_per_s"] == 0.0
    assert 0 < looks[0]["p50_ms"] <= looks[0]["p95_ms"]
    assert "compensated 1" in cli("watch", "--data", data, "--count", 1).stdout


def test_watch_tells_shards_as_the_folder_has_them_where_no_engine_runs(
    cli: Cli, data: Path
) -> None:
    (look,) = rows(cli("watch", "--data", data, "--count", 1, "--json"))
    (shard,) = look["shards"]
    assert shard["map_used"] > 0
    assert (shard["shard"], shard["pid"], shard["epoch"] >= 1) == (0, None, True)
    assert not (look["engine_running"] or look["engine_answers"] or look["participants"])


def test_verify_finds_a_sound_folder_sound(cli: Cli, data: Path) -> None:
    result = cli("verify", "--data", data, "--json")
    assert result.exit_code == 0
    (part,) = json.loads(result.stdout)["parts"]
    assert (part["name"], part["checked"], part["is_sound"]) == ("shard 0", 5, True)


def test_verify_finds_a_flipped_bit_and_ends_with_one(
    cli: Cli, keeper: Any, make_order: Callable[..., Any]
) -> None:
    for i in range(20):
        keeper.tell(f"o-{i}", saga_input=make_order(f"o-{i}", customer_id=f"customer-{i:02d}"))
    keeper.close()
    path = keeper.folder.journal_path(0) / "data.mdb"
    raw = path.read_bytes()
    assert b"customer-07" in raw
    # Everywhere: LMDB leaves old copies of pages behind.
    path.write_bytes(raw.replace(b"customer-07", b"customer-06"))
    result = cli("verify", "--data", keeper.path, "--json")
    assert result.exit_code == 1, result.output
    (part,) = json.loads(result.stdout)["parts"]
    assert part["problem_count"] == 1
    assert part["problems"][0].startswith("order:o-7: ")
    assert json.loads(result.stderr)["error"]["code"] == "PROBLEM_FOUND"
    shown = cli("show", "o-7", "--data", keeper.path)
    assert shown.exit_code == 1
    assert "cannot be read" in shown.stderr
    assert cli("show", "o-8", "--data", keeper.path).exit_code == 0


def test_a_folder_is_backed_up_and_restored(cli: Cli, data: Path, tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    (made,) = rows(cli("backup", backup, "--data", data, "--json"))
    (back,) = rows(cli("restore", backup, "--data", restored, "--json"))
    assert made["saga_count"] == back["saga_count"] == 5
    (told,) = rows(cli("show", "undone", "--data", restored, "--json"))
    assert told["phase"] == "compensated"
    again = cli("restore", backup, "--data", restored)
    assert again.exit_code == 4
    assert "is not empty" in again.stderr
    assert cli("restore", data, "--data", tmp_path / "x").exit_code == 4
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["list", "show undone", "parked", "status", "verify"])
def test_a_read_does_without_ray(data: Path, command: str) -> None:
    """Ray alone takes half a second to import, and seconds to start.

    Method: a fresh process, which tells on leaving whether Ray was imported.
    """
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(str('ray' in sys.modules)))\n"
        "from raysaga.api.cli import main\n"
        "main()\n"
    )
    arguments = [*command.split(), "--data", str(data)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("False")
