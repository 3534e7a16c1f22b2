"""Reads times off histograms: of a minute, from counts that only grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Counts = tuple[int, ...]


def quantile_ms(bounds_ms: Sequence[int], counts: Sequence[int], share: float) -> float | None:
    """Return the time within which `share` of all were over; None if there were none.

    Within a bucket the times are taken to be spread evenly; beyond the last bound they
    are told as that bound.
    """
    wanted = share * sum(counts)
    if wanted <= 0:
        return None
    below, low_ms = 0, 0
    for bound_ms, count in zip(bounds_ms, counts, strict=False):
        if below + count >= wanted and count:
            return round(low_ms + (bound_ms - low_ms) * (wanted - below) / count, 1)
        below, low_ms = below + count, bound_ms
    return float(bounds_ms[-1])


def grown(now: Mapping[str, Counts], then: Mapping[str, Counts]) -> dict[str, Counts]:
    """Return by name what was counted between two looks.

    A count that has become smaller began anew, with its host.
    """
    found = {}
    for name, counts in now.items():
        before = then.get(name, (0,) * len(counts))
        change = tuple(a - b for a, b in zip(counts, before, strict=True))
        found[name] = counts if min(change) < 0 else change
    return found


def summed(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, Counts]:
    """Return the counts of rows of `Measures`, added up by what each says under `name`."""
    found: dict[str, Counts] = {}
    for row in rows:
        before = found.get(row[name], (0,) * len(row["counts"]))
        found[row[name]] = tuple(a + b for a, b in zip(before, row["counts"], strict=True))
    return found
