"""`raysaga bench`: how many sagas a second, how fast each is, and what each one costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from raysaga.api.cli_terminal import JsonOption, Terminal
from raysaga.bench import options as option
from raysaga.bench.brokers import bench_brokers
from raysaga.bench.compare import compare, lines_of
from raysaga.bench.options import Wanted, given, settings_in
from raysaga.bench.pages import fill_pages
from raysaga.bench.peers.run import PEERS
from raysaga.bench.results_file import read_lines
from raysaga.bench.runs import measured
from raysaga.bench.surroundings import surroundings
from raysaga.bench.tables import change_table, tables
from raysaga.statemachines.errors import ValidationError

RESULTS = Path("bench/results")
"""Where results are kept in a checkout."""

FolderOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Files of results.")]

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
    peers: option.PeersOption = False,
    peer: option.PeerOption = None,
    data: option.DataFolderOption = None,
    results: option.ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure sagas on this machine; every run is audited, and none with a violation counts.

    Every participant is a Ray actor with a durable ledger; all LMDB flags are the defaults,
    so each commit waits for the disk. A figure is the median of the repetitions.

    Example:  raysaga bench --in-flight 512 --json

    Example:  raysaga bench --workload happy --workload rollback --in-flight 64

    Example:  raysaga bench --peers --in-flight 128 --seconds 5
    """
    if context.invoked_subcommand is not None:
        return
    lists = given(
        workloads=workload,
        in_flight=in_flight,
        rates_per_s=rate,
        durability=durability,
        strategies=strategy,
        skews=skew,
        sagas=sagas,
        pictures=profile,
        peers=peer or (list(PEERS) if peers else None),
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
    terminal = Terminal(as_json=as_json)
    tell(terminal, measured(wanted, data, terminal.note), results)


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


@bench_app.command("compare")
def compare_command(
    before: Annotated[str, typer.Argument(metavar="A", help="A file of results, or a commit.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The same, later.")],
    folder: FolderOption = RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Say what has changed between two sets of results, beyond noise.

    A figure has changed if the ranges of its repetitions do not overlap and its medians are
    more than 5 percent apart. Figures with one repetition are not judged.

    Example:  raysaga bench compare 41973a9 HEAD.jsonl
    """
    terminal = Terminal(as_json=as_json)
    found = list(compare(lines_of(before, folder), lines_of(after, folder)))
    terminal.emit(*(change._asdict() for change in found))
    terminal.show(change_table(found))


@bench_app.command("report")
def report_command(
    page: Annotated[Path, typer.Argument(metavar="FILE.html")] = Path("bench-report.html"),
    folder: FolderOption = RESULTS,
    pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each picture here as SVG, too.")
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Fill the tables of the pages here, too.")
    ] = None,
) -> None:
    """Write one HTML page of the newest results, with plots.

    Example:  raysaga bench report report.html --pictures docs/bench --pages docs
    """
    try:
        from raysaga.bench.report import write_report
    except ModuleNotFoundError as error:
        raise ValidationError(
            f"{error.name} is missing; install it: pip install 'raysaga[bench]'", "report"
        ) from error
    lines = read_lines(sorted(folder.glob("*.jsonl")))
    write_report(lines, page, pictures)
    changed = fill_pages(pages, lines) if pages is not None else []
    Terminal(as_json=False).note(f"written: {', '.join([str(page), *changed])}")


bench_app.command("brokers")(bench_brokers)
