"""A short run of real chaos from the command line; and what altered evidence of it shows."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from raysaga.simulation.chaos.aside import problems_of
from raysaga.simulation.chaos.diary import read_diaries
from raysaga.simulation.chaos.evidence import Evidence, gather
from raysaga.simulation.chaos.flipped_bit import FlippedBit
from raysaga.simulation.chaos.readings import READINGS
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.checker import check
from raysaga.simulation.history import Effect, Observation, Reading
from raysaga.statemachines.tables import TERMINAL
from raysaga.storage.data_folder import DataFolder, previous_owner

pytestmark = pytest.mark.cluster

FAULTS = "kill-shard,kill-service,wake-zombie,hot-item,replay"
SEED = 3


def is_callers(pid: int) -> bool:
    """Return whether a process is one of callers; its number may be another's by now."""
    try:
        return "raysaga.simulation.chaos.callers" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the report of a run of some twenty seconds."""
    folder = tmp_path_factory.mktemp("chaos") / "report"
    command = [
        "chaos",
        "--minutes",
        "0.35",
        "--seed",
        str(SEED),
        "--rate",
        "30",
        "--faults",
        FAULTS,
    ]
    program = Path(sys.executable).with_name("raysaga")
    run = subprocess.run(
        [str(program), *command, "--report", str(folder), "--keep", "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-4_000:]
    return folder, json.loads(run.stdout)


def test_a_run_breaks_things_and_keeps_every_promise(report: tuple[Path, dict[str, Any]]) -> None:
    folder, found = report
    assert found["violations"] == []
    assert found["sagas"] > 0
    assert any(row["bit"] for row in found["faults"])
    checked = {row["name"]: row["checked"] for row in found["invariants"]}
    assert all(checked[f"I{n}"] for n in range(1, 15)), checked
    page = (folder / "report.html").read_text()
    assert "Every promise was kept" in page
    assert "<svg" in page
    assert json.loads((folder / "certificate.json").read_text())["seed"] == SEED


def test_no_process_of_a_run_is_left(report: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = report
    data = DataFolder.open(folder / "run" / "data", shard_count=None, create=False)
    paths = [data.journal_path(shard) for shard in range(data.shard_count)]
    paths += [data.service_path(name) for name in data.service_names()]
    assert [path.name for path in paths if previous_owner(path) is not None] == []
    callers = [int(path.stem.split("-")[1]) for path in (folder / "run" / "callers").iterdir()]
    assert callers
    assert [pid for pid in callers if is_callers(pid)] == []


@pytest.fixture
def evidence(report: tuple[Path, dict[str, Any]]) -> Evidence:
    """What the run has left, gathered anew."""
    folder, _ = report
    found = gather(
        folder / "run",
        [],
        began_at_ms=0,
        healed_at_ms=0,
        ended_at_ms=0,
        late=[],
        unserved=[],
        left_over=[],
        ray_logs=[],
        poison=frozenset(),
    )
    assert check(found.seen) == []
    return found


def broken(seen: Observation) -> set[str]:
    return {violation.invariant for violation in check(seen)}


def some(seen: Observation, phase: str) -> str:
    """Return a saga that ended so."""
    return next(s for s, r in seen.readings.items() if r is not None and r.phase == phase)


def test_an_effect_that_is_gone_is_found(evidence: Evidence) -> None:
    saga_id = some(evidence.seen, "completed")
    evidence.seen.lines = [
        line
        for line in evidence.seen.lines
        if not (
            isinstance(line, Effect) and (line.saga_id, line.step) == (saga_id, "process_payment")
        )
    ]
    assert "I1" in broken(evidence.seen)


def test_an_effect_that_happened_twice_is_found(evidence: Evidence) -> None:
    seen = evidence.seen
    at = next(i for i, line in enumerate(seen.lines) if isinstance(line, Effect))
    seen.lines.insert(at, seen.lines[at])
    assert "I4" in broken(seen)


def test_a_saga_that_is_lost_is_found(evidence: Evidence) -> None:
    evidence.seen.readings[some(evidence.seen, "completed")] = None
    assert "I5" in broken(evidence.seen)


def test_another_end_than_was_told_is_found(evidence: Evidence) -> None:
    saga_id = some(evidence.seen, "completed")
    evidence.seen.readings[saga_id] = Reading("compensated", "CANCELLED", (), True)
    assert {"I1", "I8"} <= broken(evidence.seen)


def test_what_callers_noted_and_what_was_read_is_kept(report: tuple[Path, dict[str, Any]]) -> None:
    folder, found = report
    assert len(json.loads((folder / "run" / READINGS).read_text())) >= found["sagas"]
    assert any(True for _ in read_diaries(folder / "run" / "callers"))


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_is_told_of_its_saga_alone_until_it_is_put_back(
    report: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    shutil.copytree(report[0] / "run" / "data", tmp_path / "data")
    stage = Stage(tmp_path, {})
    bit = FlippedBit.draw(stage.data(), TERMINAL, random.Random(seed))
    bit.flip()
    (problem,) = problems_of(stage)
    assert f" {bit.saga_id}: record " in problem
    bit.put_back()
    assert list(problems_of(stage)) == []
