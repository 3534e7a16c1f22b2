"""Carries out what was wanted, one workload after the other, each in data folders of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

from raysaga.bench.bare_actors import run_bare_actors
from raysaga.bench.measure import Load
from raysaga.bench.one_process import run_one_process
from raysaga.bench.options import Wanted
from raysaga.bench.overload import run_overload
from raysaga.bench.peers.run import run_peers
from raysaga.bench.profile_run import run_profile
from raysaga.bench.reads import run_reads
from raysaga.bench.recovery import run_recovery
from raysaga.bench.session import Cell, run_cells
from raysaga.bench.skeleton import run_skeleton
from raysaga.bench.waiting import run_waiting
from raysaga.bench.workloads import WORKLOADS, Workload, contended, with_durability
from raysaga.statemachines.errors import ValidationError

WARMERS = (16,)
"""Callers who warm an engine up for an open loop."""


def measured(
    wanted: Wanted, data: Path | None, note: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """Yield lines of results, each as soon as it is known.

    Args:
        wanted: What to measure.
        data: Where data folders are made; None for the machine's folder for temporary files.
        note: Told what could not be measured, and why.
    """
    if wanted.peers:
        yield from _beside_peers(wanted, note)
        return
    with tempfile.TemporaryDirectory(dir=data, prefix="raysaga-bench-") as name:
        folders = (Path(name) / str(i) for i in range(1 << 30))
        if wanted.pictures is not None:
            yield from _profiles(wanted, wanted.pictures, folders)
            return
        yield from _loops(wanted, folders)
        for workload in wanted.workloads:
            for _ in range(wanted.repetitions):
                for line in _special(workload, wanted, folders):
                    yield {"workload": workload} | line


def _loops(wanted: Wanted, folders: Iterator[Path]) -> Iterator[dict[str, Any]]:
    """Yield the lines of loops; those with the same services share an engine."""
    engines: dict[str, list[Cell]] = {}
    loads = [
        Load(level, wanted.seconds, wanted.dedicated, rate, wanted.seed)
        for level in (wanted.in_flight if not wanted.rates_per_s else WARMERS)
        for rate in (wanted.rates_per_s or (None,))
    ]
    for workload in _workloads(wanted):
        for durability in wanted.durability:
            for load in loads:
                cell = Cell(with_durability(workload, durability), load)
                engines.setdefault(json.dumps(workload.services), []).append(cell)
    for cells in engines.values():
        cells_run = run_cells(
            next(folders),
            cells,
            repetitions=wanted.repetitions,
            shards=wanted.shards,
            settings=wanted.engine,
        )
        yield from uvloop.run(cells_run)


def _profiles(wanted: Wanted, pictures: Path, folders: Iterator[Path]) -> Iterator[dict[str, Any]]:
    for workload in _workloads(wanted):
        for level in wanted.in_flight:
            load = Load(level, wanted.seconds, wanted.dedicated, None, wanted.seed)
            where = pictures / f"{workload.name}-{level}"
            yield uvloop.run(run_profile(next(folders), workload, load, where, wanted.engine))


def _beside_peers(wanted: Wanted, note: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Measure happy orders, or the mix that was asked for."""
    percents = {"happy": 0, "refused-10": 10, "refused-50": 50}
    for name in wanted.workloads:
        if name not in percents:
            raise ValidationError(f"peers are not measured with {name!r}", "--workload")
        yield from run_peers(
            wanted.peers,
            wanted.in_flight,
            seconds=wanted.seconds,
            repetitions=wanted.repetitions,
            refused_percent=percents[name],
            settings=wanted.engine,
            tell=note,
        )


def _workloads(wanted: Wanted) -> Iterator[Workload]:
    for name in wanted.workloads:
        if name == "contended":
            for strategy in wanted.strategies:
                for skew in wanted.skews:
                    yield contended(strategy, skew, wanted.think_ms)
        elif name in WORKLOADS:
            yield WORKLOADS[name]()


def _special(workload: str, wanted: Wanted, folders: Iterator[Path]) -> Iterator[dict[str, Any]]:
    if workload == "waiting":
        for count in wanted.sagas:
            run = run_waiting(next(folders), count, wanted.seconds, wanted.seed)
            yield uvloop.run(run)
    elif workload in ("recovery", "recovery-standing"):
        kind = "cold" if workload == "recovery" else "standing"
        for count in wanted.sagas:
            yield run_recovery(next(folders), count, kind, wanted.seed)
    elif workload == "overload":
        yield uvloop.run(run_overload(next(folders), wanted.seconds, wanted.seed))
    elif workload == "reads":
        for level in wanted.in_flight:
            yield uvloop.run(run_reads(next(folders), level, wanted.seconds, wanted.seed))
    elif workload == "one-process":
        for level in wanted.in_flight:
            yield uvloop.run(run_one_process(next(folders), level, wanted.seconds, wanted.seed))
    elif workload == "skeleton":
        for level in wanted.in_flight:
            yield uvloop.run(run_skeleton(next(folders), level, wanted.seconds))
    elif workload == "bare-actors":
        yield run_bare_actors()
