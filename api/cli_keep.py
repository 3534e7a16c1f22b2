"""The commands that check and copy a data folder: verify, audit, backup and restore."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import (
    audit_folder,
    backup_folder,
    restore_folder,
    under_way,
    verify_folder,
)
from raysaga.actors.certificate import (
    certify,
    check_certificate,
    read_certificate,
    write_certificate,
)
from raysaga.api.cli_progress import parts_shown
from raysaga.api.cli_terminal import (
    DataOption,
    JsonOption,
    ProblemFoundError,
    Terminal,
    YesOption,
    printable,
    printable_lines,
)
from raysaga.api.cli_values import told_instant
from raysaga.api.defaults import DATA_FOLDER
from raysaga.statemachines.errors import ValidationError

PROBLEMS_SHOWN = 10
"""Problems of each part that a table shows; `--json` has more."""


def verify(data: DataOption = DATA_FOLDER, as_json: JsonOption = False) -> None:
    """Check every record, chain, index and ledger row of the folder.

    An engine may go on meanwhile. Exit code 1 if anything is wrong.

    Example:  raysaga verify --data raysaga-data
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive, parts_shown(terminal) as tell:
        report = verify_folder(archive, progress=tell)
    terminal.emit(report)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("part", no_wrap=True)
    table.add_column("checked", justify="right")
    table.add_column("problems", overflow="fold")
    for part in report["parts"]:
        told = "\n".join(part["problems"][:PROBLEMS_SHOWN])
        left = part["problem_count"] - min(part["problem_count"], PROBLEMS_SHOWN)
        told += f"\nand {left:,} more" if left else ""
        shown = Text(printable_lines(told), style="red") if told else Text("none", style="green")
        table.add_row(part["name"], f"{part['checked']:,}", shown)
    terminal.show(table)
    if not report["is_sound"]:
        count = sum(part["problem_count"] for part in report["parts"])
        raise ProblemFoundError(f"{count:,} problems were found; restore a backup, or ask for help")
    terminal.note("sound" if report["parts"] else "sound: there is nothing yet")


