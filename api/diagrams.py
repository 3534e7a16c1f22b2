"""Draws the state machines and a definition from their rows: as Mermaid text, SVG or PNG.

Guarantees: what is drawn is what the engine runs, since both come from the same rows; the
same rows give the same file, byte for byte.
Costs: SVG and PNG need matplotlib (`pip install 'raysaga[diagrams]'`); text needs nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from raysaga.api.errors import MissingPackageError
from raysaga.statemachines.definition import SagaDefinition, Step, StepKind
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import (
    PHASE_TRANSITIONS,
    STEP_TRANSITIONS,
    TERMINAL,
    Phase,
    StepStatus,
)


class DiagramName(StrEnum):
    """What can be drawn."""

    ORDER = "order"
    PHASES = "phases"
    STEPS = "steps"


class Edge(NamedTuple):
    """An arrow; `is_back` if it belongs to the way back."""

    source: str
    target: str
    label: str
    is_back: bool = False


class Graph(NamedTuple):
    """What a diagram shows.

    Attributes:
        title: Above it.
        nodes: Name to text, in the order of the story.
        places: Name to column and row, counted from the upper left.
        edges: The arrows, at most one from one node to another.
        ends: Nodes at which the story ends.
    """

    title: str
    nodes: Mapping[str, str]
    places: Mapping[str, tuple[float, float]]
    edges: tuple[Edge, ...]
    ends: frozenset[str]


def graph_of(name: DiagramName) -> Graph:
    """Return what the diagram `name` shows."""
    if name is DiagramName.ORDER:
        return definition_graph(order_saga)
    if name is DiagramName.PHASES:
        return _machine_graph(
            "Phases of a saga", PHASE_TRANSITIONS, _PHASE_PLACES, frozenset(map(str, TERMINAL))
        )
    return _machine_graph("Statuses of a step", STEP_TRANSITIONS, _STATUS_PLACES, frozenset())


def definition_graph(definition: SagaDefinition) -> Graph:
    """Return the steps of a definition, and below each the one that takes it back."""
    nodes: dict[str, str] = {"accepted": "accepted"}
    edges: list[Edge] = []
    columns, branches = _columns(definition)
    places: dict[str, tuple[float, float]] = {"accepted": (0, branches - 1)}
    for i in definition.topological:
        step, before = definition.steps[i], definition.dependencies[i]
        column, row = columns[i]
        nodes[step.name] = f"{step.name}\n{step.participant}: {step.action}" + _kind_of(step)
        places[step.name] = (column, row)
        edges.extend(Edge(definition.steps[j].name, step.name, "") for j in before)
        if not before:
            edges.append(Edge("accepted", step.name, ""))
        if step.has_undo:
            undo = f"undo {step.name}"
            nodes[undo] = f"{step.participant}: {step.compensation}"
            places[undo] = (column, row + 1)
            edges.append(Edge(step.name, undo, "fails", True))
            for j in before:
                edges.append(Edge(undo, f"undo {definition.steps[j].name}", "", True))
            if not before:
                edges.append(Edge(undo, "compensated", "", True))
        elif step.kind is StepKind.PIVOT:
            # Its refusal is the last that turns a saga back.
            for j in before:
                edges.append(Edge(step.name, f"undo {definition.steps[j].name}", "refused", True))
            if not before:
                edges.append(Edge(step.name, "compensated", "refused", True))
    nodes["completed"], nodes["compensated"] = "completed", "compensated"
    places["completed"] = (1 + max(column for column, _ in columns.values()), branches - 1)
    places["compensated"] = (0, 2 * branches - 1)
    for i, after in enumerate(definition.dependents):
        if not after:
            edges.append(Edge(definition.steps[i].name, "completed", ""))
    title = f"Saga {definition.name}, version {definition.version}"
    return Graph(title, nodes, places, tuple(edges), frozenset({"completed", "compensated"}))


def _columns(definition: SagaDefinition) -> tuple[dict[int, tuple[int, int]], int]:
    """Return by step its column and row, and how many steps the fullest column has.

    A column holds what may run side by side, in the middle of the height; each step has
    the row below it for its undo.
    """
    depth: dict[int, int] = {}
    column: dict[int, list[int]] = {}
    for i in definition.topological:
        depth[i] = 1 + max((depth[j] for j in definition.dependencies[i]), default=0)
        column.setdefault(depth[i], []).append(i)
    branches = max(map(len, column.values()))
    return {
        i: (d, 2 * row + branches - len(steps))
        for d, steps in column.items()
        for row, i in enumerate(steps)
    }, branches


def _kind_of(step: Step) -> str:
    """Return a line that says what is special about a step; empty if nothing is."""
    kinds = [] if step.kind is StepKind.COMPENSATABLE else [step.kind.value]
    if step.best_effort:
        kinds.append("best effort")
    return f"\n({', '.join(kinds)})" if kinds else ""


def _machine_graph(
    title: str,
    rows: Iterable[tuple[str, Phase | StepStatus, Phase | StepStatus]],
    places: Mapping[str, tuple[float, float]],
    ends: frozenset[str],
) -> Graph:
    labels: dict[tuple[str, str], list[str]] = {}
    for trigger, source, target in rows:
        labels.setdefault((source.value, target.value), []).append(trigger)
    edges = tuple(
        Edge(source, target, ", ".join(names), any(name in _BACK for name in names))
        for (source, target), names in labels.items()
    )
    named = dict.fromkeys(name for edge in edges for name in edge[:2])
    # A state that nobody has given a place stands below all others, and is seen.
    below = 1 + max(row for _, row in places.values())
    found = {name: places.get(name, (i, below)) for i, name in enumerate(named)}
    return Graph(title, {name: name for name in named}, found, edges, ends)


_BACK = frozenset(
    {"turn_back", "pivot_refused", "compensate", "undo", "undo_wait", "undo_give_up", "undone"}
    | {"skip_undo"}
)
"""Triggers of the way back; they only choose a colour."""

_PHASE_PLACES: Mapping[str, tuple[float, float]] = {
    "running": (0, 0.8),
    "forward_only": (1.6, 0),
    "completed": (3.2, 0.8),
    "compensating": (0.8, 1.8),
    "compensated": (3.2, 1.8),
    "parked_running": (0, 2.8),
    "parked_forward": (1.6, 3.6),
    "parked_backward": (3.2, 2.8),
}
_STATUS_PLACES: Mapping[str, tuple[float, float]] = {
    # Chosen so that no arrow passes behind a box and no two labels meet.
    "pending": (0, 1.6),
    "calling": (1.6, 2.3),
    "waiting": (1.3, 0.2),
    "unknown": (2, 4.5),
    "refused": (3.75, 3.4),
    "succeeded": (3, 0.9),
    "skipped": (0.8, 3.4),
    "undoing": (3.75, 1.9),
    "undo_failed": (5, 0.3),
    "undo_skipped": (5.5, 1.3),
    "undo_waiting": (5.25, 2.4),
    "undone": (5, 3.7),
}


def mermaid(graph: Graph) -> str:
    """Return a diagram as Mermaid text, which many renderers of Markdown draw."""
    names = _mermaid_names(graph.nodes)
    lines = [f"---\ntitle: {graph.title}\n---", "flowchart LR"]
    for name, text in graph.nodes.items():
        shape = '(["{}"])' if name in graph.ends else '["{}"]'
        lines.append(f"    {names[name]}" + shape.format(text.replace("\n", "<br/>")))
    for edge in graph.edges:
        arrow = "-.->" if edge.is_back else "-->"
        label = f"|{edge.label}|" if edge.label else ""
        lines.append(f"    {names[edge.source]} {arrow}{label} {names[edge.target]}")
    return "\n".join(lines) + "\n"


def _mermaid_names(nodes: Iterable[str]) -> dict[str, str]:
    """Return names that Mermaid takes: it knows neither colons nor a node called `end`."""
    names: dict[str, str] = {}
    for node in nodes:
        name = re.sub(r"[^A-Za-z0-9_]", "_", node)
        if name.lower() in _MERMAID_WORDS:
            name += "_"
        while name in names.values():
            name += "_"
        names[node] = name
    return names


_MERMAID_WORDS = frozenset(
    {"call", "class", "classdef", "click", "default", "direction", "end", "flowchart", "graph"}
    | {"href", "linkstyle", "style", "subgraph"}
)


def write_diagram(graph: Graph, path: Path) -> None:
    """Write a diagram; the ending of its name says how: .mmd, .svg or .png.

    Raises:
        MissingPackageError: If matplotlib is needed and not installed.
        OSError: If it cannot be written.
    """
    if path.suffix == ".mmd":
        path.write_text(mermaid(graph), encoding="utf-8")
        return
    try:
        from raysaga.api.diagrams_drawn import draw
    except ImportError as error:
        how = "pip install 'raysaga[diagrams]'; Mermaid text (.mmd) needs nothing"
        raise MissingPackageError("matplotlib", how) from error
    draw(graph, path)


def write_pages(folder: Path) -> None:
    """Write every diagram into `folder`: a page of Mermaid text, and one SVG each.

    Raises:
        MissingPackageError: If matplotlib is not installed.
        OSError: If they cannot be written.
    """
    page = [
        "# Diagrams",
        "",
        "Generated from the rows that the engine runs, by",
        "`python -m raysaga.api.diagrams docs/diagrams`; `raysaga diagram` draws one of them.",
        "Dashed arrows are the way back.",
    ]
    for name in DiagramName:
        graph = graph_of(name)
        file = f"{name.value}.svg"
        write_diagram(graph, folder / file)
        page += ["", f"## {graph.title}", "", f"![{graph.title}]({file})", ""]
        page += ["```mermaid", mermaid(graph).rstrip(), "```"]
    (folder / "README.md").write_text("\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
