"""The command `raysaga diagram`: the state machines and the order saga, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.diagrams import DiagramName, graph_of, mermaid, write_diagram
from raysaga.statemachines.errors import ValidationError

ENDINGS = (".mmd", ".svg", ".png")


def diagram(
    what: Annotated[DiagramName, typer.Argument(help="What to draw.")] = DiagramName.ORDER,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Ends in {', '.join(ENDINGS)}; none: Mermaid text."),
    ] = None,
    data: DataOption = DATA_FOLDER,  # noqa: ARG001 - every command takes it
    as_json: JsonOption = False,
) -> None:
    """Draw the order saga, the phases of a saga or the statuses of a step, from their rows.

    Example:  raysaga diagram phases --out phases.svg

    Example:  raysaga diagram order > order.mmd
    """
    terminal = Terminal(as_json=as_json)
    graph = graph_of(what)
    if out is not None:
        if out.suffix not in ENDINGS:
            raise ValidationError(f"must end in {', '.join(ENDINGS)}", "--out")
        write_diagram(graph, out)
        terminal.note(f"written: {out}")
    terminal.emit(
        {
            "diagram": what.value,
            "out": None if out is None else str(out),
            "nodes": dict(graph.nodes),
            "edges": [edge._asdict() for edge in graph.edges],
        }
    )
    if out is None and not as_json:
        typer.echo(mermaid(graph), nl=False)


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("diagram")(diagram)
