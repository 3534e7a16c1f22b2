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


def drawn(data: Path, width: int, height: int, rates: tuple[float, ...]) -> str:
    """Return the text of a screen of this size after some looks."""
    screen, out = Screen(), io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    with Archive.open(data) as archive:
        for rate in rates:
            look = {
                "at_ms": 1_700_000_000_000,
                "engine_running": False,
                "counts": archive.counts(),
                "begun_per_s": rate,
                "ended_per_s": rate / 2,
                "p50_ms": 62,
                "p95_ms": 1_250,
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
    ):
        assert word in text, word
    assert "1 wait for you" in text


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
