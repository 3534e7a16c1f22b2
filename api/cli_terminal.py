"""What every command has in common: where it writes, how it fails, what it asks first.

Guarantees: data goes to standard output, as a table for people or as JSON with `--json`;
everything else goes to standard error. An error is one sentence with its code, and decides
the exit code; a traceback is shown only with `--debug`.
Refuses: to ask anything where nobody can answer.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from raysaga.statemachines.errors import SagaError

COLUMNS_UNWATCHED = 100
"""Width of tables that go to a file or a pipe, unless COLUMNS says otherwise."""


class ExitCode(IntEnum):
    """How a command ended, for the script that called it."""

    OK = 0
    PROBLEM = 1
    """It worked, and what it found is a problem; or what was asked cannot be."""
    INVALID = 2
    UNAVAILABLE = 3
    """The same command can succeed later."""
    STORAGE = 4
    BUG = 70
    """EX_SOFTWARE of sysexits.h."""
    INTERRUPTED = 130


EXIT_CODES_HELP = (
    "Exit codes: 0 done, 1 a problem was found or the order does not fit, 2 wrong usage or "
    "invalid input, 3 engine unavailable or overloaded (try again), 4 storage unusable or "
    "full, 70 a bug, 130 interrupted."
)

_EXIT_BY_CODE: Mapping[str, ExitCode] = {
    "VALIDATION": ExitCode.INVALID,
    "DEFINITION_INVALID": ExitCode.INVALID,
    "IDEMPOTENCY_CONFLICT": ExitCode.INVALID,
    "INTERRUPTED": ExitCode.INTERRUPTED,
    "PARTICIPANT_NOT_FOUND": ExitCode.INVALID,
    "PARTICIPANT_NOT_SERVED": ExitCode.INVALID,
    "SERVICES_SETTINGS_INVALID": ExitCode.INVALID,
    "STOCK_CONFLICT": ExitCode.INVALID,
    "UNKNOWN_SERVICE": ExitCode.INVALID,
    "STORAGE_ERROR": ExitCode.STORAGE,
    "STORAGE_FULL": ExitCode.STORAGE,
    "STORAGE_FAILED": ExitCode.STORAGE,
    "DATA_FOLDER_UNUSABLE": ExitCode.STORAGE,
    "NEWER_FORMAT": ExitCode.STORAGE,
}


def exit_code_of(error: SagaError) -> ExitCode:
    """Return the exit code of a command that ends with `error`."""
    found = _EXIT_BY_CODE.get(error.code)
    if found is not None:
        return found
    return ExitCode.UNAVAILABLE if error.retryable else ExitCode.PROBLEM


class ProblemFoundError(SagaError):
    """What a command was to check is not in order; its report has been printed.

    Attributes:
        message: What, in one sentence.
    """

    code = "PROBLEM_FOUND"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class InterruptedRunError(SagaError):
    """A person stopped the command; what was begun is on disk.

    Attributes:
        message: How to go on, in one sentence.
    """

    code = "INTERRUPTED"
    retryable = True

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


_JSON_KEY = "raysaga.json"


def _note_json(context: typer.Context, as_json: bool) -> bool:
    """Remember for `report_error`, which is called outside the command, how to tell it."""
    context.meta[_JSON_KEY] = as_json
    return as_json


DataOption = Annotated[
    Path,
    typer.Option(
        "--data", metavar="DIR", envvar="RAYSAGA_DATA", help="The folder that state is kept in."
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", callback=_note_json, is_eager=True, help="JSON on standard output."),
]
IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A saga, as DEFINITION:KEY, or its key alone.")
]
StockOption = Annotated[
    Path | None,
    typer.Option("--stock", metavar="FILE", help="What is in stock at first, as JSON."),
]
ServicesOption = Annotated[
    str,
    typer.Option("--services", metavar="FILE|calm|lively", help="How the four services behave."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Terminal:
    """Where one command writes."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    @property
    def is_watched(self) -> bool:
        """Whether a person looks at standard error, so that a moving display makes sense."""
        return self.err.is_terminal

    def show(self, *what: RenderableType) -> None:
        """Print tables and texts for people; nothing with `--json`."""
        if not self.as_json:
            for one in what:
                self.out.print(one)

    def emit(self, *documents: Mapping[str, Any]) -> None:
        """Print each document as one line of JSON; nothing without `--json`."""
        if self.as_json:
            for document in documents:
                typer.echo(json.dumps(document, default=str))

    def note(self, sentence: str) -> None:
        """Tell something in passing, on standard error."""
        self.err.print(Text(sentence), soft_wrap=True)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before what cannot be taken back, if a person is there to answer.

        Raises:
            Abort: If the answer is no; nothing may have been changed by then.
        """
        if yes or not sys.stdin.isatty():
            return
        # Not by a prompt of the library: it would write a blank among the data.
        self.err.print(Text(f"{question} [y/N] "), end="", soft_wrap=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise typer.Abort


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = COLUMNS_UNWATCHED
    return console


def user_name() -> str:
    """Return who is at the keyboard, for the record of an order."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container a user may have no name.
        return f"uid-{os.getuid()}"


def report_error(context: typer.Context, error: Exception, *, debug: bool) -> ExitCode:
    """Tell what went wrong on standard error; return how the command ends.

    Raises:
        Exception: `error` again, if it is neither a fact nor the operating system's.
    """
    if isinstance(error, SagaError):
        code, exit_code = error.code, exit_code_of(error)
        sentence, retryable = str(error), error.retryable
    elif isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        code, exit_code, sentence = _of_system(error)
        retryable = False
    else:
        raise error
    if debug:
        typer.echo("".join(traceback.format_exception(error)), err=True)
    if context.meta.get(_JSON_KEY):
        facts = {"code": code, "message": sentence, "retryable": retryable}
        typer.echo(json.dumps({"error": {**facts, "exit_code": exit_code}}), err=True)
    else:
        line = Text.assemble(("error: ", "bold red"), printable(sentence), (f" ({code})", "dim"))
        _console(stderr=True).print(line, soft_wrap=True)
    return exit_code


def _of_system(error: OSError) -> tuple[str, ExitCode, str]:
    where = f"{error.filename}: " if error.filename else ""
    told = f"{where}{error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "STORAGE_FULL", ExitCode.STORAGE, f"{told}; free space, then try again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "NOT_PERMITTED", ExitCode.STORAGE, f"{told}; check owner, mode and mount"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return "FILE_UNUSABLE", ExitCode.INVALID, f"{told}; check the path"
    return "SYSTEM_ERROR", ExitCode.PROBLEM, told


def printable(text: str) -> str:
    """Return `text` with control characters escaped: a participant may have written it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """Return `text` with the control characters of each of its lines escaped."""
    return "\n".join(printable(line) for line in text.split("\n"))


def each(terminal: Terminal, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Print rows as JSON lines as they come, or return them for a table."""
    if not terminal.as_json:
        return list(rows)
    for row in rows:
        terminal.emit(row)
    return []
