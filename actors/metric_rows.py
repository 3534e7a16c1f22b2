"""Every metric of an engine: its name, what it means, and its samples, as plain values.

Guarantees: names and labels are few and fixed; no id of a saga or a caller is ever a label.
Counters are those of one process since it started, so that a restart shows as one.
Refuses nothing. Costs: one pass over what shards and participants tell of themselves.

What tells them to Prometheus, or to Ray, gets them from here, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from raysaga.statemachines.tables import TERMINAL, Phase


class Kind(StrEnum):
    """What can be done with a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Sample(NamedTuple):
    """One value of a metric.

    Attributes:
        labels: Values, in the order of the metric's names.
        value: The number; of a histogram the sum of all.
        bounds: Of a histogram: upper bounds of its buckets, closed; there is one more bucket.
        counts: Of a histogram: how many in each bucket, not summed up.
    """

    labels: tuple[str, ...]
    value: float
    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class Metric(NamedTuple):
    """One metric; the name of a counter is without `_total`."""

    name: str
    kind: Kind
    what: str
    labels: tuple[str, ...]
    samples: list[Sample]


CIRCUITS = {"closed": 0, "half_open": 1, "open": 2}
"""Values of `breaker_state`: the higher, the worse."""

_OF_SHARDS = (
    ("saga_accepted", Kind.COUNTER, "Sagas that were accepted.", "accepted"),
    ("saga_duplicate_requests", Kind.COUNTER, "Submissions known already.", "repeated"),
    ("clock_jumps", Kind.COUNTER, "Jumps of the wall clock that put deadlines off.", "clock_jumps"),
    ("shard_epoch", Kind.GAUGE, "Its owner's epoch.", "epoch"),
    ("shard_queue_depth", Kind.GAUGE, "Entries before the disk.", "queued"),
    ("shard_sagas_in_memory", Kind.GAUGE, "Sagas it drives.", "in_memory"),
    ("shard_recovered", Kind.COUNTER, "Sagas taken up again.", "recovered"),
    ("journal_commits", Kind.COUNTER, "Commits.", "commits"),
    ("journal_entries", Kind.COUNTER, "Records written.", "entries"),
)
_OF_WAYS = (
    ("participant_concurrency", Kind.GAUGE, "Calls in flight.", "in_flight"),
    ("participant_queue_depth", Kind.GAUGE, "Calls waiting.", "queued"),
    ("participant_calls", Kind.COUNTER, "Calls sent.", "sent"),
    ("participant_timeouts", Kind.COUNTER, "Calls without an answer.", "timeouts"),
)
_OF_PARTICIPANTS = (
    ("saga_tombstone_refusals", Kind.COUNTER, "Actions that came after their undo.", "tombstoned"),
    ("saga_fenced", Kind.COUNTER, "Calls of an owner that was replaced.", "fenced"),
    ("participant_overloaded", Kind.COUNTER, "Calls turned away as too many.", "overloaded"),
)

Told = Mapping[str, Any]


def shard_metrics(shards: Sequence[Told]) -> Iterable[Metric]:
    """Yield what shards tell of themselves, each as `shard_stats` gives it."""
    for name, kind, what, fact in _OF_SHARDS:
        samples = [Sample((_name(shard),), shard[fact]) for shard in shards]
        yield Metric(name, kind, what, ("shard",), samples)
    yield from _of_sagas(shards)
    yield from _of_steps(shards)
    yield from _of_journals(shards)
    yield from _of_ways(shards)


def participant_metrics(participants: Mapping[str, Told]) -> Iterable[Metric]:
    """Yield what participants tell of themselves, by name, each as its server gives it."""
    for name, kind, what, fact in _OF_PARTICIPANTS:
        samples = [Sample((who,), facts[fact]) for who, facts in participants.items()]
        yield Metric(name, kind, what, ("name",), samples)


def _name(shard: Told) -> str:
    return str(shard["shard"])


def _of_sagas(shards: Sequence[Told]) -> Iterable[Metric]:
    rejected: list[Sample] = []
    finished: list[Sample] = []
    in_flight: list[Sample] = []
    took: list[Sample] = []
    for shard in shards:
        name = _name(shard)
        rejected += [Sample((name, why), count) for why, count in shard["rejected"].items()]
        in_flight += [
            Sample((name, phase.value), shard["phases"].get(phase.value, 0))
            for phase in Phase
            if phase not in TERMINAL
        ]
        bounds_ms = shard["measures"]["bounds_ms"]
        for row in shard["measures"]["sagas"]:
            finished.append(Sample((name, row["outcome"]), sum(row["counts"])))
            took.append(_times((name, row["outcome"]), bounds_ms, row["counts"], row["sum_ms"]))
    counted = ("shard", "outcome")
    yield Metric(
        "admission_rejected",
        Kind.COUNTER,
        "Submissions turned away: overload, or a full disk.",
        ("shard", "reason"),
        rejected,
    )
    yield Metric(
        "saga_finished", Kind.COUNTER, "Sagas that ended, or were parked.", counted, finished
    )
    yield Metric(
        "saga_in_flight", Kind.GAUGE, "Sagas that have not ended.", ("shard", "state"), in_flight
    )
    yield Metric(
        "saga_duration_seconds", Kind.HISTOGRAM, "From accepted to the end.", counted, took
    )


