"""The command `raysaga doctor`: is this machine, and this folder, fit for an engine?"""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from raysaga.actors.doctor import Verdict, examine
from raysaga.api.cli_terminal import (
    DataOption,
    JsonOption,
    ProblemFoundError,
    Terminal,
    printable,
)
from raysaga.api.defaults import DATA_FOLDER

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}


def doctor(data: DataOption = DATA_FOLDER, as_json: JsonOption = False) -> None:
    """Look at what an engine needs of this machine and this folder, and say what to mend.

    Exit code 1 if an engine would not start here, or would not be safe.

    Example:  raysaga doctor --data raysaga-data
    """
    terminal = Terminal(as_json=as_json)
    findings = list(examine(data))
    failed = [finding for finding in findings if finding.verdict is Verdict.FAIL]
    terminal.emit({"is_fit": not failed, "findings": [finding._asdict() for finding in findings]})
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        told = Text(printable(finding.detail))
        if finding.advice:
            told.append(f"\n{printable(finding.advice)}", style=_STYLES[finding.verdict])
        mark = Text(finding.verdict.value, style=_STYLES[finding.verdict])
        table.add_row(mark, finding.name, told)
    terminal.show(table)
    if failed:
        names = ", ".join(finding.name for finding in failed)
        raise ProblemFoundError(f"an engine cannot run safely here: {names}")


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("doctor")(doctor)
