"""Draws what `raysaga watch` shows: counts, rates, times, shards, participants, newest, parked.

Guarantees: what it is given fits the terminal's height or is cut at the end of a list, never
in the middle of a line; a state is told in words, so that colour is not needed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raysaga.api.cli_terminal import printable
from raysaga.api.cli_values import phase_text, reason_text, told_instant, told_ms
from raysaga.statemachines.tables import TERMINAL

BARS = " ▁▂▃▄▅▆▇█"
LOOKS_KEPT = 60
"""Looks whose rates are drawn: a minute of them, one column each."""

WIDTH_OF_TWO = 100
"""Columns from which on lists stand beside the counts, and not below."""

FACTS_COLUMNS = 46
"""Of counts and shards, where lists stand beside them."""

COUNTS_ROWS = 14
"""Of counts, rates and times, if they do not have the height to themselves."""

ENGINE_ROWS_MAX = 8
"""Shards, or participants, that are shown; `--json` tells all."""

ROWS_MAX = 40
"""Rows of a list; more than a terminal has."""


class Screen:
    """The last minute of looks, and how they are shown."""

    def __init__(self) -> None:
        self._begun: deque[float] = deque(maxlen=LOOKS_KEPT)
        self._ended: deque[float] = deque(maxlen=LOOKS_KEPT)

    def drawn(
        self,
        look: Mapping[str, Any],
        newest: Sequence[Mapping[str, Any]],
        parked: Sequence[Mapping[str, Any]],
        *,
        width: int,
    ) -> RenderableType:
        """Return one look as a whole screen.

        Args:
            look: Counts and rates, shards and participants.
            newest: Index rows, newest first.
            parked: What waits for a person, with the ways on.
            width: Columns of the terminal.
        """
        if look["begun_per_s"] is not None:
            self._begun.append(look["begun_per_s"])
            self._ended.append(look["ended_per_s"])
        counts = Panel(
            Group(_counts(look), Text(), *self._rates(), _times(look)),
            title=_title(look),
            title_align="left",
        )
        shards, participants = look["shards"], look["participants"]
        facts = [Layout(counts), Layout(_shards(shards), size=_rows_shown(shards))]
        lists = [
            Layout(Panel(_newest(newest), title="newest", title_align="left")),
            Layout(_participants(look), size=_rows_shown(participants)),
            Layout(_parked(parked), size=min(len(parked) + 4, 14) if parked else 3),
        ]
        screen = Layout()
        if width >= WIDTH_OF_TWO:
            screen.split_row(Layout(name="facts", size=FACTS_COLUMNS), Layout(name="lists"))
            screen["facts"].split_column(*facts)
            screen["lists"].split_column(*lists)
        else:
            facts[0].size = COUNTS_ROWS
            screen.split_column(*facts, *lists)
        return screen

    def _rates(self) -> list[Text]:
        return [
            Text.assemble((f"{name:<6}", "dim"), _sparks(rates), f" {_last(rates):>7}/s")
            for name, rates in (("begun", self._begun), ("ended", self._ended))
        ]


def _title(look: Mapping[str, Any]) -> Text:
    if look["engine_answers"]:
        state = ("engine runs", "green")
    else:
        state = ("engine does not answer" if look["engine_running"] else "no engine", "yellow")
    return Text.assemble(state, (f"  {told_instant(look['at_ms'])}", "dim"))


def _times(look: Mapping[str, Any]) -> Text:
    if look["p50_ms"] is None:
        return Text("none of the newest has ended", "dim")
    half, most = told_ms(look["p50_ms"]), told_ms(look["p95_ms"])
    return Text.assemble(("took   ", "dim"), half, (f", 95 of 100 within {most}", "dim"))


def _counts(look: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(min_width=16)
    table.add_column(justify="right", min_width=9)
    table.add_column()
    there_are = max(sum(look["counts"].values()), 1)
    for phase, number in look["counts"].items():
        if number or not phase.startswith("parked"):
            bar = Text("█" * round(12 * number / there_are), phase_text(phase).style)
            table.add_row(phase_text(phase), f"{number:,}", bar)
    return table


def _rows_shown(rows: Sequence[object]) -> int:
    """Return the height of a panel for some rows: their heading and its frame included."""
    return min(len(rows), ENGINE_ROWS_MAX) + 3 if rows else 3


def _columns(*names: str) -> Table:
    """Return a table whose first column is text, and the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for place, name in enumerate(names):
        table.add_column(name, no_wrap=True, justify="right" if place else "left")
    return table


