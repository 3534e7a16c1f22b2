"""The command `raysaga watch`: what goes on, again and again; starts no engine.

On a terminal it fills the screen; elsewhere a look is a line, or a line of JSON. What the disk
does not know, such as how participants do, an engine that runs on this machine is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from raysaga.actors.archive import Archive
from raysaga.actors.errors import EngineUnavailableError
from raysaga.actors.shard_lines import ShardLines
from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.cli_values import STATES, told_instant, told_ms
from raysaga.api.cli_watch_screen import ROWS_MAX, Screen
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.engine_rows import AnswerTimes, commit_p99_ms, participant_rows
from raysaga.statemachines.tables import TERMINAL

TIMED_SAGAS = 500
"""Newest sagas of which those that have ended tell how long they took; some milliseconds."""


def watch(
    data: DataOption = DATA_FOLDER,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3_600, help="Seconds between two looks.")
    ] = 1.0,
    count: Annotated[
        int | None, typer.Option(min=1, help="Looks, and then the end; for scripts.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Watch sagas, what waits, shards and participants, again and again; Ctrl-C ends it.

    It starts no engine. One that runs on this machine is asked how its shards and participants
    do; without one, the shards are told as the folder has them.

    Example:  raysaga watch

    Example:  raysaga watch --count 60 --interval 1 --json > throughput.jsonl
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive, _Engine(archive) as engine, suppress(KeyboardInterrupt):
        looks = _looks(archive, engine, interval, count)
        if as_json:
            for look in looks:
                terminal.emit(look)
        elif terminal.out.is_terminal:
            _show(terminal, archive, looks)
        else:
            for look in looks:
                terminal.show(Text(_line(look)))


def _show(terminal: Terminal, archive: Archive, looks: Iterator[dict[str, Any]]) -> None:
    """Fill the terminal with each look; what it held before comes back at the end."""
    screen = Screen()
    with Live(console=terminal.out, auto_refresh=False, screen=True) as live:
        for look in looks:
            newest = list(archive.rows(limit=ROWS_MAX))
            parked = list(archive.parked(ROWS_MAX))
            drawn = screen.drawn(look, newest, parked, width=terminal.out.width)
            live.update(drawn, refresh=True)


class _Engine:
    """What is known of shards and participants; closed by `with`."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._lines = ShardLines(archive.folder)
        self._times = AnswerTimes()
        self._runner = asyncio.Runner()

    def __enter__(self) -> _Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._runner.close()

    def look(self) -> dict[str, Any]:
        """Return what the engine says; of shards, what the folder says, if it says nothing."""
        rows = self._archive.shards()
        is_running = any(row["pid"] is not None for row in rows)
        told: Sequence[Mapping[str, Any]] = ()
        if is_running:
            with suppress(EngineUnavailableError):
                told = self._runner.run(self._lines.stats())
                self._times.add(told)
        return {
            "engine_running": is_running,
            "engine_answers": bool(told),
            "shards": [_shard_row(shard) for shard in told] or rows,
            "participants": participant_rows(told, self._times),
        }


_SHARD_FACTS = ("shard", "pid", "epoch", "map_used", "map_cap", "in_memory", "queued", "overdue_ms")


def _shard_row(shard: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shard[name] for name in _SHARD_FACTS} | {"commit_p99_ms": commit_p99_ms(shard)}


def _looks(
    archive: Archive, engine: _Engine, interval_s: float, count: int | None
) -> Iterator[dict[str, Any]]:
    """Yield counts and rates; a rate needs two looks and is None on the first."""
    never = Event()
    before: tuple[float, int, int] | None = None
    done = 0
    while True:
        counts = archive.counts()
        now_s = time.monotonic()
        ended = sum(n for phase, n in counts.items() if phase in TERMINAL)
        there_are = sum(counts.values())
        begun_per_s = ended_per_s = None
        if before is not None:
            elapsed_s = now_s - before[0]
            # Pruning makes counts smaller; that is no negative throughput.
            begun_per_s = max(0.0, (there_are - before[1]) / elapsed_s)
            ended_per_s = max(0.0, (ended - before[2]) / elapsed_s)
        before = (now_s, there_are, ended)
        yield {
            "at_ms": time.time_ns() // 1_000_000,
            "counts": counts,
            "open": there_are - ended,
            "begun_per_s": begun_per_s,
            "ended_per_s": ended_per_s,
            **_times(archive),
            **engine.look(),
        }
        done += 1
        if count is not None and done >= count:
            return
        never.wait(interval_s)


def _times(archive: Archive) -> dict[str, int | None]:
    """Return how long the newest that have ended took: half of them, and 95 of 100."""
    took_ms = sorted(
        row["changed_at_ms"] - row["accepted_at_ms"]
        for row in archive.rows(limit=TIMED_SAGAS)
        if row["phase"] in TERMINAL
    )
    if not took_ms:
        return {"p50_ms": None, "p95_ms": None}
    last = len(took_ms) - 1
    return {"p50_ms": took_ms[last // 2], "p95_ms": took_ms[round(last * 0.95)]}


def _line(look: Mapping[str, Any]) -> str:
    counts = look["counts"]
    parked = sum(n for phase, n in counts.items() if phase in STATES["parked"])
    told = (
        f"{told_instant(look['at_ms'])}  open {look['open']:,}  parked {parked:,}  "
        f"completed {counts['completed']:,}  compensated {counts['compensated']:,}"
    )
    if look["ended_per_s"] is not None:
        told += f"  {look['ended_per_s']:,.1f} ended/s"
    if look["p50_ms"] is not None:
        told += f"  median {told_ms(look['p50_ms'])}"
    open_circuits = {row["name"] for row in look["participants"] if row["circuit"] != "closed"}
    if open_circuits:
        told += f"  circuit not closed: {', '.join(sorted(open_circuits))}"
    return told


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("watch")(watch)
