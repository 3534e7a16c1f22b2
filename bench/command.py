"""`raysaga bench`: how many sagas a second, how fast each is, and what each one costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from raysaga.api.cli_terminal import JsonOption, Terminal
from raysaga.bench import options as option
from raysaga.bench.options import Wanted, given, settings_in
from raysaga.bench.runs import measured
from raysaga.bench.surroundings import surroundings
from raysaga.bench.tables import tables

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
    profile: option.ProfileOption = None,
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
        pictures=profile,
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
    terminal.show(*tables(told))
