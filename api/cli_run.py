"""The command `raysaga run`: every order of a file, and then the books."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple, TextIO

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import audit_folder, under_way
from raysaga.api.cli_engine import open_sagas, run_async
from raysaga.api.cli_keep import audit_tables
from raysaga.api.cli_progress import count_shown
from raysaga.api.cli_terminal import (
    DataOption,
    InterruptedRunError,
    JsonOption,
    ProblemFoundError,
    ServicesOption,
    StockOption,
    Terminal,
    printable,
)
from raysaga.api.cli_values import phase_text, reason_text, told_ms
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.order_setup import services_of
from raysaga.api.orders_output import StagedFiles
from raysaga.api.sample_orders import sample_paths
from raysaga.statemachines.errors import ValidationError

if TYPE_CHECKING:
    from raysaga.api.order_run import OrderRun, Reject, Tally

IN_FLIGHT_USUAL = 64
"""Orders under way at one time; more gains some throughput and makes each order slower."""

DRAIN_S = 30.0
"""How long a run that was interrupted waits for the orders under way."""

REST_POLL_S = 0.1
"""How often a run that is over looks whether other sagas of the folder are."""

REJECTS_SHOWN = 10
"""Rejected lines that are told one by one; the others go to `--rejects` or are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run is asked to do.

    Attributes:
        orders: The file; None for standard input.
        name: What to call it.
        data: The data folder.
        services: Settings of the four services.
        in_flight_max: Orders under way at one time.
        limit: Lines of the file at most; None for all.
        dedicated: Whether each order gets an actor of its own.
        rejects: Where rejected lines go; None for nowhere.
        shards: Of a new folder; None for the default.
    """

    orders: Path | None
    name: str
    data: Path
    services: dict[str, Any]
    in_flight_max: int
    limit: int | None
    dedicated: bool
    rejects: Path | None
    shards: int | None


def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE.jsonl",
            help="Orders, one JSON object a line; - for standard input. Without it, the "
            "thousand orders of the sample, with their stock.",
        ),
    ] = None,
    data: DataOption = DATA_FOLDER,
    stock: StockOption = None,
    services: ServicesOption = "calm",
    in_flight: Annotated[
        int, typer.Option(min=1, max=100_000, help="Orders under way at one time.")
    ] = IN_FLIGHT_USUAL,
    limit: Annotated[int | None, typer.Option(min=1, help="The first lines only.")] = None,
    dedicated: Annotated[
        bool, typer.Option("--dedicated", help="A Ray actor for each order; slow.")
    ] = False,
    rejects: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where rejected lines go, as JSON lines.")
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, max=64, help="Shards of a new data folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Drive every order of a file to its end, then check that the books balance.

    Run it again after whatever happened, with the same file and folder: it goes on where
    it was, and begins no order twice. Ctrl-C takes no more lines, and waits a while for
    the orders under way. Orders that are refused are no problem; they are undone.

    Example:  raysaga run --services lively

    Example:  raysaga run orders.jsonl --stock stock.json --rejects rejects.jsonl
    """
    terminal = Terminal(as_json=as_json)
    orders, name, stock = _orders(file, stock)
    plan = RunPlan(
        orders=orders,
        name=name,
        data=data,
        services=services_of(services, stock, data),
        in_flight_max=in_flight,
        limit=limit,
        dedicated=dedicated,
        rejects=rejects,
        shards=shards,
    )
    run_plan(terminal, plan)


def _orders(file: Path | None, stock: Path | None) -> tuple[Path | None, str, Path | None]:
    """Return where the orders are, None for standard input; what to call it; and the stock.

    Raises:
        ValidationError: If there is no such file.
    """
    if file is None:
        sample, sample_stock = sample_paths()
        return sample, "the sample", stock or sample_stock
    if str(file) == "-":
        return None, "standard input", stock
    if not file.is_file():
        raise ValidationError(f"{file} is no file; check the path", "FILE")
    return file, str(file), stock


def run_plan(terminal: Terminal, plan: RunPlan) -> None:
    """Carry out a plan; tell and check the result.

    Raises:
        ProblemFoundError: If the books do not balance.
        InterruptedRunError: If a person stopped it.
        SagaError: Why it stopped by itself.
    """
    began_s = time.monotonic()
    with StagedFiles() as files:
        reject = _teller(terminal, files.open(plan.rejects) if plan.rejects else None)
        driven = run_async(_drive(terminal, plan, reject))
        files.commit()
    told = {
        "file": None if plan.orders is None else str(plan.orders),
        **driven.run.tally.to_data(),
        "under_way": driven.run.left_count,
        "interrupted": driven.run.is_stopping,
        "drive_ms": driven.drive_ms,
        "duration_ms": int((time.monotonic() - began_s) * 1_000),
        "audit": None,
    }
    terminal.show(*_tables(plan, driven))
    try:
        if driven.is_at_rest:
            with Archive.open(plan.data) as archive:
                report = told["audit"] = audit_folder(archive).to_data()
            terminal.show(Text(), *audit_tables(report))
    finally:
        terminal.emit(told)
    _judge(terminal, driven, told["audit"])


