"""Tells an engine's shards and participants as rows, from what its shards say of themselves.

For the console and for `raysaga watch`. Times of participants are those of the last minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from raysaga.api.http.quantiles import Counts, grown, quantile_ms, summed

TIMES_OVER_LOOKS = 60
"""How many looks the times of participants are told of: a minute."""

Shard = Mapping[str, Any]
"""What one shard says of itself; see `Sagas.stats`."""


class AnswerTimes:
    """How long participants have taken to answer, over the last looks at the shards."""

    def __init__(self) -> None:
        """Begin with no look."""
        self._looks: deque[dict[str, Counts]] = deque(maxlen=TIMES_OVER_LOOKS)
        self._bounds_ms: list[int] = []

    def add(self, shards: Sequence[Shard]) -> None:
        """Take one look in."""
        steps = [row for shard in shards for row in shard["measures"]["steps"]]
        self._looks.append(summed(steps, "participant"))
        if shards:
            self._bounds_ms = shards[0]["measures"]["bounds_ms"]

    def of(self, participant: str) -> dict[str, float | None]:
        """Return the median, and the time within which 95 of 100 answers came."""
        if not self._looks or participant not in self._looks[-1]:
            return {"p50_ms": None, "p95_ms": None}
        last, first = self._looks[-1], self._looks[0]
        counts = grown({participant: last[participant]}, first)[participant]
        if not sum(counts) or last is first:
            counts = last[participant]
        return told_times(self._bounds_ms, counts)


def told_times(bounds_ms: Sequence[int], counts: Sequence[int]) -> dict[str, float | None]:
    """Return the median of a histogram, and the time within which 95 of 100 are."""
    return {
        "p50_ms": quantile_ms(bounds_ms, counts, 0.5),
        "p95_ms": quantile_ms(bounds_ms, counts, 0.95),
    }


def participant_rows(shards: Sequence[Shard], times: AnswerTimes) -> list[dict[str, Any]]:
    """Return each participant as each shard sees it, by name and shard."""
    rows = [
        {"name": name, "shard": shard["shard"], **facts, **times.of(name)}
        for shard in shards
        for name, facts in shard["participants"].items()
    ]
    return sorted(rows, key=lambda row: (row["name"], row["shard"]))


def commit_p99_ms(shard: Shard) -> float | None:
    """Return the time within which 99 of 100 commits of a shard were on disk."""
    commits = shard["commit_ms"]
    return quantile_ms(commits["bounds"], commits["counts"], 0.99)
