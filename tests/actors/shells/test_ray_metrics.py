"""Ray's counters are told what is new since the last time, and its gauges what is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from raysaga.actors.metric_rows import Kind, Metric, Sample
from raysaga.actors.shells import ray_metrics
from raysaga.actors.shells.ray_metrics import RayMetrics

Told = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What Ray knows by now; its own metrics cannot be read back."""
    known: Told = {}

    class Recorded:
        def __init__(self, name: str, _what: str, *, tag_keys: tuple[str, ...]) -> None:
            self.name, self.tag_keys = name, tag_keys

        def inc(self, value: float, tags: Mapping[str, str]) -> None:
            assert value > 0 and tuple(tags) == self.tag_keys
            place = self.name, frozenset(tags.items())
            known[place] = known.get(place, 0.0) + value

        def set(self, value: float, tags: Mapping[str, str]) -> None:
            assert tuple(tags) == self.tag_keys
            known[self.name, frozenset(tags.items())] = value

    monkeypatch.setattr(ray_metrics, "Counter", Recorded)
    monkeypatch.setattr(ray_metrics, "Gauge", Recorded)
    return known


def rows(accepted: float, queued: float, times: tuple[int, ...]) -> list[Metric]:
    """Return one metric of each kind."""
    histogram = Sample(("0",), sum(times) / 10, (0.1,), times)
    return [
        Metric("saga_accepted", Kind.COUNTER, "x", ("shard",), [Sample(("0",), accepted)]),
        Metric("shard_queue_depth", Kind.GAUGE, "x", ("shard",), [Sample(("0",), queued)]),
        Metric("journal_commit_seconds", Kind.HISTOGRAM, "x", ("shard",), [histogram]),
    ]


def test_counters_grow_by_what_is_new_and_gauges_follow(told: Told) -> None:
    looks: list[Any] = [rows(0, 9, (0, 0)), rows(3, 4, (2, 0)), rows(3, 0, (2, 3))]
    metrics = RayMetrics(lambda: looks.pop(0), 1_000)
    of_shard = frozenset({("shard", "0")})
    metrics.tell()
    assert told == {("shard_queue_depth", of_shard): 9}
    metrics.tell()
    metrics.tell()
    assert told == {
        ("saga_accepted_total", of_shard): 3,
        ("shard_queue_depth", of_shard): 0,
        ("journal_commit_seconds_count", of_shard): 5,
        ("journal_commit_seconds_sum", of_shard): pytest.approx(0.5),
    }


async def test_without_the_wish_nothing_is_looked_at(told: Told) -> None:
    def never() -> list[Metric]:
        raise AssertionError

    metrics = RayMetrics(never, 0)
    metrics.start()
    metrics.stop()
    assert told == {}
