"""Draws a graph with matplotlib; imported only when a picture is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from raysaga.api.diagrams import Edge, Graph

COLUMN_INCHES: Final = 2.3
ROW_INCHES: Final = 1.35
BOX: Final = (1.75, 0.55)
"""Width and height of a node, in inches."""

INK, PAPER, FORWARD, BACK, END = "#1f2937", "#ffffff", "#2563eb", "#b45309", "#e5e7eb"
"""Colours that keep their contrast in print and for the colour-blind (blue and orange)."""

DPI: Final = 150


def draw(graph: Graph, path: Path) -> None:
    """Write `graph` to `path`, as SVG or PNG by its ending.

    Raises:
        OSError: If it cannot be written.
        ValueError: If the ending is neither.
    """
    at = {
        name: (column * COLUMN_INCHES, -row * ROW_INCHES)
        for name, (column, row) in graph.places.items()
    }
    xs, ys = [x for x, _ in at.values()], [y for _, y in at.values()]
    margin_x, margin_y = BOX[0] / 2 + 0.3, BOX[1] / 2 + 0.45
    width = max(xs) - min(xs) + 2 * margin_x
    height = max(ys) - min(ys) + 2 * margin_y
    # One file for one graph: text as text, no date, ids that do not change.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": graph.title, "font.size": 8}):
        figure = Figure(figsize=(width, height), facecolor=PAPER)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(min(xs) - margin_x, max(xs) + margin_x)
        axes.set_ylim(min(ys) - margin_y, max(ys) + margin_y)
        axes.axis("off")
        axes.text(min(xs) - BOX[0] / 2, max(ys) + BOX[1] / 2 + 0.18, graph.title, fontsize=11)
        pairs = {(edge.source, edge.target) for edge in graph.edges}
        for edge in graph.edges:
            _arrow(axes, at, edge, bends=(edge.target, edge.source) in pairs)
        for name, text in graph.nodes.items():
            _box(axes, at[name], text, is_end=name in graph.ends)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=DPI, metadata=metadata)


def _box(axes: Any, centre: tuple[float, float], text: str, *, is_end: bool) -> None:
    x, y = centre
    axes.add_patch(
        FancyBboxPatch(
            (x - BOX[0] / 2 + 0.08, y - BOX[1] / 2 + 0.08),
            BOX[0] - 0.16,
            BOX[1] - 0.16,
            boxstyle="round,pad=0.08" + (",rounding_size=0.25" if is_end else ""),
            facecolor=END if is_end else PAPER,
            edgecolor=INK,
            linewidth=1.2,
            zorder=3,
        )
    )
    axes.text(x, y, text, ha="center", va="center", color=INK, zorder=4)


def _arrow(axes: Any, at: dict[str, tuple[float, float]], edge: Edge, *, bends: bool) -> None:
    colour = BACK if edge.is_back else FORWARD
    (x1, y1), (x2, y2) = at[edge.source], at[edge.target]
    if edge.source == edge.target:
        start, end, rad = (x1 - 0.6, y1 + BOX[1] / 2), (x1 - 0.1, y1 + BOX[1] / 2), -1.0
        label_at = (x1 - 0.35, y1 + BOX[1] / 2 + 0.3)
    else:
        start, end = _border((x1, y1), (x2, y2)), _border((x2, y2), (x1, y1))
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        # Short pairs bend more, or their labels would lie on each other.
        rad = (0.18 if length > 1.5 else 0.4) if bends else 0.06
        # The middle of the arc lies beside the chord by half of rad times its length.
        shift = rad / 2
        label_at = (
            (start[0] + end[0]) / 2 + shift * (end[1] - start[1]),
            (start[1] + end[1]) / 2 - shift * (end[0] - start[0]),
        )
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={rad}",
            arrowstyle="-|>",
            mutation_scale=10,
            linewidth=1.1,
            linestyle="--" if edge.is_back else "-",
            color=colour,
            zorder=2,
        )
    )
    if edge.label:
        background = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        axes.text(
            *label_at,
            edge.label.replace(", ", "\n"),
            ha="center",
            va="center",
            fontsize=7,
            color=colour,
            bbox=background,
            zorder=5,
        )


def _border(centre: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Return where the line from a box to another leaves it."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = min(
        (BOX[0] / 2 + 0.04) / abs(dx) if dx else math.inf,
        (BOX[1] / 2 + 0.04) / abs(dy) if dy else math.inf,
    )
    return centre[0] + dx * scale, centre[1] + dy * scale
