"""Fills the tables of the documentation from lines of results, between markers.

A page says `<!-- bench: NAME -->` where a table begins and `<!-- end -->` where it ends; what is
between is written by this module alone, so that no figure is without its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raysaga.bench.activities import ACTIVITIES, WAIT
from raysaga.bench.results_file import Line, by_durability, newest
from raysaga.bench.workloads import SKEWS, STRATEGIES

FOREIGN_TOLD_FROM = 0.15
"""Cores that others used beside a measurement from which on the page says so."""

OWN_LOOP: Mapping[str, Any] = {
    "hosting": "shared",
    "loop": "closed",
    "durability": "pipelined",
    "compiled": False,
}
"""The lines of the engine as users get it."""

_MARKED = re.compile(r"<!-- bench: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)

OWN = "raysaga"


def filled(page: str, lines: Sequence[Line]) -> str:
    """Return a page whose tables are those of the lines; one without lines stays as it is."""

    def table(found: re.Match[str]) -> str:
        rows = list(TABLES[found[1]](lines))
        if not rows:
            return found[0]
        text = "\n".join(rows)
        return f"<!-- bench: {found[1]} -->\n{text}\n<!-- end -->"

    return _MARKED.sub(table, page)


def fill_pages(folder: Path, lines: Sequence[Line]) -> list[str]:
    """Fill every page in `folder`; return the names of those that have changed."""
    changed = []
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = filled(text, lines)
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path.name)
    return changed


def _peers(lines: Sequence[Line]) -> Iterator[str]:
    rows = newest(lines, "peers")
    levels = sorted({row["in_flight"] for row in rows})
    found = {(row["peer"], row["in_flight"]): row for row in rows}
    ahead = [
        f"`{row['peer']}` at {row['in_flight']} in flight"
        for row in rows
        if row["sagas_per_s"] > found.get((OWN, row["in_flight"]), row)["sagas_per_s"]
    ]
    if ahead:
        yield f"**Ahead of us in throughput:** {', '.join(sorted(ahead))}.\n"
    yield "Completed orders a second (range of the rounds); p50 / p99 in ms; CPU ms an order.\n"
    yield from _head("", *(f"{level} in flight" for level in levels))
    for peer in dict.fromkeys(row["peer"] for row in rows):
        cells = [_peer_cell(found.get((peer, level))) for level in levels]
        yield _row(f"**{peer}**" if peer == OWN else f"`{peer}`", *cells)
    yield from _told(rows)


def _peer_cell(row: Line | None) -> str:
    if row is None:
        return "-"
    rates = f"{_n(row['sagas_per_s_min'])} to {_n(row['sagas_per_s_max'])}"
    times = f"{_n(row['p50_ms'])} / {_n(row['p99_ms'])}"
    return f"**{_n(row['sagas_per_s'])}** ({rates}); {times}; {row['cpu_ms_per_saga']:.2g}"


def _profile(lines: Sequence[Line]) -> Iterator[str]:
    rows = newest(lines, "profile")
    if not rows:
        return
    row = max(rows, key=lambda row: str(row["at"]))
    table: Mapping[str, Mapping[str, float]] = row["us_per_saga_by_activity"]
    yield (
        f"µs an order at {row['in_flight']} in flight and {_n(row['sagas_per_s'])} orders a second"
        f"{'' if row['compiled'] else ', not compiled'}.\n"
    )
    yield from _head("activity", *table, "all")
    for activity in ACTIVITIES:
        cells = [parts.get(activity, 0.0) for parts in table.values()]
        if any(cells):
            yield _row(activity, *(f"{us:.1f}" if us else "" for us in cells), f"{sum(cells):.1f}")
    totals = [sum(parts.values()) for parts in table.values()]
    yield _row("**processor**", *(f"{us:.1f}" for us in totals), f"**{sum(totals):.1f}**")
    empty = [""] * len(table)
    wait_us = row[f"us_per_saga_{WAIT}"]
    yield _row("wait: the cores stood still, or worked for others", *empty, f"{wait_us:.1f}")
    yield _row("the cores' whole time", *empty, f"{row['us_per_saga_of_the_cores']:.1f}")
    yield from _told([row])


def _contention(lines: Sequence[Line]) -> Iterator[str]:
    rows = newest(lines, "contended", think_ms=5.0)
    found = {(row["strategy"], row["skew"]): row for row in rows}
    yield "Orders a second; p50 / p99 in ms; conflicts an order where there were any.\n"
    skews = [*SKEWS, "hot"]
    yield from _head("", *(f"Zipf {skew}" for skew in SKEWS), "one hot item")
    for strategy in STRATEGIES:
        yield _row(f"`{strategy}`", *(_contended_cell(found.get((strategy, s))) for s in skews))
    yield from _told(rows)


def _contended_cell(row: Line | None) -> str:
    if row is None:
        return "-"
    cell = f"{_n(row['sagas_per_s'])}; {_n(row['p50_ms'])} / {_n(row['p99_ms'])}"
    conflicts = row["conflicts_per_saga"]
    return f"{cell}; {conflicts:.2g}" if conflicts > 0.005 else cell


def _durability(lines: Sequence[Line]) -> Iterator[str]:
    rows = by_durability(lines)
    levels = sorted({row["in_flight"] for row in rows})
    found = {(row["durability"], row["in_flight"]): row for row in rows}
    yield "Completed orders a second; p50 / p99 in ms; the journal's flushes an order.\n"
    yield from _head("", *(f"{level} in flight" for level in levels))
    for kind in ("relaxed", "pipelined", "strict"):
        cells = []
        for level in levels:
            row = found.get((kind, level))
            cells.append("-" if row is None else _durable_cell(row))
        yield _row(f"`{kind.upper()}`", *cells)
    yield from _told(rows)


def _durable_cell(row: Line) -> str:
    times = f"{_n(row['p50_ms'])} / {_n(row['p99_ms'])}"
    return f"{_n(row['sagas_per_s'])}; {times}; {row['flushes_per_saga']:.2g}"


def _reads(lines: Sequence[Line]) -> Iterator[str]:
    rows = sorted(newest(lines, "reads"), key=lambda row: row["in_flight"])
    yield from _head(
        "in flight",
        "strong, p50 / p99 ms",
        "eventual, p50 / p99 ms",
        "reads that were behind",
        "lag, p95 / longest ms",
    )
    for row in rows:
        strong, eventual, lag = row["strong"], row["eventual"], row["eventual_lag"]
        yield _row(
            str(row["in_flight"]),
            f"{strong['p50_ms']} / {strong['p99_ms']}",
            f"{eventual['p50_ms']} / {eventual['p99_ms']}",
            f"{row['eventual_behind_share']:.0%} of {row['samples']}",
            f"{_n(lag['p95_ms'])} / {_n(lag['max_ms'])}",
        )


def _recovery(lines: Sequence[Line]) -> Iterator[str]:
    yield from _head("in flight at the kill", "killed", "the first has ended", "all have ended")
    for workload in ("recovery-standing", "recovery"):
        for row in sorted(newest(lines, workload), key=lambda row: row["sagas"]):
            if "timeline" not in row:
                continue
            what = "every process of the engine; Ray stands"
            if row["kill"] == "cold":
                up_s = row["seconds_until_ray_and_engine_are_up"]
                what = f"Ray as well; it and the engine are up after {up_s:.1f} s"
            first_s = next(at_s for at_s, ended in row["timeline"] if ended)
            all_s = row["seconds_until_all_have_ended"]
            yield _row(_n(row["sagas"]), what, f"{first_s:.1f} s", f"**{all_s:.1f} s**")


def _compiled(lines: Sequence[Line]) -> Iterator[str]:
    found = [_by_level(lines, **OWN_LOOP), _by_level(lines, **{**OWN_LOOP, "compiled": True})]
    levels = sorted(set(found[0]) & set(found[1]))
    if not levels:
        return
    yield from _head("in flight", "as installed", "CPU ms an order", "compiled", "CPU ms an order")
    for level in levels:
        yield _row(str(level), *(cell for rows in found for cell in _bound_cells(rows[level])))
    yield from _told([rows[level] for rows in found for level in levels])


def _dedicated(lines: Sequence[Line]) -> Iterator[str]:
    found = newest(lines, "happy", **{**OWN_LOOP, "hosting": "dedicated"})
    # The oldest lines do not tell the processor time.
    rows = [row for row in found if "cpu_ms_per_saga" in row]
    if not rows:
        return
    yield from _head("in flight", "orders a second; p50 / p99 ms", "CPU ms an order")
    for row in sorted(rows, key=lambda row: row["in_flight"]):
        yield _row(str(row["in_flight"]), *_bound_cells(row))
    yield from _told(rows)


def _bound(lines: Sequence[Line]) -> Iterator[str]:
    own = _by_level(lines, **OWN_LOOP)
    rows = sorted(newest(lines, "one-process"), key=lambda row: row["in_flight"])
    yield from _head("in flight", "one process", "CPU ms an order", "the engine", "CPU ms an order")
    for row in rows:
        engine = own.get(row["in_flight"])
        cells = ["-", "-"] if engine is None else _bound_cells(engine)
        yield _row(str(row["in_flight"]), *_bound_cells(row), *cells)
    yield from _told(rows)


def _waiting(lines: Sequence[Line]) -> Iterator[str]:
    # Older lines count mapped files as the host's memory.
    of_files = "host_bytes_per_waiting_saga_with_mapped_files"
    rows = [row for row in newest(lines, "waiting") if of_files in row]
    if not rows:
        return
    yield from _head(
        "waiting",
        "bytes of the host's memory for each",
        "with the journal's mapped pages",
        "bystanders alone, p50 / p99 ms",
        "beside them",
    )
    for row in sorted(rows, key=lambda row: row["waiting"]):
        both = (row["bystanders_alone"], row["bystanders_beside"])
        yield _row(
            _n(row["waiting"]),
            f"**{_n(row['host_bytes_per_waiting_saga'])}**",
            _n(row[of_files]),
            *(f"{_n(times['p50_ms'])} / {_n(times['p99_ms'])}" for times in both),
        )
    yield from _told(rows)


def _skeleton(lines: Sequence[Line]) -> Iterator[str]:
    bones = _by_level(lines, "skeleton")
    if not bones:
        return
    engines = [_by_level(lines, **{**OWN_LOOP, "compiled": compiled}) for compiled in (False, True)]
    yield from _head("in flight", "bare bones", "CPU ms an order", "as installed", "compiled")
    told = []
    for level, row in sorted(bones.items()):
        cells = _bound_cells(row)
        told.append(row)
        for engine in engines:
            found = engine.get(level)
            if found is None:
                cells.append("-")
                continue
            told.append(found)
            share = found["sagas_per_s"] / row["sagas_per_s"]
            cells.append(f"{_bound_cells(found)[0]}; {share:.0%} of the bones")
        yield _row(str(level), *cells)
    yield from _told(told)


def _bare_actors(lines: Sequence[Line]) -> Iterator[str]:
    found = newest(lines, "bare-actors")
    standing = [row for row in newest(lines, "recovery-standing") if "timeline" in row]
    if not found or not standing:
        return
    bare, engine = found[-1], min(standing, key=lambda row: row["sagas"])
    first_s = engine["seconds_until_first_has_ended"]
    yield from _head("after SIGKILL of six actors below a Ray that stands", "seconds")
    yield _row("six empty actors answer again", f"{bare['seconds_until_all_answer']:.2f}")
    yield _row("the first order of the engine has ended", f"{first_s:.2f}")
    all_s = engine["seconds_until_all_have_ended"]
    yield _row(f"all {_n(engine['sagas'])} orders have ended", f"**{all_s:.2f}**")
    yield from _told([bare, engine])


def _by_level(lines: Sequence[Line], workload: str = "happy", **form: Any) -> dict[int, Line]:
    """Return the newest line of a loop for each number in flight."""
    found = sorted(newest(lines, workload, **form), key=lambda row: str(row["at"]))
    return {row["in_flight"]: row for row in found}


def _bound_cells(row: Line) -> list[str]:
    times = f"{_n(row['p50_ms'])} / {_n(row['p99_ms'])}"
    return [f"**{_n(row['sagas_per_s'])}**; {times}", f"{row['cpu_ms_per_saga']:.2g}"]


TABLES: Mapping[str, Callable[[Sequence[Line]], Iterator[str]]] = {
    "peers": _peers,
    "profile": _profile,
    "bound": _bound,
    "compiled": _compiled,
    "dedicated": _dedicated,
    "waiting": _waiting,
    "skeleton": _skeleton,
    "bare-actors": _bare_actors,
    "contention": _contention,
    "durability": _durability,
    "reads": _reads,
    "recovery": _recovery,
}
"""Name of a marker to what writes the rows below it."""


def _told(rows: Sequence[Line]) -> Iterator[str]:
    """Say when it was measured, and what else the machine did then."""
    if not rows:
        return
    commits = ", ".join(f"`{commit}`" for commit in sorted({str(row["commit"]) for row in rows}))
    foreign = max((float(row.get("foreign_cores", 0.0)) for row in rows), default=0.0)
    is_told = foreign > FOREIGN_TOLD_FROM
    beside = f" Beside it, others used up to {foreign:g} cores." if is_told else ""
    yield f"\nMeasured on {str(rows[-1]['at'])[:10]}, at {commits}.{beside}"


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield "|---" + "|--:" * (len(cells) - 1) + "|"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _n(value: Any) -> str:
    """Return a number with three figures, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
