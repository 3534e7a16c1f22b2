"""Starts `journal_child.py`, talks to it, and makes sure that it is gone afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHILD = Path(__file__).with_name("journal_child.py")


class Child:
    """A running child.

    Attributes:
        process: Its process.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def hear(self) -> str:
        """Return its next line, empty when it is gone."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        """Give it a command, and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.hear()


@contextmanager
def running_child(path: Path, mode: str, *, under: Sequence[str] = ()) -> Iterator[Child]:
    """Run a child on the journal in `path`, under another program if need be."""
    process = subprocess.Popen(
        [*under, sys.executable, str(CHILD), str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()
