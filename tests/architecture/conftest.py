"""What the tests of the house look at: every text file of the repository, read once.

Folders that are symbolic links are not entered: `raysaga/storage` is `storage`, seen twice.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FACE = "raysaga"
SUFFIXES = {".py", ".md", ".cfg", ".toml", ".txt", ".json", ".jsonl", ".html", ".js", ".css"}
BARE_NAMES = {"Makefile", "LICENSE", "run", ".gitignore"}
NOT_OURS = {"build", "dist", "__pycache__"}


class Source(NamedTuple):
    """One Python file: its path from the root of the repository, its text, its tree."""

    path: str
    text: str
    tree: ast.Module


def _text_files() -> Iterator[Path]:
    for folder, subfolders, names in os.walk(ROOT):
        here = Path(folder)
        subfolders[:] = [
            name
            for name in subfolders
            if name not in NOT_OURS
            and (not name.startswith(".") or name == ".ci")
            and not name.endswith((".egg-info", "-data"))
            and not (here / name).is_symlink()
        ]
        for name in names:
            if Path(name).suffix in SUFFIXES or name in BARE_NAMES:
                yield here / name


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def folders() -> list[str]:
    """The folders that are installed: those that the face has a link to."""
    return sorted(entry.name for entry in (ROOT / FACE).iterdir() if entry.is_symlink())


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """Every text file of the repository by its path from the root."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(_text_files())
    }


@pytest.fixture(scope="session")
def python_files(texts: dict[str, str]) -> list[Source]:
    """Every Python file of the repository, tests and examples included."""
    return [
        Source(path, text, ast.parse(text, path))
        for path, text in texts.items()
        if path.endswith(".py")
    ]


@pytest.fixture(scope="session")
def sources(python_files: list[Source], folders: list[str]) -> list[Source]:
    """The Python files that are installed."""
    installed = {*folders, FACE}
    return [source for source in python_files if source.path.split("/")[0] in installed]


@pytest.fixture
def copied_tree(tmp_path: Path, folders: list[str]) -> Path:
    """A copy of what is installed and of what configures it, to plant faults in."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for folder in (*folders, FACE):
        shutil.copytree(
            ROOT / folder,
            tree / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    return tree
