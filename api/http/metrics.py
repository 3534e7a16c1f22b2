"""Tells the engine's counts in the text format of Prometheus.

Guarantees: what `metric_rows` guarantees. Nothing is kept between two scrapes.
Costs: one question to each shard and to each participant.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

import raysaga
from raysaga.actors.metric_rows import Kind, Metric, Sample, participant_metrics, shard_metrics

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]


class _Rows(Collector):
    """What one scrape tells."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Family]:
        """Yield every metric."""
        return map(_family, self._metrics)


def _family(metric: Metric) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        times = HistogramMetricFamily(metric.name, metric.what, labels=metric.labels)
        for sample in metric.samples:
            bounds = [*map(str, sample.bounds), "+Inf"]
            buckets = list(zip(bounds, accumulate(sample.counts), strict=True))
            times.add_metric(sample.labels, buckets, sample.value)
        return times
    of_kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = of_kind(metric.name, metric.what, labels=metric.labels)
    for sample in metric.samples:
        family.add_metric(sample.labels, sample.value)
    return family


def _of_folder(
    oldest: Mapping[str, int | None], parked: Mapping[str, int], is_running: bool
) -> Iterable[Metric]:
    """Yield what needs no engine to be told."""
    version = Sample((raysaga.__version__,), 1)
    yield Metric("build_info", Kind.GAUGE, "The version.", ("version",), [version])
    up = Sample((), int(is_running))
    yield Metric("engine_up", Kind.GAUGE, "Whether the engine answers.", (), [up])
    now_ms = time.time_ns() // 1_000_000
    ages = [
        Sample((state,), 0 if since_ms is None else max(0, now_ms - since_ms) / 1_000)
        for state, since_ms in oldest.items()
    ]
    what = "Age of the oldest one."
    yield Metric("saga_oldest_in_flight_seconds", Kind.GAUGE, what, ("state",), ages)
    waiting = [Sample((reason,), count) for reason, count in parked.items()]
    yield Metric("saga_parked", Kind.GAUGE, "Wait for a person.", ("reason",), waiting)


def exposition(
    shards: Sequence[Mapping[str, Any]],
    participants: Mapping[str, Mapping[str, Any]],
    *,
    oldest: Mapping[str, int | None],
    parked: Mapping[str, int],
    is_running: bool,
) -> bytes:
    """Return everything as text.

    Args:
        shards: What each shard says of itself; none if the engine does not answer.
        participants: What each participant that answers says of itself, by name.
        oldest: By phase that is not an end, when its oldest saga was accepted.
        parked: By reason, how many sagas wait for a person.
        is_running: Whether the engine answers.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rows(_of_folder(oldest, parked, is_running)))
    registry.register(_Rows(shard_metrics(shards)))
    registry.register(_Rows(participant_metrics(participants)))
    return generate_latest(registry)
