"""The commands that only look: show, list, parked, logs and status; none starts an engine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from raysaga.actors.archive import Archive
from raysaga.api.cli_terminal import (
    DataOption,
    IdArgument,
    JsonOption,
    ProblemFoundError,
    Terminal,
    each,
    printable,
)
from raysaga.api.cli_values import (
    STATES,
    age_ms,
    facts_text,
    phase_text,
    phases_of,
    reason_text,
    told_instant,
    told_ms,
)
from raysaga.api.defaults import DATA_FOLDER
from raysaga.statemachines.ids import Direction
from raysaga.statemachines.tables import TERMINAL

LIMIT_USUAL = 50
"""Rows of a list; more than a screen of them is better read by a program."""

PayloadsOption = Annotated[
    bool, typer.Option("--payloads", help="Requests and results too; they may be private.")
]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows at most.")]


def show(
    id_: IdArgument,
    data: DataOption = DATA_FOLDER,
    payloads: PayloadsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show one saga: where it stands, and every attempt of every step.

    Calls forward stand on the left, compensations mirror them on the right.

    Example:  raysaga show order:31198570044
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive:
        saga_id = archive.find(id_)
        status = archive.status(saga_id)
        rows: list[dict[str, Any]] = []
        if not (status["pruned"] or status["flaw"]):
            rows = archive.timeline(saga_id, payloads=payloads)
    if not payloads:
        status.pop("results", None)
    terminal.emit({**status, "timeline": rows})
    terminal.show(saga_panel(status, rows))
    if status["flaw"]:
        raise ProblemFoundError(f"the history of {saga_id} cannot be read: {status['flaw']}")


def saga_panel(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Group:
    """Return where a saga stands, above its timeline."""
    title = Text.assemble((status["saga_id"], "bold"), "  ", phase_text(status["phase"]))
    lines: list[Text | Table] = [title]
    if status["code"]:
        lines.append(Text.assemble("reason  ", reason_text(status["code"], status["step"])))
    if status["message"] and not status["flaw"]:
        lines.append(Text(f"        {printable(status['message'])}"))
    if status["pruned"]:
        lines.append(Text("its records were pruned; only its end is still known", style="dim"))
        return Group(*lines)
    lines.append(Text(_times(status), style="dim"))
    if status.get("remaining"):
        lines.append(Text(f"effects that stand or may stand: {', '.join(status['remaining'])}"))
    if status["ways_on"]:
        lines.append(Text(f"ways on: {_commands(status)}"))
    if rows:
        lines.append(_timeline(status, rows))
    return Group(*lines)


def _times(status: Mapping[str, Any]) -> str:
    accepted, changed = status["accepted_at_ms"], status["changed_at_ms"]
    shown = f"accepted {told_instant(accepted, with_ms=True)}"
    ended = status["phase"] in TERMINAL
    shown += f", {'ended' if ended else 'last changed'} after {told_ms(changed - accepted)}"
    if not ended and status.get("due_at_ms") is not None:
        shown += f", looked at again at {told_instant(status['due_at_ms'])}"
    if status.get("recoveries"):
        shown += f", taken up {status['recoveries']} times without progress"
    return shown


def _commands(status: Mapping[str, Any]) -> str:
    notes = {"retry": "", "skip": " --note WHY", "force": " --note WHY"}
    return ", ".join(f"raysaga {way} {status['saga_id']}{notes[way]}" for way in status["ways_on"])


def _timeline(status: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("step", no_wrap=True)
    table.add_column("forward", overflow="fold")
    table.add_column("back", overflow="fold")
    began_at_ms = status["accepted_at_ms"]
    for row in rows:
        after = Text(f"+{told_ms(row['at_ms'] - began_at_ms)}", style="dim")
        if row["kind"] == "attempt":
            cell, back = _attempt(row), row["direction"] == Direction.COMPENSATION
            table.add_row(after, row["step"], "" if back else cell, cell if back else "")
        else:
            facts = {k: v for k, v in row.items() if k not in _UNTOLD}
            if facts.get("message") == status["message"]:
                # It stands above the table already.
                del facts["message"]
            told = row["event"].removeprefix("saga_").replace("_", " ")
            table.add_row(after, Text(told, style="bold"), Text(facts_text(facts), style="dim"))
    return table


_UNTOLD = frozenset(
    {"kind", "event", "at_ms", "definition_hash", "fingerprint", "scope", "deadline_at_ms", "key"}
)
_MARKS: Mapping[str, tuple[str, str]] = {
    "succeeded": ("done", "green"),
    "undone": ("undone", "green"),
    "refused": ("refused", "yellow"),
    "failed": ("failed", "red"),
    "": ("no answer", "dim"),
}


def _attempt(row: Mapping[str, Any]) -> Text:
    mark, style = _MARKS[row["answer"]]
    cell = Text(row["operation"])
    if row["attempt"] > 1:
        cell.append(f" #{row['attempt']}")
    cell.append(" ").append(mark, style=style)
    if row["took_ms"] is not None:
        cell.append(f" in {told_ms(row['took_ms'])}", style="dim")
    if row["code"]:
        told = row["code"] + (f": {row['message']}" if row["message"] else "")
        cell.append(f"\n{printable(told)}", style="dim")
    if row["retry_at_ms"] is not None:
        wait_ms = row["retry_at_ms"] - row["at_ms"] - (row["took_ms"] or 0)
        cell.append(f"\nagain after {told_ms(wait_ms)}", style="dim")
    if row.get("result"):
        cell.append(f"\n{facts_text(row['result'])}", style="dim")
    return cell


def list_sagas(
    data: DataOption = DATA_FOLDER,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help=f"One of {', '.join(STATES)}; may be repeated."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Accepted longer ago, such as 90s, 5m, 2d.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="Exactly this code.")] = None,
    step: Annotated[
        str | None, typer.Option(metavar="STEP", help="The reason is about this step.")
    ] = None,
    definition: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sagas of this definition.")
    ] = None,
    limit: LimitOption = LIMIT_USUAL,
    as_json: JsonOption = False,
) -> None:
    """List sagas, newest first; with --json one line each.

    Example:  raysaga list --state parked --older-than 5m

    Example:  raysaga list --reason INSUFFICIENT_STOCK --limit 1000 --json
    """
    terminal = Terminal(as_json=as_json)
    now_ms = time.time_ns() // 1_000_000
    before_ms = None if older_than is None else now_ms - age_ms(older_than)
    phases = phases_of(state or [])
    with Archive.open(data) as archive:
        found = archive.rows(
            limit=limit,
            phases=phases,
            reason=reason,
            step=step,
            definition=definition,
            accepted_before_ms=before_ms,
        )
        rows = each(terminal, found)
    if as_json:
        return
    if not rows:
        terminal.note("no saga meets these conditions")
        return
    terminal.show(_list_table(rows, now_ms))
    if len(rows) == limit:
        terminal.note(f"the first {limit}; there may be more (--limit)")


def _list_table(rows: Sequence[Mapping[str, Any]], now_ms: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("saga", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("reason", overflow="fold")
    table.add_column("accepted", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for row in rows:
        ended = row["phase"] in TERMINAL
        took_ms = (row["changed_at_ms"] if ended else now_ms) - row["accepted_at_ms"]
        table.add_row(
            row["saga_id"],
            phase_text(row["phase"]),
            reason_text(row["reason"], row["step"]),
            Text(told_instant(row["accepted_at_ms"]), style="dim"),
            Text(told_ms(took_ms), style="" if ended else "cyan"),
        )
    return table


def parked(
    data: DataOption = DATA_FOLDER, limit: LimitOption = LIMIT_USUAL, as_json: JsonOption = False
) -> None:
    """List the sagas that wait for a person: why, what stands, and what can be done.

    Example:  raysaga parked
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive:
        rows = each(terminal, archive.parked(limit))
        waiting = sum(n for phase, n in archive.counts().items() if phase in STATES["parked"])
    if as_json:
        return
    for row in rows:
        parts = [
            Text.assemble((row["saga_id"], "bold"), "  ", phase_text(row["phase"])),
            Text.assemble("  reason   ", reason_text(row["code"], row["step"])),
            Text(f"           {printable(row['message'])}"),
            Text(f"  since    {told_instant(row['changed_at_ms'])}"),
            Text(f"  stands   {', '.join(row['remaining']) or 'nothing'}"),
            Text(f"  ways on  {_commands(row) or 'none: restore a backup'}"),
        ]
        terminal.show(*parts, Text())
    shown = f", the newest {len(rows)} are shown" if waiting > len(rows) else ""
    terminal.note(f"{waiting} parked{shown}" if waiting else "nothing is parked")


