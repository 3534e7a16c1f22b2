"""The command line: `raysaga COMMAND`.

Guarantees: what only looks starts no engine and answers within a second; what changes
something joins the engine of the data folder, or starts one. How commands fail and end is
in `cli_terminal`.

A package can add a command of its own: an entry point in the group `raysaga.commands`,
named as the command, that leads to a `typer.Typer` with one or more commands. It is
imported only when its name is typed, or the help is asked for. Behind it, in brackets, may
stand the extra of ours that it needs.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

import raysaga
from raysaga.api import (
    cli_compile,
    cli_diagram,
    cli_doctor,
    cli_egress,
    cli_ingress,
    cli_keep,
    cli_operate,
    cli_participant,
    cli_read,
    cli_run,
    cli_watch,
)
from raysaga.api.cli_orders import orders_app
from raysaga.api.cli_terminal import EXIT_CODES_HELP, ExitCode, report_error
from raysaga.api.errors import MissingPackageError
from raysaga.statemachines.errors import SagaError

PLUGIN_GROUP = "raysaga.commands"
"""Entry points of commands that other packages add."""


class Commands(TyperGroup):
    """The commands of this package and of its plug-ins, with one way to fail."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, ours first."""
        return [*super().list_commands(ctx), *sorted(_plugins())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name; None if there is none."""
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in (plugins := _plugins()):
            found = get_command(_loaded(plugins[cmd_name]))
        return found

    def invoke(self, ctx: Any) -> Any:
        """Run a command; tell its error in one sentence.

        Raises:
            Exit: With the exit code of the error.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (SagaError, OSError) as error:
            debug = bool(ctx.params.get("debug"))
            raise typer.Exit(report_error(ctx, error, debug=debug)) from error


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _loaded(point: EntryPoint) -> typer.Typer:
    """Return a plug-in's commands; where packages are missing, one that says how to get them."""
    try:
        loaded: typer.Typer = point.load()
    except ModuleNotFoundError as error:
        if not point.extras:
            raise
        how = f"pip install 'raysaga[{','.join(point.extras)}]'"
        missing = MissingPackageError(error.name or "a package", how)
    else:
        return loaded
    stand_in = typer.Typer()
    anything = {"allow_extra_args": True, "ignore_unknown_options": True}

    @stand_in.command(point.name, help=f"{missing}.", context_settings=anything)
    def say_so() -> None:
        raise missing

    return stand_in


app = typer.Typer(
    name="raysaga",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raysaga {raysaga.__version__}")
        raise typer.Exit


@app.callback()
def _raysaga(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="RAYSAGA_DEBUG", help="Show tracebacks of errors.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """Durable sagas for Ray: every order ends done or undone.

    Results go to standard output, as tables or with --json as JSON; messages, progress and
    errors go to standard error.

    Try:  raysaga run --services lively
    """


for _module in (
    cli_run,
    cli_operate,
    cli_read,
    cli_watch,
    cli_keep,
    cli_doctor,
    cli_diagram,
    cli_compile,
    cli_participant,
    cli_ingress,
    cli_egress,
):
    _module.add_to(app)
app.add_typer(orders_app)


def main() -> None:
    """Run the command line of this process, and end with its exit code."""
    try:
        app()
    except Exception as error:
        # Whatever is neither a fact nor the operating system's is ours to mend.
        if "--debug" in sys.argv or os.environ.get("RAYSAGA_DEBUG"):
            traceback.print_exc()
        else:
            typer.echo(f"error: this is a bug: {error!r}; --debug shows where (BUG)", err=True)
        raise SystemExit(ExitCode.BUG) from error
