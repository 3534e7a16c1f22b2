"""`raysaga chaos`: real processes, broken one after another, and every promise checked."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live

from raysaga.api.cli_engine import run_async
from raysaga.api.cli_terminal import JsonOption, ProblemFoundError, Terminal
from raysaga.simulation.chaos.catalogue import chosen
from raysaga.simulation.chaos.report import report_of, write_report
from raysaga.simulation.chaos.run import RATE_PER_S, Run
from raysaga.simulation.chaos.screen import screen, summary
from raysaga.simulation.dossier import story_of
from raysaga.statemachines.errors import ValidationError

STORY_LINES_MAX = 80
"""Lines of a story that are printed; the end is what counts."""

SHOWN_EVERY_S = 0.5

chaos_app = typer.Typer()


@chaos_app.command("chaos")
def chaos_command(
    minutes: Annotated[
        float, typer.Option(min=0.2, help="How long orders are submitted and things broken.")
    ] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides orders and faults.")] = 1,
    faults: Annotated[
        str, typer.Option(metavar="A,B", help="Only these; all that can be played by default.")
    ] = "",
    rate: Annotated[
        float, typer.Option(min=1.0, max=1_000.0, help="Orders a second.")
    ] = RATE_PER_S,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A new folder; chaos-SEED by default.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data folder of a run that holds, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Break a real engine, process by process, while orders run; then check every promise.

    It starts a local Ray with an engine on a folder of its own, submits orders all the time,
    and has a fault strike every few seconds, in an order that the seed decides. Each must prove
    that it bit. Then nothing is broken any more, all must come to rest, and the checker decides
    by what callers were told and what is on the disks. Exit code 1 if a promise was broken, or if
    there was time for every fault and one did not bite. The report is in DIR.

    Example:  raysaga chaos --minutes 3 --seed 7

    Example:  raysaga chaos --minutes 60 --seed 1 --report evidence --json

    Example:  raysaga chaos --minutes 1 --faults kill-shard,wake-zombie
    """
    terminal = Terminal(as_json=as_json)
    folder = report or Path(f"chaos-{seed}")
    if folder.exists() and any(folder.iterdir()):
        raise ValidationError(f"{folder} is not empty; name a new folder", "--report")
    run = Run(
        workplace=folder.resolve() / "run",
        seed=seed,
        faults=chosen(name for name in faults.split(",") if name),
        for_s=minutes * 60,
        rate_per_s=rate,
    )
    run.workplace.mkdir(parents=True)
    began_at = time.monotonic()
    run_async(_watched(terminal, run, run.play()))
    found = report_of(run, time.monotonic() - began_at)
    write_report(run, found, folder)
    terminal.emit(found)
    terminal.show(*summary(found))
    terminal.note(f"the report is {folder / 'report.html'}")
    _judge(terminal, run, keep)


async def _watched(terminal: Terminal, run: Run, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and show meanwhile what is broken and what holds."""
    playing = asyncio.create_task(work)
    try:
        if not terminal.is_watched:
            run.told = lambda name, what, text: terminal.note(f"{name or 'run'} {what}: {text}")
            await playing
            return
        with Live(screen(run), console=terminal.err, auto_refresh=False, transient=True) as live:
            while not playing.done():
                await asyncio.wait({playing}, timeout=SHOWN_EVERY_S)
                live.update(screen(run), refresh=True)
        await playing
    finally:
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)


def _judge(terminal: Terminal, run: Run, keep: bool) -> None:
    if run.violations:
        _tell(terminal, run)
        raise ProblemFoundError(
            f"{len(run.violations)} promises are broken; all is kept in {run.workplace}"
        )
    if not keep:
        shutil.rmtree(run.workplace)
    if run.never_bit:
        told = f"did not bite: {', '.join(run.never_bit)}"
        if run.is_full:
            raise ProblemFoundError(told)
        terminal.note(f"{told}; the run is too short for all of them")


def _tell(terminal: Terminal, run: Run) -> None:
    assert run.evidence is not None
    for violation in run.violations[:STORY_LINES_MAX]:
        about = f" {violation.saga_id}" if violation.saga_id else ""
        terminal.note(f"{violation.invariant}{about}: {violation.what}")
    sagas = {violation.saga_id for violation in run.violations if violation.saga_id}
    stories = [list(story_of(run.evidence.seen, saga_id)) for saga_id in sorted(sagas)[:20]]
    for line in min(stories, key=len, default=[])[-STORY_LINES_MAX:]:
        terminal.note(line)