def logs(
    id_: IdArgument,
    data: DataOption = DATA_FOLDER,
    payloads: PayloadsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what happened to one saga: its journal and the log lines about it, by time.

    The log may be cut or deleted at any time; the journal tells everything that counts.

    Example:  raysaga logs order:31198570044
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive:
        rows = archive.logs(archive.find(id_), payloads=payloads)
    for row in rows:
        terminal.emit(row)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        facts = {k: v for k, v in row.items() if k not in _IN_COLUMNS}
        table.add_row(
            told_instant(row["at_ms"], with_ms=True),
            Text(row["source"], style="dim"),
            Text(printable(str(row["event"])), style=_LEVELS.get(row.get("level", ""), "")),
            Text(facts_text(facts)),
        )
    terminal.show(table)


_IN_COLUMNS = frozenset({"at_ms", "source", "event", "level", "definition_hash", "fingerprint"})
_LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}


def status(data: DataOption = DATA_FOLDER, as_json: JsonOption = False) -> None:
    """Tell whether an engine runs on the folder, and how many sagas are where.

    Example:  raysaga status --data /srv/orders
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive:
        engine, counts = archive.engine(), archive.counts()
        folder = archive.folder
        facts = {
            "data": str(folder.path),
            "uuid": folder.uuid,
            "shard_count": folder.shard_count,
            "engine": engine,
            "counts": counts,
        }
    terminal.emit(facts)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    housed = ", ".join(f"shard {shard} in process {pid}" for shard, pid in engine["shards"].items())
    table.add_row("data", Text(str(folder.path)))
    table.add_row("engine", Text(f"runs: {housed}" if housed else "does not run"))
    if engine["address"]:
        table.add_row("ray", Text(f"{engine['address']}, started by {engine['driver_pid']}"))
    for phase, count in counts.items():
        if count:
            table.add_row(phase_text(phase), f"{count:,}")
    if not any(counts.values()):
        table.add_row("sagas", "none")
    terminal.show(table)


def add_to(app: typer.Typer) -> None:
    """Give `app` these commands."""
    app.command("show", no_args_is_help=True)(show)
    app.command("list")(list_sagas)
    app.command("parked")(parked)
    app.command("logs", no_args_is_help=True)(logs)
    app.command("status")(status)
