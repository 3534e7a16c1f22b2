"""The examples run as they stand, as a newcomer would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_twice(name: str, folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run an example two times in `folder`; both must succeed."""
    runs = [
        subprocess.run(
            [sys.executable, str(EXAMPLES / name)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    return runs


def test_the_blocking_example_tells_outcomes_and_raises_the_one_that_is_no_success(
    tmp_path: Path,
) -> None:
    for run in run_twice("place_many_orders.py", tmp_path):
        assert run.stdout.splitlines() == [
            "settled: 10",
            "PAYMENT_DECLINED False process_payment",
        ]


def test_the_trip_example_books_where_there_is_room_and_money_and_nothing_when_run_again(
    tmp_path: Path,
) -> None:
    runs = run_twice("trip.py", tmp_path)
    assert runs[0].stdout.splitlines() == [
        "ada completed  ",
        "alan compensated INSUFFICIENT_FUNDS alan cannot pay 200000",
        "grace completed  ",
        "edsger compensated SOLD_OUT FRA-LIS is sold out",
    ]
    assert runs[1].stdout == runs[0].stdout
