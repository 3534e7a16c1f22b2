"""Writes down what a run has shown: one page for people, the same as JSON, and a certificate."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.certificate import certify, write_certificate
from raysaga.simulation.chaos.nemesis import tally
from raysaga.simulation.chaos.page import page
from raysaga.simulation.chaos.run import Run
from raysaga.simulation.coverage import QUESTIONS, coverage
from raysaga.simulation.history import Told

VIOLATIONS_MAX = 200
"""Violations that a report lists; the rest is counted."""


def report_of(run: Run, seconds: float) -> dict[str, Any]:
    """Return what a run has shown, as plain data.

    Instants are milliseconds from the beginning of the run.
    """
    evidence = run.evidence
    assert evidence is not None
    assert run.gauge is not None
    extra = {
        "I2": sum(check.examined_count for check in evidence.audit.checks),
        "I7": evidence.records,
        "I11": len(run.gauge.readings),
        "I14": evidence.log_lines,
    }
    checked = coverage(evidence.seen, extra=extra)
    broken = Counter(violation.invariant for violation in run.violations)
    counts = tally(run.blows)
    return {
        "command": "raysaga " + " ".join(sys.argv[1:]),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "seed": run.seed,
        "seconds": round(seconds, 1),
        "holds": run.holds,
        "is_full": run.is_full,
        "sagas": sum(r is not None for r in evidence.seen.readings.values()),
        "counts": dict(evidence.audit.counts),
        "faults": [
            {
                "name": fault.name,
                "numbers": list(fault.numbers),
                "what": fault.what,
                **{name: counts[fault.name][name] for name in _TALLIED},
            }
            for fault in run.faults
        ],
        "never_bit": run.never_bit,
        "invariants": [
            {
                "name": name,
                "question": QUESTIONS[name],
                "checked": checked.get(name, 0),
                "broken": broken.get(name, 0),
            }
            for name in QUESTIONS
        ],
        "violation_count": len(run.violations),
        "violations": [v._asdict() for v in run.violations[:VIOLATIONS_MAX]],
        "longest_stall_s": _longest_stall_s(run),
        "highest": run.gauge.highest(),
        "throughput": _throughput(run),
        "memory": _memory(run),
        "blows": [blow.to_data() | _moments(run, blow.to_data()) for blow in run.blows],
    }


_TALLIED = ("inflicted", "bit", "missed")


def _moments(run: Run, blow: dict[str, Any]) -> dict[str, int]:
    """Return the instants of a strike, from the beginning of the run; -1: never."""
    names = ("inflicted_at_ms", "bit_at_ms", "healed_at_ms")
    return {name: blow[name] - run.began_at_ms if blow[name] else -1 for name in names}


def _ends(run: Run) -> list[int]:
    assert run.evidence is not None
    lines = run.evidence.seen.lines
    return [line.at_ms for line in lines if isinstance(line, Told) and line.kind == "ended"]


def _longest_stall_s(run: Run) -> float:
    """Return the longest time in which no caller was told an end, while things were broken."""
    assert run.evidence is not None
    ends = [at_ms for at_ms in _ends(run) if at_ms <= run.evidence.seen.healed_at_ms]
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    return round(max(gaps, default=0) / 1_000, 1)


def _throughput(run: Run) -> dict[str, list[int]]:
    """Return orders accepted, refused and ended in each second."""
    assert run.evidence is not None
    found: dict[str, Counter[int]] = {"accepted": Counter(), "refused": Counter()}
    for line in run.evidence.seen.lines:
        if isinstance(line, Told) and line.operation == "submit":
            name = {"ok": "accepted", "error": "refused"}.get(line.kind, "")
            if name:
                found[name][line.at_ms // 1_000] += 1
    found["ended"] = Counter(at_ms // 1_000 for at_ms in _ends(run))
    seconds = range(max((max(c, default=0) for c in found.values()), default=0) + 1)
    return {name: [counts[second] for second in seconds] for name, counts in found.items()}


def _memory(run: Run) -> dict[str, list[tuple[int, int]]]:
    """Return the memory of each role over time, as seconds and MiB."""
    assert run.gauge is not None
    found: dict[str, list[tuple[int, int]]] = {}
    for reading in run.gauge.readings:
        at_s = (reading.at_ms - run.began_at_ms) // 1_000
        found.setdefault(reading.role, []).append((at_s, reading.rss_bytes >> 20))
    return {role: rows for role, rows in found.items() if "/" in role or role == "supervisor"}


def write_report(run: Run, found: dict[str, Any], folder: Path) -> None:
    """Write `report.json`, `report.html`, and `certificate.json` if the books balance."""
    evidence = run.evidence
    assert evidence is not None
    (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    seal = ""
    if evidence.audit.is_clean and not evidence.seen.flaws:
        with Archive.open(run.workplace / "data") as archive:
            certificate = certify(archive, evidence.audit, seed=run.seed)
        write_certificate(folder / "certificate.json", certificate)
        seal = certificate["seal"]
    (folder / "report.html").write_text(page(found, seal))
