"""The examples run as they stand, as a newcomer would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_trip_example_books_two_rooms_and_changes_nothing_when_run_again(
    tmp_path: Path,
) -> None:
    runs = [
        subprocess.run(
            [sys.executable, str(EXAMPLES / "trip.py")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout.splitlines() == [
        "ada completed  ",
        "grace completed  ",
        "edsger compensated NO_ROOM both rooms are taken",
    ]
    assert runs[1].stdout == runs[0].stdout