def _judge(terminal: Terminal, driven: Driven, report: dict[str, Any] | None) -> None:
    """Raise what a script must know of a run."""
    run = driven.run
    if run.failure is not None:
        terminal.note("what was begun is on disk; the same command continues")
        raise run.failure
    if run.is_stopping:
        left = f"{run.left_count:,} orders under way go on when an engine runs; "
        raise InterruptedRunError(
            f"stopped; {left if run.left_count else ''}the same command continues"
        )
    if report is None:
        terminal.note("other sagas are still under way; raysaga audit can check the books later")
    elif not report["is_clean"]:
        raise ProblemFoundError("the books do not balance; raysaga audit --json tells more")


class Driven(NamedTuple):
    """What a run came to: the run, how long its orders took, and whether all sagas rest."""

    run: OrderRun
    drive_ms: int
    is_at_rest: bool


async def _drive(terminal: Terminal, plan: RunPlan, reject: Callable[[Reject], None]) -> Driven:
    # Imported here: it brings Ray with it.
    from raysaga.api.order_run import OrderRun, order_lines

    connection = open_sagas(terminal, plan.data, shards=plan.shards, services=plan.services)
    async with connection as sagas:
        with _opened(plan.orders) as file, Archive.open(plan.data) as archive:
            run = OrderRun(
                sagas,
                archive,
                in_flight_max=plan.in_flight_max,
                dedicated=plan.dedicated,
                reject=reject,
            )

            def so_far() -> tuple[int, str]:
                return run.tally.settled, _so_far(run.tally)

            began_s = time.monotonic()
            async with (
                _stopped_by_signals(terminal, run),
                count_shown(terminal, _line_count(plan), so_far),
            ):
                await run.drive(order_lines(file, plan.limit), drain_s=DRAIN_S)
            drive_ms = int((time.monotonic() - began_s) * 1_000)
            is_at_rest = not run.is_stopping and await _at_rest(archive)
    return Driven(run, drive_ms, is_at_rest)


async def _at_rest(archive: Archive) -> bool:
    """Wait until no saga of the folder is under way; return False if that takes too long."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + DRAIN_S
    while under_way(archive.counts()):
        if loop.time() >= until_s:
            return False
        await asyncio.sleep(REST_POLL_S)
    return True


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


@asynccontextmanager
async def _stopped_by_signals(terminal: Terminal, run: OrderRun) -> AsyncIterator[None]:
    """Stop the run at the first SIGINT or SIGTERM, and leave it at once at the second."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if run.is_stopping:
            task.cancel()
            return
        run.stop()
        terminal.note(
            f"stopping: waiting up to {DRAIN_S:.0f} s for the orders under way; again to leave now"
        )

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _so_far(tally: Tally) -> str:
    told = f"{tally.completed:,} completed, {tally.compensated.total():,} compensated"
    for name, count in (("parked", tally.parked), ("rejected", tally.rejected)):
        told += f", {count.total():,} {name}" if count else ""
    return told


def _line_count(plan: RunPlan) -> int | None:
    """Return about how many lines there are to settle; None if that cannot be known."""
    if plan.orders is None:
        return plan.limit
    lines = 0
    with plan.orders.open("rb") as file:
        while chunk := file.read(1 << 20):
            lines += chunk.count(b"\n")
            if plan.limit is not None and lines >= plan.limit:
                return plan.limit
    return lines


def _teller(terminal: Terminal, file: TextIO | None) -> Callable[[Reject], None]:
    """Return what tells a rejected line: all to the file, else the first few to the person."""
    told = 0

    def tell(reject: Reject) -> None:
        nonlocal told
        if file is not None:
            file.write(json.dumps(reject._asdict()) + "\n")
            return
        told += 1
        if told <= REJECTS_SHOWN:
            of = f" (order {reject.order_id})" if reject.order_id else ""
            terminal.note(f"line {reject.line}{of} rejected: {reject.reason} ({reject.code})")
        elif told == REJECTS_SHOWN + 1:
            terminal.note("more lines are rejected; --rejects FILE lists them all")

    return tell


def _tables(plan: RunPlan, driven: Driven) -> list[RenderableType]:
    tally = driven.run.tally
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(min_width=40, overflow="fold")
    table.add_column(justify="right", min_width=8)
    table.add_row(phase_text("completed"), f"{tally.completed:,}")
    for name, counts in (("compensated", tally.compensated), ("parked", tally.parked)):
        table.add_row(phase_text(name), f"{counts.total():,}")
        for (code, step), count in counts.most_common():
            table.add_row(Text("  ") + reason_text(code, step), Text(f"{count:,}", style="dim"))
    if tally.rejected:
        table.add_row(Text("rejected lines", style="red"), f"{tally.rejected.total():,}")
        for code, count in tally.rejected.most_common():
            table.add_row(f"  {code}", Text(f"{count:,}", style="dim"))
    if tally.repeated:
        table.add_row("repeated lines", f"{tally.repeated:,}")
    if driven.run.left_count:
        table.add_row(Text("under way", style="cyan"), f"{driven.run.left_count:,}")
    driven_count = tally.ended - tally.known
    rate = driven_count / (driven.drive_ms / 1_000) if driven.drive_ms else 0.0
    told = f"{tally.ended:,} orders of {plan.name}: {driven_count:,} driven in "
    told += f"{told_ms(driven.drive_ms)}, {rate:,.1f} a second"
    if tally.known:
        told += f"; {tally.known:,} had ended before"
    return [Text(printable(told), style="bold"), table]


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("run")(run)
