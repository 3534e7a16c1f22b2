"""What a run shows on a terminal: what is being broken, and what holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysaga.simulation.chaos.fault import now_ms
from raysaga.simulation.chaos.nemesis import tally
from raysaga.simulation.chaos.run import Run

EVENTS_SHOWN = 8

_STYLES = {"bit": "green", "missed": "yellow", "unserved": "bold red", "broke": "bold red"}


def screen(run: Run) -> RenderableType:
    """Return the state of a run."""
    gone_s = (now_ms() - run.began_at_ms) / 1_000 if run.began_at_ms else 0.0
    head = Text(f"seed {run.seed}, {gone_s:,.0f} of {run.for_s:,.0f} s", style="bold")
    return Group(head, _served(run), _faults(run), _events(run))


def _served(run: Run) -> Text:
    stage = run.stage
    if stage is None or stage.callers is None:
        return Text("nobody is served just now", style="yellow")
    pulse = stage.pulse()
    refused = sum(count for name, count in pulse.items() if name.startswith("refused"))
    return Text(
        f"these callers: {pulse['accepted']:,} accepted, {pulse['ended']:,} ended, "
        f"{pulse['in_flight']:,} waited for, {refused:,} refused, {pulse['parked_now']:,} parked"
    )


def _faults(run: Run) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("fault", "it", "inflicted", "bit", "missed"):
        table.add_column(name, justify="left" if name in ("fault", "it") else "right")
    counts = tally(run.blows)
    under_way = run.blows[-1].fault if run.blows and not run.blows[-1].healed_at_ms else ""
    for fault in run.faults:
        found = counts[fault.name]
        table.add_row(
            fault.name,
            fault.what,
            *(str(found[what] or "") for what in ("inflicted", "bit", "missed")),
            style="reverse" if fault.name == under_way else "" if found["inflicted"] else "dim",
        )
    return table


def _events(run: Run) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for at_ms, name, what, text in run.events[-EVENTS_SHOWN:]:
        at_s = f"{(at_ms - run.began_at_ms) / 1_000:,.1f} s"
        table.add_row(at_s, name, Text(what, style=_STYLES.get(what, "")), Text(text))
    return table


def summary(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return a report for people: faults, invariants, and the verdict."""
    faults = Table(box=None, pad_edge=False)
    for name in ("fault", "inflicted", "bit", "missed"):
        faults.add_column(name, justify="left" if name == "fault" else "right")
    for row in found["faults"]:
        faults.add_row(
            row["name"],
            *(str(row[what]) for what in ("inflicted", "bit", "missed")),
            style="" if row["bit"] else "yellow",
        )
    invariants = Table(box=None, pad_edge=False)
    invariants.add_column("checked")
    invariants.add_column("of", justify="right")
    invariants.add_column("broken", justify="right")
    for row in found["invariants"]:
        invariants.add_row(
            f"{row['name']} {row['question']}",
            f"{row['checked']:,}",
            str(row["broken"] or ""),
            style="bold red" if row["broken"] else "",
        )
    head = Text(
        f"{found['sagas']:,} sagas in {found['seconds']:,.0f} s, "
        f"longest stall {found['longest_stall_s']:,.1f} s, seed {found['seed']}"
    )
    verdict = (
        Text("every promise was kept", style="bold green")
        if not found["violations"]
        else Text(f"{len(found['violations'])} promises were broken", style="bold red")
    )
    return [head, faults, invariants, verdict]
