"""Tells how long things took: quantiles that do not average, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p99_9_ms": 0.999}


def quantiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return the quantiles and the largest of latencies, by name; none of an empty sequence."""
    ordered = sorted(latencies_s)
    if not ordered:
        return {}
    last = len(ordered) - 1
    found = {
        name: round(ordered[min(int(len(ordered) * q), last)] * 1_000, 2)
        for name, q in QUANTILES.items()
    }
    return found | {"max_ms": round(ordered[last] * 1_000, 2)}
