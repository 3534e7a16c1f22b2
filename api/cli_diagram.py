"""The command `raysaga diagram`: the state machines and definitions of sagas, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raysaga.api.cli_terminal import DataOption, JsonOption, Terminal
from raysaga.api.cli_values import load_definition
from raysaga.api.defaults import DATA_FOLDER
from raysaga.api.diagrams import (
    DiagramName,
    Graph,
    definition_graph,
    graph_of,
    mermaid,
    write_diagram,
)
from raysaga.statemachines.errors import ValidationError

ENDINGS = (".mmd", ".svg", ".png")


def diagram(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help=f"{', '.join(DiagramName)}, or MODULE:NAME.")
    ] = DiagramName.ORDER.value,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"Ends in {', '.join(ENDINGS)}; none: Mermaid text."),
    ] = None,
    data: DataOption = DATA_FOLDER,  # noqa: ARG001 - every command takes it
    as_json: JsonOption = False,
) -> None:
    """Draw a saga's definition, the phases of a saga or the statuses of a step, from their rows.

    Example:  raysaga diagram phases --out phases.svg

    Example:  raysaga diagram trip:trip_saga > trip.mmd
    """
    terminal = Terminal(as_json=as_json)
    graph = _graph(what)
    if out is not None:
        if out.suffix not in ENDINGS:
            raise ValidationError(f"must end in {', '.join(ENDINGS)}", "--out")
        write_diagram(graph, out)
        terminal.note(f"written: {out}")
    terminal.emit(
        {
            "diagram": what,
            "out": None if out is None else str(out),
            "nodes": dict(graph.nodes),
            "edges": [edge._asdict() for edge in graph.edges],
        }
    )
    if out is None and not as_json:
        typer.echo(mermaid(graph), nl=False)


def _graph(what: str) -> Graph:
    """Return the diagram that `what` names.

    Raises:
        ValidationError: If it names none.
    """
    if ":" in what:
        return definition_graph(load_definition(what))
    try:
        return graph_of(DiagramName(what))
    except ValueError as error:
        names = ", ".join(DiagramName)
        raise ValidationError(f"must be {names}, or MODULE:NAME of a definition", "WHAT") from error


def add_to(app: typer.Typer) -> None:
    """Give `app` this command."""
    app.command("diagram")(diagram)
