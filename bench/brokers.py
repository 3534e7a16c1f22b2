"""Measures the order saga with its four services reached in several ways, one after the other.

    raysaga bench brokers --transport amqp://localhost/ --transport kafka://localhost:9092

Ray's own way is measured first, in the same run. For a broker each service is a process of
its own (`raysaga participant`), with the same services and a ledger in the same data folder.

Guarantees: each figure's folder is audited, as in every bench; one that is not in order has
no figure.
Refuses: nothing that the broker takes. It must run already, and keeps some queues afterwards.
Costs: besides the measuring, some eight seconds for each transport.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from raysaga.actors.brokers.address import parse_address
from raysaga.actors.services.serve import serve
from raysaga.actors.services.service import Service
from raysaga.api.cli_terminal import JsonOption, Terminal
from raysaga.bench.bed import SERVICES, calm_services, open_bed
from raysaga.bench.judge import RunRefusedError, judge
from raysaga.bench.measure import Load, run_level
from raysaga.bench.options import ResultsOption
from raysaga.bench.session import medians
from raysaga.bench.workloads import happy

RAY = "ray"

STOP_S = 30.0
"""How long a runner may take to answer what it has taken, and end."""

FIGURES = frozenset(
    {
        *("sagas_per_s", "sagas_per_s_each", "p50_ms", "p50_ms_each", "p99_ms", "p99_ms_each"),
        *("completed", "seconds", "calls_per_saga", "cpu_ms_per_saga"),
    }
)
"""What is told of a transport. Processor time is without the broker's own."""


def serve_calm(name: str, settings: Mapping[str, Any]) -> Service:
    """Return the service `name` as a bench has it; for `raysaga participant --make`."""
    return serve(name, {**calm_services(), "folder": settings["folder"]})


def measured_over(
    transport: str, levels: list[int], *, seconds: float, repetitions: int, folder: Path
) -> Iterator[dict[str, Any]]:
    """Yield a line of results for each level over one transport.

    Args:
        transport: The address of a broker, or `RAY`.
        levels: Callers at a time.
        seconds: Aim of one measurement.
        repetitions: Of each level.
        folder: For the data folder.

    Raises:
        RunRefusedError: If a promise was broken.
    """
    yield from uvloop.run(_run(transport, levels, seconds, repetitions, folder))


async def _run(
    transport: str, levels: list[int], seconds: float, repetitions: int, folder: Path
) -> list[dict[str, Any]]:
    token = secrets.token_hex(4)
    by_broker: dict[str, str] = {}
    if transport != RAY:
        joint = "&" if "?" in transport else "?"
        queues = {name: f"bench-{token}-{name}" for name in SERVICES}
        by_broker = {name: f"{transport}{joint}queue={queue}" for name, queue in queues.items()}
    workload = happy()
    numbers = itertools.count()
    runs: dict[int, list[dict[str, Any]]] = {level: [] for level in levels}
    async with open_bed(folder, services=workload.services, participants=by_broker) as bed:
        with _runners(folder, by_broker):
            for repetition in range(repetitions):
                for level in levels:
                    load = Load(level, seconds)
                    name = f"b{repetition}-{level}"
                    runs[level].append(await run_level(bed, workload, load, numbers, name))
            await bed.rest()
    events = judge(folder, seed=1)
    shown = transport if transport == RAY else parse_address(transport).scheme
    return [
        {"workload": "happy", "transport": shown, "in_flight": level, "loop": "closed"}
        | {name: value for name, value in medians(found).items() if name in FIGURES}
        | {"repetitions": repetitions, "audited": bool(events)}
        for level, found in runs.items()
    ]


@contextmanager
def _runners(data: Path, by_broker: Mapping[str, str]) -> Iterator[None]:
    """Serve each service from its queue, in a process of its own, while the block runs."""
    command = [str(Path(sys.executable).with_name("raysaga")), "participant", "--json"]
    made = ["--data", str(data), "--make", f"{__name__}:serve_calm"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, address in by_broker.items():
            processes.append(
                subprocess.Popen(
                    [*command, name, *made],
                    env={**os.environ, "RAYSAGA_TRANSPORT": address},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
            )
        for process in processes:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RunRefusedError("a service does not come up; try `raysaga participant`")
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(STOP_S)


def bench_brokers(
    transport: Annotated[
        list[str], typer.Option(metavar="URL", help="A broker, to be repeated for several.")
    ],
    in_flight: Annotated[
        list[int] | None, typer.Option(min=1, help="Callers at a time, to be repeated.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Aim of one measurement.")] = 5.0,
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    results: ResultsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure order sagas over Ray and over each broker, in one run.

    Example:  raysaga bench brokers --transport amqp://localhost/ --transport kafka://localhost
    """
    from raysaga.bench.command import tell

    levels = in_flight or [1, 64]

    def lines() -> Iterator[dict[str, Any]]:
        for each in (RAY, *transport):
            with tempfile.TemporaryDirectory(prefix="raysaga-bench-") as folder:
                yield from measured_over(
                    each,
                    levels,
                    seconds=seconds,
                    repetitions=repetitions,
                    folder=Path(folder) / "data",
                )

    tell(Terminal(as_json=as_json), lines(), results)
