"""`raysaga bench`: how many sagas a second, how fast each is, and what each one costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.table import Table

from raysaga.api.cli_terminal import JsonOption, Terminal
from raysaga.bench import options as option
from raysaga.bench.options import Wanted, given, settings_in
from raysaga.bench.runs import measured
from raysaga.bench.surroundings import surroundings

bench_app = typer.Typer()


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    workload: option.WorkloadOption = None,
    in_flight: option.InFlightOption = None,
    seconds: option.SecondsOption = 8.0,
    repetitions: option.RepetitionsOption = 3,
    rate: option.RateOption = None,
    durability: option.DurabilityOption = None,
    strategy: option.StrategyOption = None,
    skew: option.SkewOption = None,
    think_ms: option.ThinkOption = 2.0,
    sagas: option.SagasOption = None,
    dedicated: option.DedicatedOption = False,
    shards: option.ShardsOption = 1,
    engine: option.EngineOption = "{}",
    seed: option.SeedOption = 1,
    data: option.DataFolderOption = None,
    results: option.ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure sagas on this machine; every run is audited, and none with a violation counts.

    Every participant is a Ray actor with a durable ledger; all LMDB flags are the defaults,
    so each commit waits for the disk. A figure is the median of the repetitions.

    Example:  raysaga bench --in-flight 512 --json

    Example:  raysaga bench --workload happy --workload rollback --in-flight 64

    Example:  raysaga bench --workload recovery --sagas 2000 --sagas 20000
    """
    if context.invoked_subcommand is not None:
        return
    lists = given(
        workloads=workload,
        in_flight=in_flight,
        rate_per_s=rate,
        durability=durability,
        strategies=strategy,
        skews=skew,
        sagas=sagas,
    )
    wanted = Wanted(
        **lists,
        seconds=seconds,
        repetitions=repetitions,
        think_ms=think_ms,
        dedicated=dedicated,
        shards=shards,
        engine=settings_in(engine),
        seed=seed,
    )
    tell(Terminal(as_json=as_json), measured(wanted, data), results)


def tell(terminal: Terminal, lines: Iterator[dict[str, Any]], results: Path | None) -> None:
    """Write each line where it is wanted, as soon as it is there; a table at the end."""
    told: list[dict[str, Any]] = []
    for line in lines:
        whole = line | surroundings()
        told.append(whole)
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(whole) + "\n")
        terminal.emit(whole)
    terminal.show(*_tables(told))


WHAT = (
    "workload",
    "peer",
    "strategy",
    "skew",
    "durability",
    "in_flight",
    "rate_per_s",
    "sagas",
    "waiting",
    "kill",
)
"""Facts that tell lines of one table apart."""

FIGURES = (
    "sagas_per_s",
    "p50_ms",
    "p99_ms",
    "cpu_ms_per_saga",
    "flushes_per_saga",
    "memory_mib",
    "us_per_step",
    "host_bytes_per_waiting_saga",
    "seconds_until_all_have_ended",
    "capacity_per_s",
    "came_through_per_s_during",
    "back_after_s",
)
"""Figures that a table shows; a line of results has more."""


def _tables(lines: list[dict[str, Any]]) -> Iterator[Table]:
    """Yield a table for each workload."""
    for workload in dict.fromkeys(line["workload"] for line in lines):
        rows = [line for line in lines if line["workload"] == workload]
        names = [name for name in (*WHAT, *FIGURES) if any(name in row for row in rows)]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in names:
            table.add_column(name.replace("_", " "), justify="left" if name in WHAT else "right")
        for row in rows:
            table.add_row(*(_shown(row.get(name)) for name in names))
        yield table


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
