"""`raysaga bench`: how many order sagas a second, and what each one costs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from raysaga.actors.settings import EngineSettings
from raysaga.api.client import connect
from raysaga.bench.measure import Level, as_line, order_input, run_level, surroundings
from raysaga.statemachines.order import order_saga

LEVELS = (1, 16, 128, 512)
"""Callers at a time, by default."""

STOCK = {"items": {}, "default": 10**9}
"""Enough for every order: the workload is the happy one."""

bench_app = typer.Typer()


def services(delay_ms: float = 0.0) -> dict[str, Any]:
    """Return settings of the four services without faults, with a constant latency.

    Letters are kept in the notification service's ledger and not in a maildir, so that
    each service makes the same durable: its ledger.
    """
    latency = {"latency": {"distribution": "constant", "constant_ms": delay_ms}}
    behaviour = {"behaviour": latency} if delay_ms else {}
    return {
        "inventory": {"stock": STOCK, **behaviour},
        "payment": behaviour,
        "shipping": behaviour,
        "notification": behaviour,
    }


@bench_app.command()
def bench(
    workload: Annotated[str, typer.Option(help="happy | recovery")] = "happy",
    in_flight: Annotated[
        list[int] | None, typer.Option(help="Callers at a time; repeat for several levels.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Aim of one measurement.")] = 8.0,
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    dedicated: Annotated[bool, typer.Option(help="One Ray actor for each saga.")] = False,
    shards: Annotated[int, typer.Option(min=1)] = 1,
    sagas: Annotated[int, typer.Option(help="Sagas of the recovery workload.")] = 2_000,
    data: Annotated[Path | None, typer.Option(help="Where to keep the data folders.")] = None,
    results: Annotated[Path | None, typer.Option(help="Append the lines to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure the order saga on this machine.

    Every participant is a Ray actor with a durable ledger; all LMDB flags are the
    defaults, so each commit waits for the disk.

    Examples:
        raysaga bench --in-flight 512 --json
        raysaga bench --dedicated --in-flight 4 --seconds 20
        raysaga bench --workload recovery --sagas 2000
    """
    with tempfile.TemporaryDirectory(dir=data, prefix="raysaga-bench-") as folder:
        if workload == "recovery":
            lines = [_recovery(Path(folder), sagas, shards) for _ in range(repetitions)]
        elif workload == "happy":
            lines = uvloop.run(
                _happy(
                    Path(folder), in_flight or list(LEVELS), seconds, repetitions, dedicated, shards
                )
            )
        else:
            raise typer.BadParameter(f"there is no workload {workload!r}", param_hint="workload")
    command = "raysaga " + " ".join(sys.argv[1:])
    for line in lines:
        line.update(surroundings() | {"command": command, "workload": workload})
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    if as_json:
        for line in lines:
            sys.stdout.write(json.dumps(line) + "\n")
    else:
        _show(lines)


async def _happy(
    folder: Path,
    levels: list[int],
    seconds: float,
    repetitions: int,
    dedicated: bool,
    shards: int,
) -> list[dict[str, Any]]:
    """Return a line for each level: the median repetition, with the rate's range."""
    found: dict[int, list[Level]] = {level: [] for level in levels}
    async with connect(
        folder / "data",
        shards=shards,
        settings=EngineSettings(log_level="warning"),
        services=services(),
    ) as sagas:
        probe = 8 if dedicated else 200
        for repetition in range(repetitions):
            for level in levels:
                run = f"b{repetition}-{level}"
                first = await run_level(
                    sagas,
                    in_flight=level,
                    count=max(probe, min(level, 2 * probe)),
                    run=f"{run}p",
                    dedicated=dedicated,
                )
                count = max(int(first.sagas_per_s * seconds), level, 4)
                found[level].append(
                    await run_level(
                        sagas, in_flight=level, count=count, run=run, dedicated=dedicated
                    )
                )
    return [_median(found[level], dedicated, shards) for level in levels]


def _median(runs: list[Level], dedicated: bool, shards: int) -> dict[str, Any]:
    rates = sorted(run.sagas_per_s for run in runs)
    middle = min(runs, key=lambda run: abs(run.sagas_per_s - statistics.median(rates)))
    return as_line(middle) | {
        "sagas_per_s": statistics.median(rates),
        "sagas_per_s_min": rates[0],
        "sagas_per_s_max": rates[-1],
        "repetitions": len(runs),
        "hosting": "dedicated" if dedicated else "shared",
        "shards": shards,
        "durability": "pipelined",
        "participants": "Ray actors with durable ledgers",
    }


def _recovery(folder: Path, count: int, shards: int) -> dict[str, Any]:
    """Kill everything with `count` sagas in flight, and time until the last has ended."""
    data = folder / f"recovery-{time.time_ns()}"
    child = os.fork()
    if child == 0:
        os.setsid()
        uvloop.run(_fill(data, count, shards))
        os._exit(0)
    marker = data / "filled"
    pause = threading.Event()
    while not marker.exists():
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise RuntimeError("the run that was to be killed ended by itself")
        pause.wait(0.05)
    for process in [*psutil.Process(child).children(recursive=True), psutil.Process(child)]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os.waitpid(child, 0)
    return uvloop.run(_finish(data, count, shards))


async def _fill(data: Path, count: int, shards: int) -> None:
    """Have `count` sagas accepted that wait for a slow participant."""
    async with connect(
        data,
        shards=shards,
        settings=EngineSettings(log_level="warning"),
        services=services(delay_ms=2_000.0),
    ) as sagas:
        orders = (order_input(number, "r") for number in range(count))
        await asyncio.gather(*(sagas.submit(order_saga, order, key=key) for key, order in orders))
        (data / "filled").touch()
        await asyncio.sleep(600)


async def _finish(data: Path, count: int, shards: int) -> dict[str, Any]:
    began_at = time.perf_counter()
    async with connect(
        data, shards=shards, settings=EngineSettings(log_level="warning"), services=services()
    ) as sagas:
        up_s = time.perf_counter() - began_at
        while True:
            phases: dict[str, int] = {}
            for shard in await sagas.stats():
                for phase, number in shard["phases"].items():
                    phases[phase] = phases.get(phase, 0) + number
            if phases.get("completed", 0) == count:
                break
            await asyncio.sleep(0.02)
        all_s = time.perf_counter() - began_at
    return {
        "sagas": count,
        "shards": shards,
        "seconds_until_ray_and_engine_are_up": round(up_s, 3),
        "seconds_until_all_have_ended": round(all_s, 3),
    }


def _show(lines: list[dict[str, Any]]) -> None:
    table = Table(title="Order sagas on this machine")
    names = [name for name in lines[0] if name not in ("command", "kernel", "participants")]
    for name in names:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*(str(line[name]) for name in names))
    Console().print(table)
