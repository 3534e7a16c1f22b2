"""Says what has changed between two sets of results, beyond noise.

The rule. Two figures differ if no repetition of one lies within the range of the other's
repetitions, and their medians are more than `CHANGE_MIN` apart. Both are needed: on a quiet
machine ranges are narrow and a difference of two percent means little to anybody; on a noisy
one medians wander, and then the ranges overlap. With three repetitions on each side ranges
that have nothing to do with each other stay apart by chance in one case of ten; with five,
in one of 126. So use five where it matters. Figures with one repetition are not judged.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.bench.results_file import Line, identity, read_lines, shown, values
from raysaga.statemachines.errors import ValidationError

CHANGE_MIN = 0.05
"""Least change of a median that is told."""

FIGURES: Mapping[str, bool] = {
    "sagas_per_s": True,
    "p50_ms": False,
    "p99_ms": False,
    "cpu_ms_per_saga": False,
    "us_per_step": False,
    "host_bytes_per_waiting_saga": False,
    "seconds_until_all_have_ended": False,
}
"""Figure to whether more of it is better."""


class Change(NamedTuple):
    """One figure of one thing that was measured in both sets.

    Attributes:
        what: What was measured, for people.
        figure: Its name.
        before: Median in the first set.
        after: Median in the second.
        verdict: `better`, `worse`, `same`, or `once` if a side has one repetition only.
    """

    what: str
    figure: str
    before: float
    after: float
    verdict: str


def compare(before: Sequence[Line], after: Sequence[Line]) -> Iterator[Change]:
    """Yield a change for each figure that both sets have, also where nothing has changed."""
    old, new = _grouped(before), _grouped(after)
    for key, lines in new.items():
        if key not in old:
            continue
        for figure, more_is_better in FIGURES.items():
            was = [value for line in old[key] for value in values(line, figure)]
            now = [value for line in lines for value in values(line, figure)]
            if was and now:
                middle = statistics.median(was), statistics.median(now)
                verdict = judged(was, now, more_is_better=more_is_better)
                yield Change(shown(lines[-1]), figure, *middle, verdict)


def judged(was: Sequence[float], now: Sequence[float], *, more_is_better: bool) -> str:
    """Return the verdict on two sets of repetitions; see the head of this module."""
    if min(len(was), len(now)) < 2:
        return "once"
    before, after = statistics.median(was), statistics.median(now)
    overlaps = min(was) <= max(now) and min(now) <= max(was)
    if overlaps or before == 0 or abs(after - before) / before <= CHANGE_MIN:
        return "same"
    return "better" if (after > before) is more_is_better else "worse"


def _grouped(lines: Sequence[Line]) -> dict[Any, list[Line]]:
    found: dict[Any, list[Line]] = defaultdict(list)
    for line in lines:
        found[identity(line)].append(line)
    return found


def lines_of(name: str, folder: Path) -> list[Line]:
    """Return the lines that `name` means: a file, or a commit's among the files of `folder`.

    Raises:
        ValidationError: If there are none.
    """
    if Path(name).is_file():
        return read_lines([Path(name)])
    lines = read_lines(sorted(folder.glob("*.jsonl")))
    found = [line for line in lines if str(line.get("commit", "")).startswith(name)]
    if not found:
        raise ValidationError(f"{name} is no file, and no commit with results in {folder}", "NAME")
    return found
