"""ruff is told to refuse what the house forbids, and does.

Layout, docstrings and banned calls are ruff's work (`pyproject.toml`). These tests plant
what it must refuse, so that a setting that was dropped is noticed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = {
    "a module without a docstring": ("D100", "X = 1\n"),
    "a class without a docstring": ("D101", "class Order:\n    pass\n"),
    "a method without a docstring": (
        "D102",
        'class Order:\n    """An order."""\n\n    def ship(self) -> None:\n        pass\n',
    ),
    "a function without a docstring": ("D103", "def ship() -> None:\n    pass\n"),
    "a print": ("T201", 'print("done")\n'),
    "a blocking sleep": ("TID251", "import time\n\ntime.sleep(1)\n"),
    "a blocking sleep, imported": ("TID251", "from time import sleep\n\nsleep(1)\n"),
    "an event loop out of nowhere": ("TID251", "import asyncio\n\nasyncio.get_event_loop()\n"),
    "a pickle": ("TID251", "import pickle\n\npickle.dumps(1)\n"),
    "an evaluated text": ("S307", 'eval("1")\n'),
    "an executed text": ("S102", 'exec("1")\n'),
    "a bare except": ("E722", "try:\n    X = 1\nexcept:\n    X = 2\n"),
    "an exception passed over": ("S110", "try:\n    X = 1\nexcept Exception:\n    pass\n"),
    "any exception caught": ("BLE001", "try:\n    X = 1\nexcept Exception:\n    X = 2\n"),
    "a lint rule silenced as a whole": ("PGH004", "X = 1  # noqa\n"),
    "a type error silenced as a whole": ("PGH003", "X = 1  # type: ignore\n"),
    "a line of 101 columns": ("E501", f"X = '{'x' * 95}'\n"),
    "a default shared by all calls": ("B006", "def ship(items=[]) -> None:\n    pass\n"),
}


def refusals(root: Path, path: str, text: str) -> set[str]:
    """Return the codes of what ruff finds in `text`, were it the file `path`."""
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format=json", f"--stdin-filename={path}"],
        cwd=root,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    return {finding["code"] for finding in json.loads(run.stdout)}


@pytest.mark.parametrize("fault", PLANTED)
def test_what_the_house_forbids_is_refused(root: Path, fault: str) -> None:
    code, text = PLANTED[fault]
    assert code in refusals(root, "actors/planted.py", text)


def test_what_the_house_allows_passes(root: Path) -> None:
    text = '"""Says one."""\n\nONE = 1\n"""A number."""\n'
    assert refusals(root, "actors/planted.py", text) == set()


def test_no_folder_of_ours_is_hidden_from_the_linter(root: Path, folders: list[str]) -> None:
    """Only the links in the face are excluded; what they point to is not."""
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--show-files"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    seen = {Path(line).relative_to(root).parts[0] for line in run.stdout.splitlines()}
    assert {*folders, "raysaga", "tests"} <= seen