def _of_steps(shards: Sequence[Told]) -> Iterable[Metric]:
    names = ("shard", "participant", "step", "direction", "result")
    attempts: list[Sample] = []
    took: list[Sample] = []
    ambiguous: list[Sample] = []
    for shard in shards:
        unknown: dict[str, int] = {}
        bounds_ms = shard["measures"]["bounds_ms"]
        for row in shard["measures"]["steps"]:
            labels = (_name(shard), *(str(row[name]) for name in names[1:]))
            count = sum(row["counts"])
            attempts.append(Sample(labels, count))
            took.append(_times(labels, bounds_ms, row["counts"], row["sum_ms"]))
            if row["result"] == "failed":
                unknown[row["step"]] = unknown.get(row["step"], 0) + count
        ambiguous += [Sample((_name(shard), step), count) for step, count in unknown.items()]
    yield Metric("saga_step_attempts", Kind.COUNTER, "Attempts answered.", names, attempts)
    yield Metric(
        "saga_step_duration_seconds", Kind.HISTOGRAM, "From the call to its answer.", names, took
    )
    yield Metric(
        "saga_ambiguous",
        Kind.COUNTER,
        "Attempts of which nothing is known.",
        ("shard", "step"),
        ambiguous,
    )


def _of_journals(shards: Sequence[Told]) -> Iterable[Metric]:
    only = ("shard",)
    seconds, sizes, errors, used, reader, recovery, lag = ([] for _ in range(7))
    for shard in shards:
        labels = (_name(shard),)
        commit, entries = shard["commit_ms"], shard["commit_entries"]
        seconds.append(_times(labels, commit["bounds"], commit["counts"], commit["sum"]))
        counts = tuple(entries["counts"])
        sizes.append(Sample(labels, entries["sum"], tuple(entries["bounds"]), counts))
        errors.append(Sample((*labels, "full"), shard["full"]))
        used.append(Sample(labels, shard["map_used"] / max(shard["map_cap"], 1)))
        reader.append(Sample(labels, shard["oldest_reader_ms"] / 1_000))
        recovery.append(Sample(labels, shard["first_sweep_ms"] / 1_000))
        lag.append(Sample(labels, shard["overdue_ms"] / 1_000))
    yield Metric("journal_commit_seconds", Kind.HISTOGRAM, "One commit.", only, seconds)
    yield Metric("journal_batch_records", Kind.HISTOGRAM, "Records in a commit.", only, sizes)
    yield Metric(
        "journal_errors", Kind.COUNTER, "Commits that were void.", ("shard", "kind"), errors
    )
    yield Metric("journal_map_used_ratio", Kind.GAUGE, "Of the cap.", only, used)
    yield Metric(
        "journal_oldest_reader_seconds", Kind.GAUGE, "Keeps old pages in use so long.", only, reader
    )
    yield Metric(
        "shard_recovery_seconds", Kind.GAUGE, "Its owner's first look for sagas.", only, recovery
    )
    yield Metric(
        "outbox_lag_seconds", Kind.GAUGE, "How long the first saga that is due waits.", only, lag
    )


def _of_ways(shards: Sequence[Told]) -> Iterable[Metric]:
    names = ("shard", "name")
    ways = [
        ((_name(shard), who), facts)
        for shard in shards
        for who, facts in shard["participants"].items()
    ]
    for name, kind, what, fact in _OF_WAYS:
        yield Metric(
            name, kind, what, names, [Sample(labels, facts[fact]) for labels, facts in ways]
        )
    states = [Sample(labels, CIRCUITS[facts["circuit"]]) for labels, facts in ways]
    yield Metric("breaker_state", Kind.GAUGE, "0 closed, 1 half open, 2 open.", names, states)


def _times(
    labels: tuple[str, ...], bounds_ms: Sequence[int], counts: Sequence[int], sum_ms: float
) -> Sample:
    bounds_s = tuple(bound_ms / 1_000 for bound_ms in bounds_ms)
    return Sample(labels, sum_ms / 1_000, bounds_s, tuple(counts))
