"""The command line on real engines: whole runs, runs that are killed, and an operator's orders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster_engine import SERVICES, Engine, is_alive, swift, until

from raysaga.api.sample_orders import sample_paths

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("raysaga"))
LINES = 60
patient = swift("by-hand", deadline_ms=None)


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "100"},
    )


def call(*arguments: object, stdin: str = "") -> tuple[int, dict[str, Any], str]:
    """Run a command with `--json`; return its exit code, its document and its messages."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments), "--json"],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def run_orders(data: Path, *options: object) -> tuple[int, dict[str, Any], str]:
    return call("run", "--data", data, "--limit", LINES, "--services", "lively", *options)


def ends(told: dict[str, Any]) -> list[Any]:
    """Return what must be the same however often a file is run."""
    return [told[name] for name in ("completed", "compensated", "parked", "rejected", "repeated")]


def ended_count(data: Path) -> int:
    code, told, _ = call("status", "--data", data)
    if code:
        return 0
    return int(told["counts"]["completed"] + told["counts"]["compensated"])


@pytest.fixture
def killed() -> Iterator[list[psutil.Process]]:
    """Processes that must not outlive the test, whatever happens in it."""
    processes: list[psutil.Process] = []
    yield processes
    for process in processes:
        if process.is_running():
            process.kill()


