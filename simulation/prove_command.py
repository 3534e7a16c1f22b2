"""`raysaga prove`: every history of one saga of a definition, or the shortest that breaks it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raysaga.api.cli_terminal import JsonOption, ProblemFoundError, Terminal
from raysaga.api.cli_values import load_definition
from raysaga.simulation.prove import Proof, prove
from raysaga.simulation.prove_matrix import POINTS
from raysaga.simulation.prove_moves import Bounds, with_durability
from raysaga.simulation.prove_promises import PROMISES
from raysaga.statemachines.definition import Durability

prove_app = typer.Typer(add_completion=False)


@prove_app.command("prove", no_args_is_help=True)
def prove_command(
    definition: Annotated[
        str,
        typer.Argument(metavar="DEFINITION", help="As module:attribute; found from here, too."),
    ],
    attempts: Annotated[
        int, typer.Option(min=1, max=4, help="Attempts of each call, at most.")
    ] = 2,
    crashes: Annotated[int, typer.Option(min=0, max=3, help="Deaths of the host, at most.")] = 1,
    orders: Annotated[int, typer.Option(min=0, max=3, help="An operator's orders, at most.")] = 1,
    durability: Annotated[
        Durability | None, typer.Option(help="Instead of the definition's own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Visit every state that one saga of DEFINITION can come to, and check every promise.

    Calls and answers may be lost, late, doubled and overtaken any number of times; each step
    may succeed, be refused or stay unknown; each undo may fail for ever; the host may die
    between any two things it does. Exit code 1 and the shortest story if a promise breaks.

    Example:  raysaga prove raysaga.orders:order_saga

    Example:  raysaga prove trip:trip_saga --crashes 2 --json
    """
    terminal = Terminal(as_json=as_json)
    found = load_definition(definition)
    if durability is not None:
        found = with_durability(found, durability)
    bounds = Bounds(attempts_max=attempts, crashes_max=crashes, orders_max=orders)
    proof = prove(found, bounds)
    terminal.emit(proof.to_data())
    terminal.show(*_shown(proof))
    if not proof.holds:
        assert proof.broken is not None
        raise ProblemFoundError(f"a promise does not hold: {PROMISES[proof.broken]}")


_SHORT = {"completed": "done", "compensated": "undone", "parked": "parked"}


def _shown(proof: Proof) -> list[RenderableType]:
    definition, bounds = proof.definition, proof.bounds
    head = Text.assemble(
        (definition.name, "bold"),
        f", {len(definition.steps)} steps, {definition.durability.value}: ",
        f"{proof.state_count:,} states, {proof.move_count:,} moves, {proof.elapsed_s:.1f} s",
    )
    within = Text(
        f"at most, in one history: attempts of a call {bounds.attempts_max}, crashes "
        f"{bounds.crashes_max}, orders of an operator {bounds.orders_max}; calls and answers "
        "lost, late, doubled and overtaken without bound",
        style="dim",
    )
    if not proof.holds:
        lines = Text("\n".join(proof.story[:-1]))
        return [head, within, lines, Text(proof.story[-1], style="bold red")]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title="If the host dies when this is where it stands, and nothing else goes wrong",
        title_justify="left",
        title_style="",
    )
    table.add_column("step", no_wrap=True)
    for point in POINTS:
        table.add_column(point)
    for line in proof.matrix:
        cells = (" ".join(_SHORT[end] for end in line.ends.get(p, ())) for p in POINTS)
        table.add_row(line.what, *cells)
    verdict = Text(f"proved: {len(PROMISES)} promises hold in every state", style="bold green")
    return [head, within, table, verdict]
