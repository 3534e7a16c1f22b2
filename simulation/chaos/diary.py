"""What callers asked and were told, one line each, in files that survive whoever wrote them.

Guarantees: a line is with the kernel before what it tells of is asked; a killed caller has asked
for nothing that is not in his diary, and may have been told more than is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raysaga.simulation.chaos.fault import now_ms
from raysaga.simulation.history import Asked, Told


class Diary:
    """One process's diary."""

    def __init__(self, folder: Path, life: int) -> None:
        path = folder / f"{life:04d}-{os.getpid()}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def asked(self, caller: str, operation: str, saga_id: str, **facts: Any) -> None:
        """Note what is about to be asked."""
        self._note(["asked", now_ms(), caller, operation, saga_id, facts])

    def told(self, caller: str, operation: str, saga_id: str, kind: str, **facts: Any) -> None:
        """Note what was answered: `ok`, `error`, `ended`, or `lost` if nobody will know."""
        self._note(["told", now_ms(), caller, operation, saga_id, kind, facts])

    def _note(self, line: list[Any]) -> None:
        os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read_lines(paths: Iterator[Path]) -> Iterator[Any]:
    """Yield the lines of files of JSON; one that was cut off by a kill is left out."""
    for path in sorted(paths):
        with path.open("rb") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def read_diaries(folder: Path) -> Iterator[Asked | Told]:
    """Yield all that was noted, diary by diary."""
    for kind, *fields in read_lines(folder.glob("*.jsonl")):
        yield Asked(*fields) if kind == "asked" else Told(*fields)


def unfinished(folder: Path) -> tuple[dict[str, Mapping[str, Any]], int]:
    """Return the submissions that were asked and whose end was never told, and how many there were.

    By saga, the facts of the first asking.
    """
    open_sagas: dict[str, Mapping[str, Any]] = {}
    settled: set[str] = set()
    numbers = 0
    for line in read_diaries(folder):
        if line.operation != "submit":
            continue
        if isinstance(line, Asked):
            open_sagas.setdefault(line.saga_id, line.facts)
            numbers = max(numbers, int(line.facts.get("number", 0)))
        elif line.kind in ("ended", "error"):
            settled.add(line.saga_id)
    return {s: facts for s, facts in open_sagas.items() if s not in settled}, numbers
