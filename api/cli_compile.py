"""The command `raysaga compile`: the same engine, with less of a processor's time."""

from __future__ import annotations

from contextlib import nullcontext

import typer

from raysaga.api.cli_terminal import JsonOption, Terminal
from raysaga.api.compiling import compile_modules
from raysaga.compiled import COMPILED_FOLDER


def compile_command(as_json: JsonOption = False) -> None:
    """Compile the modules that every saga passes through; needs a C compiler and mypy.

    It takes a minute. Engines that are started afterwards use them, unless the environment
    has RAYSAGA_PURE or a source was changed since. There is no --data: it serves all folders.

    Example:  pip install 'raysaga[compiled]' && raysaga compile
    """
    terminal = Terminal(as_json=as_json)
    waiting = terminal.err.status("compiling") if terminal.is_watched else nullcontext()
    with waiting:
        count = compile_modules()
    terminal.emit({"modules": count, "folder": str(COMPILED_FOLDER)})
    terminal.note(f"{count} modules are compiled in {COMPILED_FOLDER}")


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("compile")(compile_command)
