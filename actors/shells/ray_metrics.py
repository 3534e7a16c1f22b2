"""Tells a shard's or a participant's counts to Ray's own metrics, again and again.

For clusters whose Prometheus scrapes Ray's agents; names are those of `/metrics`, and Ray puts
`ray_` before each. Off unless `ray_metrics_ms` says how often.

Guarantees: what is told is what `metric_rows` tells. Ray's histograms take single values and no
counts, so a histogram is told as two counters, `_count` and `_sum`.
Refuses nothing. Costs: one look at the counts each time, and nothing between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from ray.util.metrics import Counter, Gauge

from raysaga.actors.metric_rows import Kind, Metric

Tags = tuple[str, tuple[str, ...]]


class RayMetrics:
    """What one process has told Ray."""

    def __init__(self, rows: Callable[[], Iterable[Metric]], every_ms: int) -> None:
        """Make one.

        Args:
            rows: Looks at the counts.
            every_ms: Pause between two looks; 0 for no look at all.
        """
        self._rows = rows
        self._every_ms = every_ms
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._told: dict[Tags, float] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, if it is wanted; needs a running event loop."""
        if self._every_ms:
            self._task = asyncio.get_running_loop().create_task(self._tell_for_ever())
            self._task.add_done_callback(_tell_defect)

    def stop(self) -> None:
        """Tell no more."""
        if self._task is not None:
            self._task.cancel()

    async def _tell_for_ever(self) -> None:
        while True:
            self.tell()
            await asyncio.sleep(self._every_ms / 1_000)

    def tell(self) -> None:
        """Look, and tell what is new."""
        for metric in self._rows():
            for sample in metric.samples:
                if metric.kind is Kind.GAUGE:
                    gauge = self._gauges.get(metric.name)
                    if gauge is None:
                        gauge = Gauge(metric.name, metric.what, tag_keys=metric.labels)
                        self._gauges[metric.name] = gauge
                    gauge.set(sample.value, dict(zip(metric.labels, sample.labels, strict=True)))
                elif metric.kind is Kind.COUNTER:
                    self._count(f"{metric.name}_total", metric, sample.labels, sample.value)
                else:
                    self._count(f"{metric.name}_count", metric, sample.labels, sum(sample.counts))
                    self._count(f"{metric.name}_sum", metric, sample.labels, sample.value)

    def _count(self, name: str, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        grown = value - self._told.get((name, labels), 0.0)
        if grown <= 0:
            # Ray's counters refuse to be told of nothing.
            return
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = Counter(name, metric.what, tag_keys=metric.labels)
        counter.inc(grown, dict(zip(metric.labels, labels, strict=True)))
        self._told[name, labels] = value


def _tell_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        structlog.get_logger().error("ray_metrics_stopped", exc_info=task.exception())
