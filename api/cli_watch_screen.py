"""Draws what `raysaga watch` shows on a terminal: counts, rates, times, the newest, what is parked.

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
            look: Counts and rates.
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
        lists = Layout(name="lists")
        share = min(len(parked) + 4, 14) if parked else 3
        lists.split_column(
            Layout(Panel(_newest(newest), title="newest", title_align="left"), name="newest"),
            Layout(_parked(parked), name="parked", size=share),
        )
        screen = Layout()
        if width >= WIDTH_OF_TWO:
            screen.split_row(Layout(counts, size=44), lists)
        else:
            screen.split_column(Layout(counts, size=20), lists)
        return screen

    def _rates(self) -> list[Text]:
        return [
            Text.assemble((f"{name:<6}", "dim"), _sparks(rates), f" {_last(rates):>7}/s")
            for name, rates in (("begun", self._begun), ("ended", self._ended))
        ]


def _title(look: Mapping[str, Any]) -> Text:
    state = ("engine runs", "green") if look["engine_running"] else ("no engine", "yellow")
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
