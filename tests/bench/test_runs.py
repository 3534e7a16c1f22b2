"""The runner at work on real engines, in short; what its figures are does not matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raysaga.bench.judge import RunRefusedError
from raysaga.bench.measure import Load
from raysaga.bench.orders import ordinary
from raysaga.bench.peers.homes import home_of
from raysaga.bench.peers.run import run_peer
from raysaga.bench.session import Cell, run_cells
from raysaga.bench.skeleton import Skeleton
from raysaga.bench.workloads import happy

RAYSAGA = str(Path(sys.executable).with_name("raysaga"))

pytestmark = pytest.mark.cluster


def bench(*options: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [RAYSAGA, "bench", *options, "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_workload_gives_one_line_whose_rate_is_the_median(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    short = ("--in-flight", "8", "--seconds", "0.3", "--repetitions", "3", "--data", str(tmp_path))
    happy_line, steps_line = bench(
        "--workload", "happy", "--workload", "steps-10", *short, "--results", str(results)
    )
    assert [json.loads(line) for line in results.read_text().splitlines()] == [
        happy_line,
        steps_line,
    ]
    rates = sorted(happy_line["sagas_per_s_each"])  # type: ignore[call-overload]
    assert len(rates) == 3
    assert happy_line["sagas_per_s"] == rates[1]
    assert happy_line["completed"] == happy_line["ended"]
    assert (happy_line["audit"], happy_line["transitions_per_saga"]) == ("clean", 9.0)
    by_process = happy_line["cpu_ms_per_saga_by_process"]
    assert {"shard/0", "inventory", "payment", "shipping", "notification", "caller"} <= set(
        by_process  # type: ignore[call-overload]
    )
    assert steps_line["us_per_step"]
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"], "no folder is left"


def test_one_process_alone_has_a_figure_that_is_audited_as_well(tmp_path: Path) -> None:
    short = ("--in-flight", "8", "--seconds", "0.3", "--repetitions", "1", "--data", str(tmp_path))
    (line,) = bench("--workload", "one-process", *short)
    assert line["completed"] == line["ended"] > 0  # type: ignore[operator]
    assert (line["audit"], line["in_flight"]) == ("clean", 8)
    assert line["cpu_ms_per_saga"] > 0  # type: ignore[operator]


def test_bare_bones_have_a_figure_for_which_every_row_is_there(tmp_path: Path) -> None:
    short = ("--in-flight", "8", "--seconds", "0.3", "--repetitions", "1", "--data", str(tmp_path))
    (line,) = bench("--workload", "skeleton", *short)
    assert line["completed"] == line["ended"] > 0  # type: ignore[operator]
    assert (line["audit"], line["in_flight"]) == ("rows agree", 8)
    by_process = line["cpu_ms_per_saga_by_process"]
    assert {"shard/0", "inventory", "payment", "shipping", "notification", "caller"} <= set(
        by_process  # type: ignore[call-overload]
    )


async def test_bare_bones_that_lose_a_process_have_no_figure(tmp_path: Path) -> None:
    bones = Skeleton(tmp_path / "bones")
    try:
        await bones.start()
        assert await bones.caller.order(1, *ordinary(1, "s")) == "completed"
        bones.processes["payment"].kill()
        with pytest.raises(RunRefusedError, match="has ended"):
            await bones.caller.order(2, *ordinary(2, "s"))
    finally:
        bones.stop()


def test_bare_actors_are_timed_until_the_last_is_back() -> None:
    (line,) = bench("--workload", "bare-actors", "--repetitions", "1")
    assert line["actors"] == 6
    assert line["seconds_until_all_answer"] > 0  # type: ignore[operator]


def test_sagas_end_after_everything_was_killed_below_a_ray_that_stands() -> None:
    (line,) = bench("--workload", "recovery-standing", "--sagas", "60", "--repetitions", "1")
    assert (line["processes_killed"], line["audit"], line["audit_sagas"]) == (6, "clean", 60)
    assert line["timeline"][-1][1] == 60  # type: ignore[index]


async def test_a_run_whose_sagas_end_as_they_must_not_has_no_figure(tmp_path: Path) -> None:
    workload = replace(happy(), ends=frozenset({"compensated"}))
    with pytest.raises(RunRefusedError, match="ended completed"):
        await run_cells(tmp_path / "data", [Cell(workload, Load(2, 0.2))], repetitions=1)


def test_a_peer_is_driven_in_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = home_of("sqlite")
    assert home_of("sqlite") == home
    run = run_peer("sqlite-group", home, tmp_path, 8, 0.3, 10)
    assert run["audit"] == "counts agree"
    assert run["completed"] > run["compensated"] > 0
    assert set(run["cpu_ms_per_saga_by_process"]) == {"driver"}
