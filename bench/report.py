"""Writes one HTML page of all results: nothing but the file is needed to read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from raysaga.bench.compare import FIGURES
from raysaga.bench.plots import all_pictures
from raysaga.bench.results_file import Line, identity, newest, shown

OWN = "raysaga"

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;
color:#111827;background:#fff}
table{border-collapse:collapse;font-size:13px;margin:1rem 0}
td,th{padding:.2rem .6rem;border-bottom:1px solid #e5e7eb;text-align:right}
td:first-child,th:first-child{text-align:left}
.behind{border-left:4px solid #b45309;padding:.2rem 1rem;background:#fffbeb}
svg{max-width:100%;height:auto}
"""

COLUMNS = (
    "sagas_per_s",
    "sagas_per_s_min",
    "sagas_per_s_max",
    "repetitions",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "p99_9_ms",
    "cpu_ms_per_saga",
    "foreign_cores",
    "disk_kib_per_saga",
    "flushes_per_saga",
    "exchanges_per_saga",
    "transitions_per_saga",
    "memory_mib",
    "us_per_step",
    "host_bytes_per_waiting_saga",
    "seconds_until_all_have_ended",
    "audit",
    "commit",
    "at",
)


def behind(lines: Sequence[Line]) -> list[str]:
    """Return a sentence for each figure in which a peer beats us, at the same level."""
    rows = newest(lines, "peers")
    ours = {row["in_flight"]: row for row in rows if row["peer"] == OWN}
    found = []
    for row in rows:
        own = ours.get(row["in_flight"])
        if own is None or row["peer"] == OWN:
            continue
        for figure, more_is_better in FIGURES.items():
            if figure not in row or figure not in own:
                continue
            if row[figure] != own[figure] and (row[figure] > own[figure]) is more_is_better:
                found.append(
                    f"{row['peer']} at {row['in_flight']} in flight: {figure} "
                    f"{row[figure]:,}, ours {own[figure]:,}"
                )
    return found


def page(lines: Sequence[Line]) -> str:
    """Return the page."""
    latest = {identity(line): line for line in lines}
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>raysaga: results</title>",
        f"<style>{_STYLE}</style><h1>Results</h1>",
        f"<p>{len(latest)} measurements; the newest of each. Medians of the repetitions.</p>",
    ]
    worse = behind(lines)
    if worse:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in worse)
        parts.append(f"<div class='behind'><h2>Where a peer is ahead</h2><ul>{items}</ul></div>")
    parts.extend(all_pictures(lines).values())
    parts.append("<h2>What was durable</h2>" + "".join(_durable(newest(lines, "peers"))))
    parts.append("<h2>All figures</h2>")
    parts.extend(_table(list(latest.values())))
    parts.append("</html>")
    return "\n".join(parts)


def _durable(rows: Sequence[Line]) -> Iterator[str]:
    told = {row["peer"]: (row["durable"], row["processes"]) for row in rows}
    yield "<table><tr><th>peer</th><th>durable</th><th>processes</th></tr>"
    for peer, facts in told.items():
        cells = "".join(f"<td>{escape(fact)}</td>" for fact in (peer, *facts))
        yield f"<tr>{cells}</tr>"
    yield "</table>"


def _table(lines: Sequence[Line]) -> Iterator[str]:
    columns = [name for name in COLUMNS if any(name in line for line in lines)]
    heads = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    yield f"<table><tr><th>what</th>{heads}</tr>"
    for line in lines:
        cells = "".join(f"<td>{_cell(line.get(name))}</td>" for name in columns)
        yield f"<tr><td>{escape(shown(line))}</td>{cells}</tr>"
    yield "</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | float) else escape(str(value))


def write_report(lines: Sequence[Line], path: Path, pictures: Path | None) -> None:
    """Write the page to `path`, and each picture to the folder `pictures` if there is one.

    Raises:
        OSError: If it cannot be written.
    """
    path.write_text(page(lines), encoding="utf-8")
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        for name, picture in all_pictures(lines).items():
            (pictures / f"{name}.svg").write_text(picture + "\n", encoding="utf-8")
