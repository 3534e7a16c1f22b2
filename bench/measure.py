"""Runs one closed loop of order sagas against a real engine, and counts what it cost."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from raysaga.api.client import Sagas
from raysaga.statemachines.order import order_saga

WARM_UP_SHARE = 0.15
"""Sagas run and not measured before the others, as a share of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What one level of concurrency gave.

    Attributes:
        in_flight: Callers that each start their next saga when the last has ended.
        completed: Sagas that completed within the measured time.
        seconds: The measured time.
        sagas_per_s: Completed sagas a second.
        p50_ms: Median time from submission to the outcome, as the caller saw it.
        p99_ms: 99th percentile of the same.
        flushes_per_saga: Journal commits waited for, shared by the sagas in them.
        barriers_per_saga: Commits that one saga has to wait for, one after the other.
        exchanges_per_saga: Exchanges from the shards to participants.
        memory_mib: Proportional set size of all processes of the engine and Ray.
    """

    in_flight: int
    completed: int
    seconds: float
    sagas_per_s: float
    p50_ms: float
    p99_ms: float
    flushes_per_saga: float
    barriers_per_saga: int
    exchanges_per_saga: float
    memory_mib: float


def order_input(number: int, run: str) -> tuple[str, dict[str, Any]]:
    """Return the key and the input of one made-up order with three lines."""
    key = f"{run}-{number}"
    return key, {
        "order_id": key,
        "customer_id": f"customer-{number % 997}",
        "items": [
            {"item_id": f"item-{(number * 7 + line * 131) % 2_000}", "quantity": 1 + line}
            for line in range(3)
        ],
        "payment": {
            "token": f"tok_{number % 997}",
            "amount_minor": 1_999 + number % 500,
            "currency": "USD",
        },
    }


async def run_level(
    sagas: Sagas, *, in_flight: int, count: int, run: str, dedicated: bool = False
) -> Level:
    """Run `count` sagas with `in_flight` callers, after a warm-up, and return what it gave.

    Raises:
        RuntimeError: If a saga did not complete: the workload is all happy.
    """
    numbers = iter(range(10**9))
    warm_up = max(int(count * WARM_UP_SHARE), min(in_flight, count))
    await _loop(sagas, numbers, warm_up, in_flight, f"{run}w", dedicated)
    before = await sagas.stats()
    began_at = time.perf_counter()
    latencies = await _loop(sagas, numbers, count, in_flight, run, dedicated)
    seconds = time.perf_counter() - began_at
    after = await sagas.stats()
    latencies.sort()
    return Level(
        in_flight=in_flight,
        completed=len(latencies),
        seconds=round(seconds, 3),
        sagas_per_s=round(len(latencies) / seconds, 1),
        p50_ms=round(latencies[len(latencies) // 2] * 1_000, 2),
        p99_ms=round(latencies[int(len(latencies) * 0.99)] * 1_000, 2),
        flushes_per_saga=round(_grown(before, after, "commits") / len(latencies), 4),
        barriers_per_saga=2,
        exchanges_per_saga=round(_exchanges(before, after) / len(latencies), 4),
        memory_mib=round(engine_memory_mib(), 1),
    )


async def _loop(
    sagas: Sagas,
    numbers: Iterator[int],
    count: int,
    in_flight: int,
    run: str,
    dedicated: bool,
) -> list[float]:
    left = iter(range(count))
    latencies: list[float] = []

    async def caller() -> None:
        for _ in left:
            key, order = order_input(next(numbers), run)
            began_at = time.perf_counter()
            handle = await sagas.submit(order_saga, order, key=key, dedicated=dedicated)
            outcome = await handle.result()
            latencies.append(time.perf_counter() - began_at)
            if not outcome.is_completed:
                raise RuntimeError(f"{outcome.saga_id} ended {outcome.status}: {outcome.code}")

    await asyncio.gather(*(caller() for _ in range(min(in_flight, count))))
    return latencies


def _grown(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], name: str) -> int:
    return sum(int(a[name]) for a in after) - sum(int(b[name]) for b in before)


def _exchanges(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> int:
    def total(shards: Sequence[dict[str, Any]]) -> int:
        return sum(p["exchanges"] for s in shards for p in s["participants"].values())

    return total(after) - total(before)


def engine_memory_mib() -> float:
    """Return the proportional set size of this process's children and Ray's, in MiB."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total / (1 << 20)


def surroundings() -> dict[str, Any]:
    """Return the commit and the machine, for the line of results."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def as_line(level: Level) -> dict[str, Any]:
    """Return a level as plain values."""
    return asdict(level)
