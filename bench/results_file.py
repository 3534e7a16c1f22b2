"""Reads lines of results, and knows which of them tell of the same thing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysaga.statemachines.errors import ValidationError

IDENTITY = (
    "workload",
    "peer",
    "transport",
    "profiled",
    "strategy",
    "skew",
    "think_ms",
    "durability",
    "hosting",
    "shards",
    "loop",
    "in_flight",
    "rate_per_s",
    "sagas",
    "waiting",
    "kill",
    "engine",
    "compiled",
)
"""Facts that tell what was measured; lines that agree in them can be compared."""

_USUAL = {
    "durability": "pipelined",
    "hosting": "shared",
    "shards": 1,
    "loop": "closed",
    "compiled": False,
}
"""What need not be said."""

Line = Mapping[str, Any]


def read_lines(paths: Iterable[Path]) -> list[Line]:
    """Return the lines of the files, oldest first.

    Raises:
        ValidationError: If a line is no JSON object.
        OSError: If a file cannot be read.
    """
    found: list[Line] = []
    for path in paths:
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValidationError(f"{path}:{number} is no JSON", "results") from error
            if not isinstance(line, dict) or "at" not in line:
                raise ValidationError(f"{path}:{number} is no line of results", "results")
            found.append({"workload": "happy", "loop": "closed", "compiled": False, **line})
    return sorted(found, key=lambda line: str(line["at"]))


def identity(line: Line) -> tuple[tuple[str, Any], ...]:
    """Return what a line is about."""
    return tuple(
        (name, json.dumps(line[name], sort_keys=True)) for name in IDENTITY if name in line
    )


def shown(line: Line) -> str:
    """Return what a line is about, for people."""
    parts = [str(line["workload"])]
    for name in IDENTITY[1:]:
        value = line.get(name)
        if value in (None, {}) or value == _USUAL.get(name):
            continue
        words = name.replace("_", " ")
        parts.append(value if isinstance(value, str) else f"{value} {words}")
    return ", ".join(parts)


def newest(lines: Sequence[Line], workload: str, **wanted: Any) -> list[Line]:
    """Return the newest line for each thing of a workload that was measured, as asked."""
    found: dict[Any, Line] = {}
    for line in lines:
        if line["workload"] == workload and all(line.get(k) == v for k, v in wanted.items()):
            found[identity(line)] = line
    return list(found.values())


def by_durability(lines: Sequence[Line]) -> list[Line]:
    """Return what the newest command measured that compared durabilities: all of it."""
    strict = newest(lines, "happy", durability="strict", loop="closed", hosting="shared")
    if not strict:
        return []
    command = max(strict, key=lambda line: str(line["at"]))["command"]
    return newest(lines, "happy", command=command)


def values(line: Line, figure: str) -> list[float]:
    """Return a figure of each repetition; the only one there is, if they were not kept."""
    each = line.get(f"{figure}_each")
    if each:
        return [float(value) for value in each]
    ends = (f"{figure}_min", figure, f"{figure}_max")
    return [float(line[name]) for name in ends if isinstance(line.get(name), int | float)]
