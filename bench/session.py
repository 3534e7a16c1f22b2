"""Runs cells of a bench: workloads at levels, interleaved, each several times, then judged.

Guarantees: repetitions go round: every cell once, then every cell again, so that what the
machine does meanwhile meets all of them. A figure is a median; its range is told with it.
Refuses: the figures of all cells of an engine whose folder is not in order at the end.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.bench.bed import open_bed
from raysaga.bench.judge import judge
from raysaga.bench.measure import Load, run_level
from raysaga.bench.workloads import Workload

MEDIANS = ("p50_ms", "p95_ms", "p99_ms", "p99_9_ms", "max_ms", "cpu_ms_per_saga", "us_per_step")
"""Figures beside the rate whose own median is told; the rest is the middle repetition's."""


class Cell(NamedTuple):
    """One row of results: a workload, and how it is driven."""

    workload: Workload
    load: Load


async def run_cells(
    folder: Path,
    cells: Sequence[Cell],
    *,
    repetitions: int,
    shards: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return a line for each cell. All share one engine, so their services must be the same.

    Raises:
        RunRefusedError: If a promise was broken.
    """
    first = cells[0].workload
    assert all(cell.workload.services == first.services for cell in cells)
    participants = {k: v for cell in cells for k, v in cell.workload.participants.items()}
    found: list[list[dict[str, Any]]] = [[] for _ in cells]
    numbers = itertools.count()
    async with open_bed(
        folder,
        services=first.services,
        participants=participants,
        shards=shards,
        settings=settings,
    ) as bed:
        for repetition in range(repetitions):
            for i, cell in enumerate(cells):
                run = f"b{repetition}-{i}"
                found[i].append(await run_level(bed, cell.workload, cell.load, numbers, run))
        await bed.rest()
    definitions = {cell.workload.definition.name: cell.workload.definition for cell in cells}
    verdict = judge(folder, seed=cells[0].load.seed, definitions=tuple(definitions.values()))
    events = verdict.pop("events_by_definition")
    return [
        _line(cell, runs)
        | {"shards": shards, **({"engine": dict(settings)} if settings else {})}
        | verdict
        | events[cell.workload.definition.name]
        for cell, runs in zip(cells, found, strict=True)
    ]


def _line(cell: Cell, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    workload, load = cell
    return (
        {"workload": workload.name, **workload.facts}
        | medians(runs)
        | {
            "hosting": "dedicated" if load.dedicated else "shared",
            "durability": workload.definition.durability.value,
            "participants": "Ray actors with durable ledgers",
        }
    )


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the repetition with the middle rate, with the medians and the rate's range."""
    rates = sorted(run["sagas_per_s"] for run in runs)
    median = statistics.median(rates)
    middle = min(runs, key=lambda run: abs(run["sagas_per_s"] - median))
    line = dict(middle) | {
        name: round(statistics.median(run[name] for run in runs), 4)
        for name in MEDIANS
        if all(name in run for run in runs)
    }
    return line | {
        "sagas_per_s": round(median, 1),
        "sagas_per_s_min": rates[0],
        "sagas_per_s_max": rates[-1],
        **{
            f"{name}_each": [run[name] for run in runs]
            for name in ("sagas_per_s", *MEDIANS)
            if all(name in run for run in runs)
        },
        "foreign_cores": max(run["foreign_cores"] for run in runs),
        "repetitions": len(runs),
    }
