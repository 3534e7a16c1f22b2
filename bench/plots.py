"""Draws results as SVG, by matplotlib; imported only when a report is asked for.

Every picture is drawn from lines of results alone, so that whoever has the lines can draw it
again. One picture, one question; colours keep their contrast for the colour-blind.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from raysaga.bench.results_file import Line, by_durability, newest
from raysaga.bench.workloads import SKEWS, STRATEGIES

COLOURS = ("#2563eb", "#b45309", "#059669", "#9333ea", "#dc2626", "#0891b2", "#6b7280", "#111827")
SIZE = (7.2, 3.8)
WIDE = (9.6, 3.8)


def svg(title: str, draw: Callable[[Figure], None], size: tuple[float, float] = SIZE) -> str:
    """Return one picture: text as text, no date, ids that do not change."""
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=list(COLOURS)),
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.suptitle(title, fontsize=10)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    # From the element on, so that it can stand in a page as well.
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _curve(axes: Any, lines: Sequence[Line], figure: str, label: str) -> None:
    lines = sorted((line for line in lines if figure in line), key=lambda line: line["in_flight"])
    if not lines:
        return
    xs = [line["in_flight"] for line in lines]
    ys = [line[figure] for line in lines]
    low = [line[figure] - min(line.get(f"{figure}_each", [line[figure]])) for line in lines]
    high = [max(line.get(f"{figure}_each", [line[figure]])) - line[figure] for line in lines]
    axes.errorbar(
        xs,
        ys,
        yerr=[[max(v, 0) for v in low], [max(v, 0) for v in high]],
        marker="o",
        ms=3.5,
        lw=1.3,
        capsize=2,
        label=label,
    )


def _levels(axes: Any, ylabel: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("orders in flight")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_formatter(ScalarFormatter())


def peers(lines: Sequence[Line]) -> str | None:
    """Draw throughput and latency against concurrency, of raysaga and each peer."""
    rows = newest(lines, "peers")
    if not rows:
        return None
    by_peer: dict[str, list[Line]] = defaultdict(list)
    for row in rows:
        by_peer[row["peer"]].append(row)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for name, of in by_peer.items():
            _curve(left, of, "sagas_per_s", name)
            _curve(right, of, "p99_ms", name)
        _levels(left, "completed orders a second")
        _levels(right, "99th percentile, ms")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=8)

    return svg("The same order saga, the same machine, turn by turn", draw, (11.0, 4.2))


def levels(lines: Sequence[Line]) -> str | None:
    """Draw how rate and latencies of happy orders go with concurrency."""
    rows = newest(lines, "happy", durability="pipelined", hosting="shared", loop="closed", shards=1)
    rows = [row for row in rows if "rate_per_s" not in row and "engine" not in row]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _curve(left, rows, "sagas_per_s", "orders")
        for name in ("p50_ms", "p95_ms", "p99_ms", "p99_9_ms"):
            _curve(right, rows, name, name.removesuffix("_ms"))
        _levels(left, "completed orders a second")
        _levels(right, "ms")
        right.legend(fontsize=8)

    return svg("Orders in flight, rate and latency", draw, WIDE)


def contention(lines: Sequence[Line], figure_name: str, title: str, ylabel: str) -> str | None:
    """Draw a figure of each inventory strategy against the skew of demand."""
    rows = newest(lines, "contended")
    if not rows:
        return None
    skews = [*SKEWS, "hot"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for strategy in STRATEGIES:
            of = {r["skew"]: r for r in rows if r["strategy"] == strategy and figure_name in r}
            xs = [i for i, skew in enumerate(skews) if skew in of]
            ys = [of[skews[i]][figure_name] for i in xs]
            axes.plot(xs, ys, marker="o", ms=4, label=strategy)
        axes.set_xticks(range(len(skews)), [*(f"Zipf {s}" for s in SKEWS), "one hot item"])
        axes.set_ylabel(ylabel)
        if figure_name != "conflicts_per_saga":
            axes.set_yscale("log")
        axes.legend(fontsize=8)

    return svg(title, draw)


def durability(lines: Sequence[Line]) -> str | None:
    """Draw what each durability gives and takes, by concurrency."""
    rows = by_durability(lines)
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for kind in ("relaxed", "pipelined", "strict"):
            of = [row for row in rows if row["durability"] == kind]
            _curve(left, of, "sagas_per_s", kind)
            _curve(right, of, "p50_ms", kind)
        _levels(left, "completed orders a second")
        _levels(right, "median latency, ms")
        left.legend(fontsize=8)

    return svg("What waiting for the disk costs", draw, WIDE)


def rates(lines: Sequence[Line]) -> str | None:
    """Draw latency against arrivals of an open loop."""
    rows = sorted(newest(lines, "happy", loop="open"), key=lambda row: row["rate_per_s"])
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        xs = [row["rate_per_s"] for row in rows]
        for name in ("p50_ms", "p95_ms", "p99_ms", "p99_9_ms"):
            axes.plot(xs, [row[name] for row in rows], marker="o", ms=4, label=name[:-3])
        axes.set_xlabel("arrivals a second (Poisson)")
        axes.set_ylabel("ms from the intended start")
        axes.set_yscale("log")
        axes.legend(fontsize=8)

    return svg("Open loop: latency against load", draw)


def overload(lines: Sequence[Line]) -> str | None:
    """Draw the timeline of a storm."""
    rows = newest(lines, "overload")
    if not rows:
        return None
    timeline: Sequence[Mapping[str, float]] = rows[-1]["timeline"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name in ("offered_per_s", "ended_per_s", "shed_per_s"):
            xs = [row["at_s"] for row in timeline]
            axes.plot(xs, [row.get(name, 0.0) for row in timeline], lw=1.2, label=name[:-6])
        axes.set_xlabel("s")
        axes.set_ylabel("orders a second")
        beside = axes.twinx()
        slices = [row for row in timeline if "p50_ms" in row]
        beside.plot(
            [r["at_s"] for r in slices],
            [r["p50_ms"] for r in slices],
            color=COLOURS[7],
            lw=0.8,
            ls=":",
            label="median latency of arrivals, ms (right)",
        )
        beside.set_yscale("log")
        axes.legend(fontsize=8, loc="upper left")
        beside.legend(fontsize=8, loc="upper right")

    return svg("Three times as much as the engine can do, and the way back", draw, WIDE)


def recovery(lines: Sequence[Line]) -> str | None:
    """Draw how sagas end after a kill of everything."""
    rows = [*newest(lines, "recovery"), *newest(lines, "recovery-standing")]
    rows = [row for row in rows if "timeline" in row]
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for row in rows:
            xs = [at_s for at_s, _ in row["timeline"]]
            ys = [100 * ended / row["sagas"] for _, ended in row["timeline"]]
            what = "with Ray's start" if row["kill"] == "cold" else "Ray already up"
            axes.plot(xs, ys, drawstyle="steps-post", label=f"{row['sagas']:,}, {what}")
        axes.set_xlabel("seconds since the kill (Ray up), or since the restart")
        axes.set_ylabel("% of the orders in flight that have ended")
        axes.legend(fontsize=8)

    return svg("After SIGKILL of every process", draw)


def steps(lines: Sequence[Line]) -> str | None:
    """Draw what a step costs in short and in long sagas."""
    rows = [row for n in (10, 100, 1_000) for row in newest(lines, f"steps-{n}")]
    if not rows:
        return None
    by_level: dict[int, list[Line]] = defaultdict(list)
    for row in rows:
        by_level[row["in_flight"]].append(row)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for level, of in sorted(by_level.items()):
            of.sort(key=lambda row: row["steps"])
            ys = [row["us_per_step"] for row in of]
            axes.plot([row["steps"] for row in of], ys, marker="o", label=f"{level} in flight")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps of a saga")
        axes.set_ylabel("µs a step")
        axes.legend(fontsize=8)

    return svg("The cost of a step in a long saga", draw)


def profile(lines: Sequence[Line]) -> str | None:
    """Draw what a saga's microseconds go into, by process."""
    rows = newest(lines, "profile")
    if not rows:
        return None
    row = max(rows, key=lambda row: row["in_flight"])
    table: Mapping[str, Mapping[str, float]] = row["us_per_saga_by_activity"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        activities = list(dict.fromkeys(a for parts in table.values() for a in parts))
        left = dict.fromkeys(table, 0.0)
        colours = [mpl.colormaps["tab20"](i / 19) for i in range(20)]
        for i, activity in enumerate(activities):
            us = [parts.get(activity, 0.0) for parts in table.values()]
            colour = colours[i % len(colours)]
            axes.barh(list(table), us, left=list(left.values()), label=activity, color=colour)
            left = {name: left[name] + u for name, u in zip(table, us, strict=True)}
        axes.set_xlabel("µs a saga")
        figure.legend(loc="outside right center", fontsize=8)

    return svg(f"What a saga pays for, {row['in_flight']} in flight", draw, WIDE)


def all_pictures(lines: Sequence[Line]) -> dict[str, str]:
    """Return every picture that the lines have something to tell for, by name."""
    drawn = {
        "peers": peers(lines),
        "levels": levels(lines),
        "rates": rates(lines),
        "steps": steps(lines),
        "overload": overload(lines),
        "recovery": recovery(lines),
        "contention-rate": contention(
            lines, "sagas_per_s", "Orders a second, by strategy", "orders that ended, a second"
        ),
        "contention-p99": contention(
            lines, "p99_ms", "The slowest in a hundred, by strategy", "99th percentile, ms"
        ),
        "contention-conflicts": contention(
            lines, "conflicts_per_saga", "Work done again, by strategy", "conflicts an order"
        ),
        "durability": durability(lines),
        "profile": profile(lines),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}
