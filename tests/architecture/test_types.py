"""mypy sees through the symbolic links: an error planted in each folder is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_mypy_checks_every_installed_folder(copied_tree: Path, folders: list[str]) -> None:
    """A checker that skipped a linked folder would report no error in it.

    Method: append an assignment of the wrong type to one module of each folder of a
    copy, check the copy as `make types` does, and look for each of them.
    """
    for folder in folders:
        with (copied_tree / folder / "__init__.py").open("a", encoding="utf-8") as file:
            file.write('\nPLANTED: int = "text"\n')
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "-p", "raysaga", "--no-error-summary"],
        cwd=copied_tree,
        capture_output=True,
        text=True,
        check=False,
    )
    for folder in folders:
        assert f"raysaga/{folder}/__init__.py" in run.stdout, run.stdout + run.stderr