def test_a_file_run_twice_gives_the_same_table_and_no_new_saga(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, first, messages = run_orders(data)
    assert code == 0, messages
    assert first["begun"] == first["lines"] == LINES
    assert first["completed"] + sum(row["count"] for row in first["compensated"]) == LINES
    assert first["audit"]["is_clean"]
    code, again, messages = run_orders(data)
    assert code == 0, messages
    assert (again["begun"], again["known"]) == (0, LINES)
    assert ends(again) == ends(first)
    assert again["audit"]["counts"] == first["audit"]["counts"]
    assert call("verify", "--data", data)[0] == 0
    assert not call("status", "--data", data)[1]["engine"]["running"]


def test_an_operator_can_start_the_engine_of_a_folder_that_has_its_own_stock(
    tmp_path: Path,
) -> None:
    """A stock that is usual elsewhere would be refused, and the order with it."""
    data, stock, order = tmp_path / "data", tmp_path / "stock.json", tmp_path / "order.json"
    stock.write_text('{"items": {"milk": 5}}')
    order.write_text(
        '{"order_id": "m1", "customer_id": "c", "items": [{"item_id": "milk", "quantity": 1}],'
        ' "payment": {"token": "tok_1", "amount_minor": 100, "currency": "USD"}}'
    )
    code, _, messages = call("submit", order, "--wait", "--data", data, "--stock", stock)
    assert code == 0, messages
    code, _, messages = call("cancel", "m1", "--data", data)
    assert (code, json.loads(messages)["error"]["code"]) == (1, "CANCEL_TOO_LATE")


def test_everything_is_killed_in_the_middle_and_the_next_run_finishes_it(
    tmp_path: Path, killed: list[psutil.Process]
) -> None:
    """SIGKILL to the command, its engine and its Ray at once."""
    data = tmp_path / "data"
    running = start(
        *("run", "--data", data, "--limit", LINES, "--services", "lively", "--in-flight", 4)
    )
    whole = psutil.Process(running.pid)
    killed.append(whole)
    until(lambda: ended_count(data) >= 5 or running.poll() is not None, "some orders have ended")
    assert running.poll() is None, "it was over before it could be killed"
    tree = [whole, *whole.children(recursive=True)]
    killed.extend(tree)
    for process in tree:
        if process.is_running():
            process.send_signal(signal.SIGKILL)
    running.communicate()
    until(lambda: not any(is_alive(process.pid) for process in tree), "all are dead")
    assert ended_count(data) < LINES
    code, told, messages = run_orders(data)
    assert code == 0, messages
    assert told["completed"] + sum(row["count"] for row in told["compensated"]) == LINES
    assert told["known"] > 0
    assert told["begun"] < LINES
    assert told["audit"]["is_clean"], told["audit"]
    assert call("verify", "--data", data)[0] == 0


def test_an_interrupted_run_ends_what_is_under_way_and_says_how_to_go_on(
    tmp_path: Path, killed: list[psutil.Process]
) -> None:
    data = tmp_path / "data"
    orders, stock = sample_paths()
    running = start("run", orders, "--stock", stock, "--data", data, "--services", "lively")
    killed.append(psutil.Process(running.pid))
    until(lambda: ended_count(data) >= 5 or running.poll() is not None, "some orders have ended")
    running.send_signal(signal.SIGINT)
    _, messages = running.communicate(timeout=120)
    assert running.returncode == 130, messages
    assert "the same command continues" in messages
    assert "Traceback" not in messages
    _, told, _ = call("status", "--data", data)
    assert not told["engine"]["running"]
    counts = told["counts"]
    assert sum(counts.values()) == counts["completed"] + counts["compensated"]


# -- beside a running engine ---------------------------------------------------


def parked_saga(engine: Engine) -> tuple[str, Path]:
    """Return a saga whose undo has given up, and the note that keeps it so."""
    order = engine.order(token="tok_declined_cli")
    saga_id = f"{patient.name}:{order['order_id']}"
    note = engine.trouble(saga_id, "reserve_inventory", "undo", "before", "always unavailable")
    handle = engine.sagas.submit(patient, order, key=order["order_id"])
    assert handle.result(timeout_s=60).status == "parked"
    return saga_id, note


def test_a_command_joins_the_engine_that_runs_and_reads_beside_it(engine: Engine) -> None:
    order = engine.order()
    folder = engine.folder
    code, told, messages = call("submit", "-", "--wait", "--data", folder, stdin=json.dumps(order))
    assert code == 0, messages
    assert (told["answer"], told["status"]["phase"]) == ("accepted", "completed")
    code, told, _ = call("submit", "-", "--data", folder, stdin=json.dumps(order))
    assert (code, told["answer"]) == (0, "already")
    other = {**order, "customer_id": "somebody-else"}
    code, told, messages = call("submit", "-", "--data", folder, stdin=json.dumps(other))
    assert (code, told) == (2, {})
    assert json.loads(messages)["error"]["code"] == "IDEMPOTENCY_CONFLICT"
    code, told, _ = call("show", order["order_id"], "--data", folder)
    assert (code, told["phase"]) == (0, "completed")
    code, told, _ = call("status", "--data", folder)
    assert told["engine"]["running"]
    assert engine.pids(), "the engine goes on"


def test_a_file_from_a_pipe_is_run_and_its_bad_lines_are_listed(
    engine: Engine, tmp_path: Path
) -> None:
    good, scarce = engine.order(), engine.order(item="rare")
    other = {**good, "customer_id": "somebody-else"}
    lines = [json.dumps(good), "{", json.dumps(scarce), json.dumps(other)]
    rejects = tmp_path / "rejects.jsonl"
    code, told, messages = call(
        *("run", "-", "--data", engine.folder, "--rejects", rejects), stdin="\n".join(lines)
    )
    assert (code, messages) == (0, "")
    assert (told["file"], told["lines"], told["completed"]) == (None, 4, 1)
    refused = {"code": "INSUFFICIENT_STOCK", "step": "reserve_inventory", "count": 1}
    assert told["compensated"] == [refused]
    listed = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert sorted((row["line"], row["order_id"], row["code"]) for row in listed) == [
        (2, None, "VALIDATION"),
        (4, good["order_id"], "IDEMPOTENCY_CONFLICT"),
    ]
    assert told["audit"]["is_clean"], told["audit"]


def test_a_parked_saga_is_retried_by_hand(engine: Engine) -> None:
    saga_id, note = parked_saga(engine)
    code, told, _ = call("show", saga_id, "--data", engine.folder)
    assert told["ways_on"] == ["retry", "skip"]
    note.unlink()
    code, told, messages = call("retry", saga_id, "--data", engine.folder, "--by", "ann")
    assert code == 0, messages
    assert (told["answer"], told["status"]["phase"]) == ("accepted", "compensated")
    code, _, messages = call("retry", saga_id, "--data", engine.folder)
    assert code == 1
    assert json.loads(messages)["error"]["code"] == "ORDER_REFUSED"
    story = engine.sagas.history(saga_id)
    assert [row["by"] for row in story if row["event"] == "saga_resumed"] == ["ann"]


def test_a_parked_saga_is_skipped_with_a_note_and_lists_what_remains(engine: Engine) -> None:
    saga_id, note = parked_saga(engine)
    options = ("--data", engine.folder, "--note", "written off")
    code, told, messages = call("skip", saga_id, *options)
    note.unlink()
    assert code == 0, messages
    assert told["status"]["phase"] == "compensated"
    assert told["status"]["remaining"] == ["reserve_inventory"]


@pytest.mark.parametrize("order", ["cancel", "force"])
def test_a_saga_under_way_is_turned_back_by_hand(engine: Engine, order: str) -> None:
    body = engine.order()
    saga_id = f"{patient.name}:{body['order_id']}"
    note = engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
    engine.sagas.submit(patient, body, key=body["order_id"])
    until(lambda: ("process_payment", "action") in engine.effects(saga_id), "it was paid")
    options = ("--data", engine.folder, "--note", "called off", "--wait", 60)
    code, told, messages = call(order, saga_id, *options)
    note.unlink()
    assert code == 0, messages
    assert (told["answer"], told["status"]["code"]) == ("accepted", "CANCELLED")
    assert told["status"]["phase"] == "compensated"
    code, told, _ = call(order, saga_id, *options)
    assert (code, told["answer"]) == (0, "already")


def test_a_finished_saga_cannot_be_cancelled_by_hand(engine: Engine) -> None:
    body = engine.order()
    engine.sagas.submit(patient, body, key=body["order_id"]).result(timeout_s=60)
    code, _, messages = call(
        "cancel", f"{patient.name}:{body['order_id']}", "--data", engine.folder
    )
    assert code == 1
    assert json.loads(messages)["error"]["code"] == "CANCEL_TOO_LATE"


def test_watch_asks_an_engine_how_its_shards_and_participants_do(engine: Engine) -> None:
    order = engine.order()
    engine.sagas.submit(patient, order, key=order["order_id"]).result(60)
    code, look, _ = call("watch", "--data", engine.folder, "--count", 1)
    assert code == 0
    assert look["engine_answers"]
    assert [row["pid"] for row in look["shards"]] == [engine.pids()["shard/0"]]
    (shard,) = look["shards"]
    assert shard["epoch"] >= 1 and 0 < shard["map_used"] < shard["map_cap"]
    told = {row["name"]: row for row in look["participants"]}
    assert told.keys() >= set(SERVICES)
    assert all(row["circuit"] == "closed" and row["p50_ms"] > 0 for row in told.values())


def test_watch_tells_that_an_engine_stands_still(engine: Engine) -> None:
    """Goal: what the folder knows is told all the same, and nobody waits for long."""
    pid = engine.pids()["shard/0"]
    os.kill(pid, signal.SIGSTOP)
    try:
        code, look, _ = call("watch", "--data", engine.folder, "--count", 1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert (code, look["engine_running"], look["engine_answers"]) == (0, True, False)
    assert [row["pid"] for row in look["shards"]] == [pid]
    assert look["participants"] == []
