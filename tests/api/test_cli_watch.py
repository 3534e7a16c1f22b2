"""What `raysaga watch` draws on a terminal, at any size of it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raysaga.actors.archive import Archive
from raysaga.api.cli_watch_screen import BARS, Screen, _sparks
from raysaga.statemachines.calls import Outcome


def stuck(step: str, undo: bool, _attempt: int) -> tuple[Outcome, str, str]:
    """Refuse the shipment, and never answer the refund."""
    if undo and step == "process_payment":
        return Outcome.UNKNOWN, "SERVICE_UNAVAILABLE", "down"
    refused = not undo and step == "schedule_shipping"
    return (Outcome.REFUSED, "NO_CARRIER", "full") if refused else (Outcome.SUCCEEDED, "", "")


@pytest.fixture
def data(keeper: Any) -> Path:
    """A folder with one saga done and one parked."""
    keeper.tell("done")
    keeper.tell("stuck", stuck)
    keeper.close()
    return Path(keeper.path)


SHARD = {"shard": 0, "pid": 4_711, "epoch": 3, "map_used": 5 << 20}
TOLD = {**SHARD, "map_cap": 50 << 20, "queued": 12, "overdue_ms": 1_400}
SERVED = {"shard": 0, "circuit": "closed", "in_flight": 7, "queued": 1_250, "timeouts": 2}
PARTICIPANTS = [
    {**SERVED, "name": name, "p50_ms": 12.3, "p95_ms": 1_200}
    for name in ("inventory", "notification", "payment", "shipping")
]


def drawn(data: Path, width: int, height: int, rates: tuple[float, ...], **engine: object) -> str:
    """Return the text of a screen of this size after some looks."""
    screen, out = Screen(), io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    with Archive.open(data) as archive:
        for rate in rates:
            look = {
                "at_ms": 1_700_000_000_000,
                "engine_running": False,
                "engine_answers": False,
                "shards": [{**SHARD, "pid": None}],
                "participants": [],
                "counts": archive.counts(),
                "begun_per_s": rate,
                "ended_per_s": rate / 2,
                "p50_ms": 62,
                "p95_ms": 1_250,
                **engine,
            }
            told = screen.drawn(
                look, list(archive.rows(limit=9)), list(archive.parked(9)), width=width
            )
    console.print(told, height=height)
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(140, 40), (100, 24), (80, 40)])
def test_the_screen_tells_counts_rates_newest_and_parked(
    data: Path, width: int, height: int
) -> None:
    text = drawn(data, width, height, (0.0, 4.0, 8.0))
    lines = text.splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    for word in (
        "no engine",
        "completed",
        "order:done",
        "order:stuck",
        "8.0/s",
        "62 ms",
        "1.25 s",
        "retry",
        "none",
        "5 MiB",
        "only an engine that runs on this machine can tell",
    ):
        assert word in text, word
    assert "1 wait for you" in text


@pytest.mark.parametrize(("width", "height"), [(140, 40), (100, 26), (80, 40)])
def test_the_screen_tells_shards_and_participants_of_an_engine(
    data: Path, width: int, height: int
) -> None:
    answers = {"engine_running": True, "engine_answers": True, "shards": [TOLD]}
    participants = [{**row} for row in PARTICIPANTS]
    participants[2]["circuit"] = "half_open"
    text = drawn(data, width, height, (1.0,), **answers, participants=participants)
    lines = text.splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    told = " ".join(text.replace("│", " ").split())
    assert "payment half open 7 1,250 12 ms 1.20 s" in told
    assert "0 4711 3 12 1.40 s 10%" in told
    assert "engine runs" in text and "notification" in text
    assert "order:done" in text and "order:stuck" in text


def test_each_shards_view_of_a_participant_is_told_as_such(data: Path) -> None:
    answers = {"engine_running": True, "engine_answers": True}
    shards = [TOLD, {**TOLD, "shard": 1}]
    participants = [{**PARTICIPANTS[0], "shard": shard} for shard in (0, 1)]
    text = drawn(data, 120, 30, (1.0,), **answers, shards=shards, participants=participants)
    assert "inventory of 0" in text and "inventory of 1" in text


def test_an_engine_that_does_not_answer_is_told_as_such(data: Path) -> None:
    text = drawn(data, 120, 30, (1.0,), engine_running=True, shards=[SHARD])
    assert "engine does not answer" in text and "4711" in text


def test_the_highest_rate_fills_its_column() -> None:
    assert _sparks([0.0, 0.1, 8.0, 4.0], columns=4).plain == " ▁█▄"
    assert _sparks([], columns=4).plain == "    "
    assert set(_sparks([3.0] * 9, columns=4).plain) == {BARS[-1]}


def test_on_a_real_terminal_it_fills_the_screen_and_gives_it_back(data: Path) -> None:
    """Method: run the command on a pseudo-terminal, and read what it wrote there."""
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("raysaga")
    command = [program, "watch", "--data", data, "--count", "2", "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    watching = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            chunk = os.read(ours, 65_536)
        except OSError:
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    assert watching.wait(30) == 0
    assert b"\x1b[?1049h" in written and b"\x1b[?1049l" in written
    assert "order:stuck" in written.decode()