def audit(
    data: DataOption = DATA_FOLDER,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="Write a certificate to a new file."),
    ] = None,
    verify_certificate: Annotated[
        Path | None,
        typer.Option(
            "--verify-certificate", metavar="FILE", help="Hold the folder against one; no audit."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check that the books of the order saga balance: stock, money, shipments, letters.

    Believes the services' ledgers and how each saga ended, and nothing else. Let the sagas
    under way end first. Exit code 1 if the books do not balance, or if the folder is neither
    the certified one nor has grown from it.

    Example:  raysaga audit --json

    Example:  raysaga audit --certificate monday.json

    Example:  raysaga audit --verify-certificate monday.json
    """
    terminal = Terminal(as_json=as_json)
    if verify_certificate is not None:
        if certificate is not None:
            raise ValidationError("write one or verify one, not both", "--certificate")
        _hold_against(terminal, data, verify_certificate)
        return
    written = None
    with Archive.open(data) as archive, parts_shown(terminal) as tell:
        open_count = under_way(archive.counts())
        found = audit_folder(archive, progress=tell)
        if certificate is not None and found.is_clean:
            written = certify(archive, found, progress=tell)
            write_certificate(certificate, written)
    report = found.to_data()
    if open_count:
        terminal.note(f"{open_count:,} sagas are under way; the books balance only at rest")
    terminal.emit(report if written is None else {**report, "certificate": written})
    terminal.show(*audit_tables(report))
    if not found.is_clean:
        failed = [check.name for check in found.failed]
        raise ProblemFoundError(f"the books do not balance: {', '.join(failed)}")
    if written is not None:
        terminal.note(f"certificate written: {certificate}; seal {written['seal']}")


_VERDICTS = {
    "equal": "the folder is what the certificate says",
    "grown": "the folder has grown from what the certificate says",
    "pruned": "sagas that it counts are gone, by retention or not; the rest is as it says",
    "differs": "the folder is not what the certificate says, and has not grown from it",
}


def _hold_against(terminal: Terminal, data: Path, path: Path) -> None:
    certificate = read_certificate(path)
    with Archive.open(data) as archive, parts_shown(terminal) as tell:
        report = check_certificate(archive, certificate, progress=tell)
    terminal.emit(report)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("certificate of", told_instant(report["made_at_ms"]))
    table.add_row("sagas certified", f"{report['certified_count']:,}")
    table.add_row("accepted since", f"{report['new_count']:,}")
    table.add_row("gone on since", f"{report['moved_count']:,}")
    table.add_row("gone since", f"{report['gone_count']:,}")
    for difference in report["differences"]:
        table.add_row("differs", Text(printable(difference), style="red"))
    verdict = _VERDICTS[report["verdict"]]
    terminal.show(table, Text(verdict, style="bold green" if report["holds"] else "bold red"))
    if not report["holds"]:
        raise ProblemFoundError(verdict)


def audit_tables(report: Mapping[str, Any]) -> list[RenderableType]:
    """Return an audit for people: a line for each check, and the verdict."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", style="dim", no_wrap=True)
    for check in report["checks"]:
        passed = check["passed"]
        mark = Text("ok", style="green") if passed else Text("FAIL", style="bold red")
        told = Text(check["question"])
        for offender in check["offenders"][:PROBLEMS_SHOWN]:
            told.append(f"\n  {printable(offender)}", style="red")
        left = check["offender_count"] - PROBLEMS_SHOWN
        if left > 0:
            told.append(f"\n  and {left:,} more", style="red")
        table.add_row(mark, told, f"{check['examined_count']:,}")
    parts: list[RenderableType] = [table]
    parts.extend(Text(f"note: {printable(note)}", style="yellow") for note in report["notes"])
    if report["is_clean"]:
        parts.append(Text("the books balance", style="bold green"))
    else:
        parts.append(Text("the books do not balance", style="bold red"))
    return parts


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new or an empty folder.")],
    data: DataOption = DATA_FOLDER,
    as_json: JsonOption = False,
) -> None:
    """Copy the whole folder in a consistent state, verified; an engine may go on meanwhile.

    The copy holds all data in the clear; keep it as you keep the folder.

    Example:  raysaga backup /mnt/backup/orders-monday
    """
    terminal = Terminal(as_json=as_json)
    with Archive.open(data) as archive, parts_shown(terminal) as tell:
        report = backup_folder(archive, target, progress=lambda part: tell(part, 0, 1))
    terminal.emit(report)
    terminal.show(_copied(report))


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A backup.")],
    data: DataOption = DATA_FOLDER,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new data folder of a backup; what is there is never overwritten.

    Stop the engine of the original for good first: afterwards only one of the two may go
    on. When an engine starts on the restored folder, it asks every service what happened
    since the backup before it does anything.

    Example:  raysaga restore /mnt/backup/orders-monday --data raysaga-data
    """
    terminal = Terminal(as_json=as_json)
    terminal.confirm(f"Is the engine of the original stopped for good? Restore to {data}?", yes=yes)
    with parts_shown(terminal) as tell:
        report = restore_folder(source, data, progress=lambda part: tell(part, 0, 1))
    terminal.emit(report)
    terminal.show(_copied(report))


def _copied(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("folder", Text(report["path"]))
    table.add_row("as of", told_instant(report["made_at_ms"]))
    table.add_row("sagas", f"{report['saga_count']:,}")
    table.add_row("services", ", ".join(report["services"]) or "none")
    table.add_row("size", f"{report['size_bytes'] / (1 << 20):,.1f} MiB")
    return table


def add_to(app: typer.Typer) -> None:
    """Give `app` these commands."""
    app.command("verify")(verify)
    app.command("audit")(audit)
    app.command("backup", no_args_is_help=True)(backup)
    app.command("restore", no_args_is_help=True)(restore)