def _shards(rows: Sequence[Mapping[str, Any]]) -> Panel:
    table = _columns("shard", "process", "epoch", "queued", "behind", "journal")
    for row in rows[:ENGINE_ROWS_MAX]:
        told = "queued" in row
        table.add_row(
            str(row["shard"]),
            "none" if row["pid"] is None else str(row["pid"]),
            str(row["epoch"]),
            f"{row['queued']:,}" if told else "",
            told_ms(row["overdue_ms"]) if told else "",
            f"{row['map_used'] / row['map_cap']:.0%}" if told else f"{row['map_used'] >> 20:,} MiB",
        )
    shown = table if rows else Text("no engine has been here yet", "dim")
    return Panel(shown, title="shards", title_align="left")


def _participants(look: Mapping[str, Any]) -> Panel:
    table = _columns("name", "circuit", "busy", "waiting", "median", "95 %")
    rows = look["participants"]
    has_one_shard = len(look["shards"]) == 1
    for row in rows[:ENGINE_ROWS_MAX]:
        is_closed = row["circuit"] == "closed"
        table.add_row(
            printable(row["name"] if has_one_shard else f"{row['name']} of {row['shard']}"),
            Text(row["circuit"].replace("_", " "), "green" if is_closed else "bold red"),
            f"{row['in_flight']:,}",
            f"{row['queued']:,}",
            told_ms(row["p50_ms"]),
            told_ms(row["p95_ms"]),
        )
    if look["engine_answers"]:
        nothing = "none was called yet"
    else:
        nothing = "only an engine that runs on this machine can tell"
    shown = table if rows else Text(nothing, "dim")
    return Panel(shown, title="participants", title_align="left")


def _newest(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    if not rows:
        return Text("no saga was submitted yet", "dim")
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    table.add_column(no_wrap=True, ratio=3)
    table.add_column(no_wrap=True, min_width=12)
    table.add_column(no_wrap=True, ratio=4)
    table.add_column(no_wrap=True, justify="right", min_width=8)
    for row in rows:
        ended = row["phase"] in TERMINAL
        took = told_ms(row["changed_at_ms"] - row["accepted_at_ms"]) if ended else ""
        why = reason_text(row["reason"], row["step"])
        table.add_row(row["saga_id"], phase_text(row["phase"]), why, took)
    return table


def _parked(rows: Sequence[Mapping[str, Any]]) -> Panel:
    if not rows:
        return Panel(Text("nothing waits for you", "dim"), title="parked", title_align="left")
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    for ratio in (3, 4, 3):
        table.add_column(no_wrap=True, ratio=ratio)
    for row in rows:
        why = reason_text(row["code"], row["step"])
        table.add_row(printable(row["saga_id"]), why, Text(", ".join(row["ways_on"]), "dim"))
    hint = Text("raysaga retry | skip | force ID", "dim")
    title = Text(f"parked: {len(rows)} wait for you", "bold red")
    return Panel(Group(table, hint), title=title, title_align="left", border_style="red")


def _sparks(rates: Sequence[float], columns: int = 24) -> Text:
    """Return the newest rates as a row of bars; the highest of them fills its column."""
    shown = list(rates)[-columns:]
    highest = max(shown, default=0.0)
    steps = len(BARS) - 1
    bars = "".join(BARS[math.ceil(steps * rate / highest)] if rate else " " for rate in shown)
    return Text(bars.rjust(columns), "cyan")


def _last(rates: Sequence[float]) -> str:
    return f"{rates[-1]:,.1f}" if rates else ""
