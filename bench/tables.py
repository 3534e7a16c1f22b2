"""Shows lines of results as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from raysaga.bench.activities import ACTIVITIES, WAIT
from raysaga.bench.compare import Change

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
    "foreign_cores",
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


def tables(lines: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Yield a table for each workload, and one for each profile."""
    for line in lines:
        if "us_per_saga_by_activity" in line:
            yield _profile(line)
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


def _profile(line: dict[str, Any]) -> Table:
    """Return the table of what a saga pays for, in microseconds, by activity and process."""
    by_process: dict[str, dict[str, float]] = line["us_per_saga_by_activity"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="µs a saga", show_footer=True)
    table.add_column("activity", footer="CPU")
    totals = {name: sum(parts.values()) for name, parts in by_process.items()}
    for name, total in totals.items():
        table.add_column(name, justify="right", footer=f"{total:.1f}")
    table.add_column("all", justify="right", footer=f"{sum(totals.values()):.1f}")
    for activity in ACTIVITIES:
        row = [parts.get(activity, 0.0) for parts in by_process.values()]
        if any(row):
            table.add_row(activity, *(f"{us:.1f}" for us in row), f"{sum(row):.1f}")
    empty = [""] * len(by_process)
    table.add_row(f"{WAIT} (cores idle)", *empty, f"{line[f'us_per_saga_{WAIT}']:.1f}")
    table.add_row("wall x cores", *empty, f"{line['us_per_saga_of_the_cores']:.1f}")
    return table


def change_table(changes: Sequence[Change]) -> Table:
    """Return the table of a comparison."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what")
    table.add_column("figure")
    for name in ("before", "after", "change", "verdict"):
        table.add_column(name, justify="right")
    colours = {"better": "green", "worse": "red"}
    for change in changes:
        grown = (change.after - change.before) / change.before if change.before else 0.0
        verdict = Text(change.verdict, style=colours.get(change.verdict, "dim"))
        row = (f"{change.before:,.5g}", f"{change.after:,.5g}", f"{grown:+.1%}")
        table.add_row(change.what, change.figure, *row, verdict)
    return table
