"""Proves that the doctor names what an engine would stumble over, and reads no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.storage.outbox import end_place, remove_bookmark, write_bookmark

Cli = Callable[..., Any]


def findings(cli: Cli, data: Path) -> dict[str, dict[str, Any]]:
    result = cli("doctor", "--data", data, "--json")
    assert result.exit_code in (0, 1), result.output
    told = json.loads(result.stdout)
    assert told["is_fit"] is (result.exit_code == 0)
    return {finding["name"]: finding for finding in told["findings"]}


def test_a_folder_that_is_not_there_yet_is_no_problem(cli: Cli, tmp_path: Path) -> None:
    found = findings(cli, tmp_path / "none" / "deeper")
    assert found["data folder"]["verdict"] == "ok"
    assert found["python"]["verdict"] == "ok"
    assert "lmdb " in found["packages"]["detail"]
    assert not (tmp_path / "none").exists()


def test_a_folder_in_use_is_looked_into(cli: Cli, keeper: Any) -> None:
    keeper.tell("o-1")
    keeper.close()
    found = findings(cli, keeper.path)
    assert found["journals"]["detail"].startswith("1 sagas, ")
    assert found["flush"]["detail"].endswith(" ms")
    assert found["engine"]["detail"] == "does not run"
    assert found["clock"]["verdict"] == "ok"
    before = sorted(path.name for path in keeper.path.iterdir())
    keeper.path.chmod(0o755)
    assert findings(cli, keeper.path)["data folder"]["verdict"] == "warn"
    assert sorted(path.name for path in keeper.path.iterdir()) == before


def test_a_clock_that_was_set_back_is_noticed(cli: Cli, keeper: Any) -> None:
    keeper.now_ms = time.time_ns() // 1_000_000 + 3_600_000
    keeper.tell("o-1")
    keeper.close()
    assert findings(cli, keeper.path)["clock"]["verdict"] == "warn"


def test_a_folder_that_cannot_be_used_fails_and_the_rest_is_still_told(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "raysaga.json").write_text("nonsense")
    result = cli("doctor", "--data", tmp_path)
    assert result.exit_code == 1
    assert "is damaged" in result.stdout.replace("\n", " ")
    assert "an engine cannot run safely here: data folder" in result.stderr
    assert "memory" in result.stdout


def test_only_the_mode_of_a_token_is_looked_at(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-of-the-cluster")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    for mode, verdict in ((0o644, "warn"), (0o600, "ok")):
        token.chmod(mode)
        result = cli("doctor", "--data", tmp_path / "none", "--json")
        told = {f["name"]: f for f in json.loads(result.stdout)["findings"]}
        assert told["ray token"]["verdict"] == verdict
        assert "s3cret" not in result.output
    token.unlink()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert findings(cli, tmp_path / "none")["ray token"]["verdict"] == "fail"


def test_python_without_assertions_is_not_fit(tmp_path: Path) -> None:
    program = "from raysaga.api.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-O", "-c", program, "doctor", "--data", str(tmp_path / "d"), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 1
    (python,) = [f for f in json.loads(done.stdout)["findings"] if f["name"] == "python"]
    assert python["verdict"] == "fail"


def test_outcomes_that_nobody_tells_any_more_are_noticed(cli: Cli, keeper: Any) -> None:
    """What was told, and what has just been decided, is nothing to worry about."""
    keeper.tell("o-1")
    keeper.close()
    journal = keeper.folder.journal_path(0)
    write_bookmark(journal, "gone", 1)
    found = findings(cli, keeper.path)["outbox"]
    assert (found["verdict"], "--name gone" in found["advice"]) == ("warn", True)
    write_bookmark(journal, "gone", 1_000)
    assert findings(cli, keeper.path)["outbox"]["verdict"] == "ok"
    remove_bookmark(journal, "gone")
    assert "outbox" not in findings(cli, keeper.path)
    keeper.now_ms = time.time_ns() // 1_000_000 - 60_000
    write_bookmark(journal, "slow", end_place_of(keeper))
    keeper.tell("o-2")
    keeper.close()
    found = findings(cli, keeper.path)["outbox"]
    assert (found["verdict"], found["detail"].startswith("slow: ")) == ("ok", True)
    assert "slow: 0" not in found["detail"]


def end_place_of(keeper: Any) -> int:
    journal = keeper.folder.open_journal(0, read_only=True)
    place: int = end_place(journal.environment)
    journal.close()
    return place
