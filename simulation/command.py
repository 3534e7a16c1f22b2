"""`raysaga simulate`: whole engines in virtual time, with every fault, seed after seed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from raysaga.api.cli_terminal import JsonOption, ProblemFoundError, Terminal
from raysaga.compiled import is_compiled
from raysaga.simulation.checker import Violation, check
from raysaga.simulation.dossier import story_of
from raysaga.simulation.history import Observation
from raysaga.simulation.mutants import MUTANTS
from raysaga.simulation.play import play
from raysaga.simulation.recipe import Recipe, recipe_of
from raysaga.simulation.shrink import shrink
from raysaga.simulation.sometimes import SOMETIMES
from raysaga.simulation.swarm import Tally, run
from raysaga.statemachines.errors import ValidationError

TOLD_EVERY_S = 30.0
"""Pause between two lines where nobody watches a bar."""

STORY_LINES_MAX = 80
"""Lines of a story that are printed; the end is what counts."""

simulate_app = typer.Typer()


@simulate_app.command("simulate")
def simulate_command(
    seeds: Annotated[int, typer.Option(min=1, help="Histories to play.")] = 1_000,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    hours: Annotated[float | None, typer.Option(min=0.0, help="Play for so long instead.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one for each core by default.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play one history that was kept.")
    ] = None,
    keep: Annotated[
        Path, typer.Option(metavar="DIR", help="Where histories that fail are kept.")
    ] = Path(),
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Break one rule at a time; each must be caught.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Play histories of the real engine with every fault, and check every promise.

    Each seed is one history: hosts, participants, disks and wires fail as it says, then all is
    mended, and whatever was accepted must end. The same seed is the same history. A seed that
    breaks a promise is made smaller and kept in a file; exit code 1, and its story.

    Example:  raysaga simulate --seeds 10000

    Example:  raysaga simulate --hours 8 --first-seed 1000000 --json

    Example:  raysaga simulate --replay simulated-17.json
    """
    terminal = Terminal(as_json=as_json)
    if replay is not None:
        _replay(terminal, Recipe.read(replay))
    elif mutants:
        _breed(terminal)
    else:
        _swarm(terminal, first_seed, None if hours is not None else seeds, hours, workers, keep)


def _swarm(
    terminal: Terminal,
    first: int,
    seeds: int | None,
    hours: float | None,
    workers: int | None,
    keep: Path,
) -> None:
    began_at = time.monotonic()
    total = Tally()
    terminal.note(f"seeds from {first} on")
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    watched = terminal.is_watched
    with Progress(*columns, console=terminal.err, transient=True, disable=not watched) as progress:
        task = progress.add_task("", total=seeds)
        told_at = began_at
        for total in run(first, seeds=seeds, hours=hours, workers=workers):
            so_far = _so_far(total, time.monotonic() - began_at)
            progress.update(task, completed=total.seeds, description=so_far)
            if not watched and time.monotonic() > told_at + TOLD_EVERY_S:
                told_at = time.monotonic()
                terminal.note(f"{total.seeds:,} seeds: {so_far}")
    took_s = time.monotonic() - began_at
    document = {
        "command": "raysaga " + " ".join(sys.argv[1:]),
        "first_seed": first,
        "last_seed": first + total.seeds - 1,
        "seconds": round(took_s, 1),
        "seeds_per_minute": round(total.seeds / took_s * 60),
        **total.to_data(),
    }
    terminal.emit(document)
    terminal.show(*_table(total, took_s))
    _judge(terminal, total, keep)


def _so_far(total: Tally, took_s: float) -> str:
    rate = total.seeds / max(took_s, 0.001) * 60
    failed = f", {len(total.failures)} FAILED" if total.failures else ""
    return f"{rate:,.0f} seeds a minute, {total.sagas:,} sagas{failed}"


def _table(total: Tally, took_s: float) -> list[Table | Text]:
    table = Table(box=None, pad_edge=False)
    table.add_column("sometimes")
    table.add_column("times", justify="right")
    for what in SOMETIMES:
        count = total.reached[what]
        table.add_row(what, f"{count:,}", style="" if count else "red")
    head = Text(
        f"{total.seeds:,} seeds in {took_s:,.0f} s, {_so_far(total, took_s)}, "
        f"{total.calls:,} calls, {total.virtual_s / 3_600:,.1f} hours of virtual time"
    )
    return [head, table]


def _judge(terminal: Terminal, total: Tally, keep: Path) -> None:
    if total.failures:
        seed, _ = min(total.failures)
        terminal.note(f"seed {seed} breaks a promise; making it smaller")
        recipe = shrink(recipe_of(seed))
        path = keep / f"simulated-{seed}.json"
        recipe.write(path)
        seen = play(recipe)
        found = check(seen)
        _tell(terminal, seen, found)
        others = ", ".join(str(seed) for seed, _ in sorted(total.failures)[:20])
        raise ProblemFoundError(f"seeds that break a promise: {others}; the first is in {path}")
    if total.never:
        raise ProblemFoundError(f"this never happened: {'; '.join(total.never)}")
    terminal.show(Text("no promise was broken", style="bold green"))


def _replay(terminal: Terminal, recipe: Recipe) -> None:
    seen = play(recipe)
    found = check(seen)
    terminal.emit({"seed": recipe.seed, "violations": [v._asdict() for v in found]})
    if found:
        _tell(terminal, seen, found)
        raise ProblemFoundError(f"{len(found)} promises are broken")
    terminal.show(Text("no promise was broken", style="bold green"))


def _tell(terminal: Terminal, seen: Observation, found: list[Violation]) -> None:
    for violation in found:
        about = f" {violation.saga_id}" if violation.saga_id else ""
        terminal.note(f"{violation.invariant}{about}: {violation.what}")
    saga_id = next((violation.saga_id for violation in found if violation.saga_id), "")
    lines = list(story_of(seen, saga_id))
    if len(lines) > STORY_LINES_MAX:
        lines = ["    …", *lines[-STORY_LINES_MAX:]]
    for line in lines:
        terminal.note(line)


def _breed(terminal: Terminal) -> None:
    """Print the table of the documentation, made anew."""
    if is_compiled():
        raise ValidationError("compiled modules cannot be broken; set RAYSAGA_PURE=1", "--mutants")
    escaped = []
    terminal.show(Text("| Mutant | It | Caught by | At seed |\n|---|---|---|---|", overflow="fold"))
    for mutant in MUTANTS:
        caught = mutant.caught()
        if caught is None:
            escaped.append(mutant.name)
            continue
        seed, found = caught
        invariants = list(dict.fromkeys(violation.invariant for violation in found))
        told = f"| `{mutant.name}` | {mutant.what} | {', '.join(invariants)} | {seed} |"
        terminal.emit({"mutant": mutant.name, "seed": seed, "invariants": invariants})
        if not terminal.as_json:
            typer.echo(told)
    if escaped:
        raise ProblemFoundError(f"got away: {', '.join(escaped)}")
