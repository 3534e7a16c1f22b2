"""Tells the engine's counts in the text format of Prometheus.

Guarantees: names and labels are few and fixed; no id of a saga or a caller is ever a label.
Counters are those of each shard's host since it started, so that a restart shows as one.
Costs: one question to each shard. Nothing is kept between two scrapes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

import raysaga
from raysaga.statemachines.tables import TERMINAL, Phase

__all__ = ["CONTENT_TYPE_LATEST", "exposition"]

CIRCUITS = {"closed": 0, "half_open": 1, "open": 2}
"""Values of `breaker_state`: the higher, the worse."""

Shards = Iterable[Mapping[str, Any]]


class _Counts(Collector):
    """What one scrape tells."""

    def __init__(
        self,
        shards: Shards,
        oldest: Mapping[str, int | None],
        parked: Mapping[str, int],
        is_running: bool,
    ) -> None:
        self._shards = list(shards)
        self._oldest = oldest
        self._parked = parked
        self._is_running = is_running

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        info = GaugeMetricFamily("build_info", "The version.", labels=["version"])
        info.add_metric([raysaga.__version__], 1)
        yield info
        yield GaugeMetricFamily("engine_up", "Whether the engine answers.", int(self._is_running))
        yield from self._of_sagas()
        yield from self._of_steps()
        yield from self._of_shards()
        yield from self._of_participants()

    def _of_sagas(self) -> Iterable[Metric]:
        accepted = CounterMetricFamily(
            "saga_accepted", "Sagas that were accepted.", labels=["shard"]
        )
        rejected = CounterMetricFamily(
            "admission_rejected",
            "Submissions turned away: overload, or a full disk.",
            labels=["shard"],
        )
        finished = CounterMetricFamily(
            "saga_finished", "Sagas that ended, or were parked.", labels=["shard", "outcome"]
        )
        in_flight = GaugeMetricFamily(
            "saga_in_flight", "Sagas that have not ended.", labels=["shard", "state"]
        )
        took = HistogramMetricFamily(
            "saga_duration_seconds", "From accepted to the end.", labels=["shard", "outcome"]
        )
        for shard in self._shards:
            name = str(shard["shard"])
            accepted.add_metric([name], shard["accepted"])
            rejected.add_metric([name], shard["rejected"])
            for phase in set(Phase) - TERMINAL:
                in_flight.add_metric([name, phase.value], shard["phases"].get(phase.value, 0))
            measures = shard["measures"]
            for row in measures["sagas"]:
                finished.add_metric([name, row["outcome"]], sum(row["counts"]))
                _add(took, [name, row["outcome"]], measures["bounds_ms"], row)
        oldest = GaugeMetricFamily(
            "saga_oldest_in_flight_seconds", "Age of the oldest one.", labels=["state"]
        )
        now_ms = time.time_ns() // 1_000_000
        for state, since_ms in self._oldest.items():
            age_ms = 0 if since_ms is None else max(0, now_ms - since_ms)
            oldest.add_metric([state], age_ms / 1_000)
        parked = GaugeMetricFamily("saga_parked", "Wait for a person.", labels=["reason"])
        for reason, count in self._parked.items():
            parked.add_metric([reason], count)
        yield from (accepted, rejected, finished, in_flight, took, oldest, parked)

    def _of_steps(self) -> Iterable[Metric]:
        names = ["shard", "participant", "step", "direction", "result"]
        attempts = CounterMetricFamily("saga_step_attempts", "Attempts answered.", labels=names)
        took = HistogramMetricFamily(
            "saga_step_duration_seconds", "From the call to its answer.", labels=names
        )
        ambiguous = CounterMetricFamily(
            "saga_ambiguous", "Attempts of which nothing is known.", labels=["shard", "step"]
        )
        for shard in self._shards:
            unknown: dict[str, int] = {}
            measures = shard["measures"]
            for row in measures["steps"]:
                labels = [str(shard["shard"]), *(row[name] for name in names[1:])]
                count = sum(row["counts"])
                attempts.add_metric(labels, count)
                _add(took, labels, measures["bounds_ms"], row)
                if row["result"] == "failed":
                    unknown[row["step"]] = unknown.get(row["step"], 0) + count
            for step, count in unknown.items():
                ambiguous.add_metric([str(shard["shard"]), step], count)
        yield from (attempts, took, ambiguous)

    def _of_shards(self) -> Iterable[Metric]:
        rows = (
            (GaugeMetricFamily, "shard_epoch", "Its owner's epoch.", "epoch"),
            (GaugeMetricFamily, "shard_queue_depth", "Entries before the disk.", "queued"),
            (GaugeMetricFamily, "shard_sagas_in_memory", "Sagas it drives.", "in_memory"),
            (CounterMetricFamily, "shard_recovered", "Sagas taken up again.", "recovered"),
            (CounterMetricFamily, "journal_commits", "Commits.", "commits"),
            (CounterMetricFamily, "journal_entries", "Records written.", "entries"),
        )
        for family, name, what, fact in rows:
            metric = family(name, what, labels=["shard"])
            for shard in self._shards:
                metric.add_metric([str(shard["shard"])], shard[fact])
            yield metric
        used = GaugeMetricFamily("journal_map_used_ratio", "Of the cap.", labels=["shard"])
        for shard in self._shards:
            used.add_metric([str(shard["shard"])], shard["map_used"] / max(shard["map_cap"], 1))
        yield used

    def _of_participants(self) -> Iterable[Metric]:
        names = ["shard", "name"]
        rows = (
            (GaugeMetricFamily, "participant_concurrency", "Calls in flight.", "in_flight"),
            (GaugeMetricFamily, "participant_queue_depth", "Calls waiting.", "queued"),
            (CounterMetricFamily, "participant_calls", "Calls sent.", "sent"),
            (CounterMetricFamily, "participant_timeouts", "Calls without an answer.", "timeouts"),
        )
        for family, name, what, fact in rows:
            metric = family(name, what, labels=names)
            for shard in self._shards:
                for participant, facts in shard["participants"].items():
                    metric.add_metric([str(shard["shard"]), participant], facts[fact])
            yield metric
        state = GaugeMetricFamily("breaker_state", "0 closed, 1 half open, 2 open.", labels=names)
        for shard in self._shards:
            for participant, facts in shard["participants"].items():
                state.add_metric([str(shard["shard"]), participant], CIRCUITS[facts["circuit"]])
        yield state


def _add(
    metric: HistogramMetricFamily, labels: list[str], bounds_ms: list[int], row: Mapping[str, Any]
) -> None:
    below = 0
    buckets: list[tuple[str, float]] = []
    for bound_ms, count in zip((*bounds_ms, None), row["counts"], strict=True):
        below += count
        buckets.append(("+Inf" if bound_ms is None else str(bound_ms / 1_000), below))
    metric.add_metric(labels, buckets, row["sum_ms"] / 1_000)


def exposition(
    shards: Shards,
    *,
    oldest: Mapping[str, int | None],
    parked: Mapping[str, int],
    is_running: bool,
) -> bytes:
    """Return everything as text.

    Args:
        shards: What each shard says of itself; none if the engine does not answer.
        oldest: By phase that is not an end, when its oldest saga was accepted.
        parked: By reason, how many sagas wait for a person.
        is_running: Whether the engine answers.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Counts(shards, oldest, parked, is_running))
    return generate_latest(registry)
