"""The import rules of `setup.cfg` hold, and each of them bites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = {
    "an upward import": (
        "storage/journal.py",
        "import raysaga.actors",
        "Imports point down",
    ),
    "a clock in the core": ("statemachines/retry.py", "import time", "no I/O, no clock"),
    "chance in the core": ("statemachines/ids.py", "import random", "no I/O, no clock"),
    "the event loop in the core": ("statemachines/saga.py", "import asyncio", "no I/O, no clock"),
    "Ray in the host": ("actors/host.py", "import ray", "Each driver has one door"),
    "Ray in the client": ("api/order_schema.py", "import ray", "Each driver has one door"),
    "LMDB beside its door": ("storage/errors.py", "import lmdb", "Each driver has one door"),
    "the library of machines beside its door": (
        "statemachines/tables.py",
        "import transitions",
        "Each driver has one door",
    ),
    "a shell in the host": (
        "actors/host.py",
        "import raysaga.actors.shells",
        "Ray is a shell",
    ),
    "a shell in the client": (
        "api/order_schema.py",
        "import raysaga.actors.shells",
        "api reaches sagas through the gateway",
    ),
    "a journal in the client": (
        "api/order_schema.py",
        "import raysaga.storage.journal",
        "api reaches sagas through the gateway",
    ),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the tree in `folder`."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_import_rules_hold(root: Path) -> None:
    run = lint_imports(root)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_import_breaks_its_rule(copied_tree: Path, fault: str) -> None:
    path, line, rule = PLANTED[fault]
    planted = copied_tree / path
    assert planted.is_file()
    with planted.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    run = lint_imports(copied_tree)
    broken = [row for row in run.stdout.splitlines() if " BROKEN" in row]
    assert run.returncode != 0
    assert any(rule in row for row in broken), run.stdout + run.stderr


def test_each_folder_of_the_face_stands_in_the_layers(root: Path, folders: list[str]) -> None:
    config = (root / "setup.cfg").read_text(encoding="utf-8")
    layers = config.split("[importlinter:contract:layers]")[1].split("[")[0]
    named = {line.strip() for line in layers.replace("|", "\n").splitlines()}
    assert len(folders) >= 5
    assert {f"raysaga.{folder}" for folder in folders} <= named
