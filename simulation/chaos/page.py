"""A run's report as one page that needs nothing else."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em;
  color: #1f2937; }
table { border-collapse: collapse; margin: 1em 0; }
td, th { border-bottom: 1px solid #e5e7eb; padding: .2em .8em .2em 0; text-align: left;
  vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bad { color: #b91c1c; font-weight: bold; } .good { color: #15803d; font-weight: bold; }
svg { width: 100%; height: auto; } details { margin: 1em 0; }
"""


def page(found: Mapping[str, Any], seal: str) -> str:
    """Return the page; `seal` is the certificate's, or empty."""
    verdict = (
        '<p class="good">Every promise was kept.</p>'
        if not found["violation_count"]
        else f'<p class="bad">{found["violation_count"]} promises were broken.</p>'
    )
    never = ", ".join(found["never_bit"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Chaos, seed {found['seed']}",
        f"</title><style>{_STYLE}</style><h1>Chaos, seed {found['seed']}</h1>",
        verdict,
        f"<p>{_sentence(found)}</p>",
        f"<p><code>{_text(found['command'])}</code></p>",
        f"<p>Seal of the certificate: <code>{_text(seal)}</code></p>" if seal else "",
        f"<p>Did not bite: {_text(never)}.</p>" if never else "",
        "<h2>Orders and faults</h2>",
        _plots(found),
        "<h2>Faults</h2>",
        _table(
            ("fault", "matrix", "it", "inflicted", "bit", "missed"),
            (
                (f["name"], ", ".join(map(str, f["numbers"])), f["what"], *_counts(f))
                for f in found["faults"]
            ),
        ),
        "<h2>Invariants</h2>",
        _table(
            ("", "decided on", "checked", "broken"),
            ((i["name"], i["question"], i["checked"], i["broken"]) for i in found["invariants"]),
        ),
        _violations(found),
        "<h2>What there was in the end</h2>",
        _table(("", "count"), found["counts"].items()),
        "<details><summary>Every strike</summary>",
        _table(
            ("", "fault", "target", "at s", "bit after s", "healed after s", "evidence"),
            (_strike(blow) for blow in found["blows"]),
        ),
        "</details></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _sentence(found: Mapping[str, Any]) -> str:
    told = f"{found['sagas']:,} sagas in {found['seconds']:,.0f} s; longest stall "
    told += f"{found['longest_stall_s']:,.1f} s. {found['machine']}, {found['made_at']}."
    return _text(told)


def _text(value: Any) -> str:
    return html.escape(str(value))


def _counts(fault: Mapping[str, Any]) -> tuple[int, int, int]:
    return fault["inflicted"], fault["bit"], fault["missed"]


def _strike(blow: Mapping[str, Any]) -> tuple[Any, ...]:
    began = blow["inflicted_at_ms"]

    def after(name: str) -> str:
        return f"{(blow[name] - began) / 1_000:.1f}" if blow[name] >= 0 <= began else ""

    told = "; ".join([*blow["evidence"], *blow["broken"], blow["misfortune"]]).strip("; ")
    at_s = f"{began / 1_000:.0f}" if began >= 0 else ""
    moments = (at_s, after("bit_at_ms"), after("healed_at_ms"))
    return (blow["number"], blow["fault"], blow["target"], *moments, told)


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["<table><tr>", *(f"<th>{_text(head)}</th>" for head in heads), "</tr>"]
    for row in rows:
        lines.append("<tr>")
        for cell in row:
            is_number = isinstance(cell, int)
            shown = f"{cell:,}" if is_number else _text(cell)
            lines.append(f'<td class="n">{shown}</td>' if is_number else f"<td>{shown}</td>")
        lines.append("</tr>")
    return "".join([*lines, "</table>"])


def _violations(found: Mapping[str, Any]) -> str:
    if not found["violations"]:
        return ""
    rows = ((v["invariant"], v["saga_id"], v["what"]) for v in found["violations"])
    return "<h2>Broken promises</h2>" + _table(("", "saga", "what"), rows)


def _plots(found: Mapping[str, Any]) -> str:
    """Return throughput with the faults marked on it, and memory, as one drawing."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        return "<p>For plots: <code>pip install 'raysaga[diagrams]'</code>.</p>"
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(12, 6.5), layout="constrained")
        FigureCanvasSVG(figure)
        orders, memory = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        colours = {"accepted": "#2563eb", "ended": "#15803d", "refused": "#b45309"}
        for name, counts in found["throughput"].items():
            orders.plot(range(len(counts)), counts, label=name, color=colours[name], linewidth=0.8)
        top = max((max(c, default=0) for c in found["throughput"].values()), default=1) or 1
        is_crowded = len(found["blows"]) > 60
        for blow in found["blows"]:
            _mark(orders, blow, top, named=not is_crowded)
        orders.set_ylabel("orders a second")
        orders.legend(loc="upper left")
        for role, rows in found["memory"].items():
            memory.plot([at for at, _ in rows], [mib for _, mib in rows], label=role, linewidth=0.8)
        memory.set_ylabel("memory, MiB")
        memory.set_xlabel("seconds")
        memory.legend(loc="upper left", ncols=4, fontsize=6)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def _mark(axes: Any, blow: Mapping[str, Any], top: float, *, named: bool) -> None:
    began = blow["inflicted_at_ms"] / 1_000
    if began < 0:
        return
    healed = max(blow["healed_at_ms"] / 1_000, began + 0.3)
    colour = "#fca5a5" if blow["bit_at_ms"] >= 0 else "#fde68a"
    axes.axvspan(began, healed, color=colour, alpha=0.5, linewidth=0)
    if named:
        axes.text(began, top, blow["fault"], rotation=90, fontsize=6, va="top", ha="right")
