"""Profiles every process of an engine under load: a flame graph each, and what a saga pays for.

The load is run twice: without a profiler, to know what a saga costs each process, and then
with py-spy at one process after the other, to know what the time goes into. The table gives
the first figure, divided as the second tells; so its rows add up to what was measured, and
`wait` is what the cores stood still. What py-spy slows the load down by is told as well.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from raysaga.bench.activities import ACTIVITIES, WAIT, shares
from raysaga.bench.bed import Bed, open_bed
from raysaga.bench.compiled_frames import as_sources, compiled_sources
from raysaga.bench.flames import Stacks, flame_graph
from raysaga.bench.judge import judge
from raysaga.bench.loops import Loop, closed_loop
from raysaga.bench.measure import Load, one_saga, run_level
from raysaga.bench.workloads import Workload
from raysaga.compiled import is_compiled
from raysaga.statemachines.errors import SagaError

SAMPLES_PER_S = 200
"""Of the process that is looked at; more would slow two cores down by more than it tells."""

NATIVE = ("threads without Python (ray/)",)

BEGIN_S = 0.6
"""What py-spy takes to find its way into a process."""


class ProfilerMissingError(SagaError):
    """The profiler is not installed, or may not look into processes here.

    Attributes:
        message: What to do.
    """

    code = "BENCH_PROFILER_MISSING"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


async def run_profile(
    folder: Path, workload: Workload, load: Load, pictures: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a line of results with the table; write the flame graphs to `pictures`.

    Raises:
        ProfilerMissingError: If there is no py-spy, or it is not let in.
        RunRefusedError: If a promise was broken.
    """
    py_spy = profiler()
    os.makedirs(pictures, exist_ok=True)
    numbers = itertools.count()
    async with open_bed(
        folder,
        services=workload.services,
        participants=workload.participants,
        settings=settings,
    ) as bed:
        plain = await run_level(bed, workload, load, numbers, "plain")
        looked, seen = await _seen(bed, workload, load, numbers, py_spy)
        await bed.rest()
    cpu_us = {k: 1e3 * v for k, v in plain["cpu_ms_per_saga_by_process"].items()}
    table = {}
    for name, stacks in looked.items():
        _draw(pictures, name, stacks)
        found = shares(stacks)
        table[name] = {a: round(cpu_us[name] * found[a], 1) for a in ACTIVITIES if found.get(a)}
    for name in cpu_us.keys() - table.keys():
        table[name] = {"ray": round(cpu_us[name], 1)}
    wall_us = 1e6 / plain["sagas_per_s"] * (os.cpu_count() or 1)
    verdict = judge(folder, seed=load.seed, definitions=(workload.definition,))
    return {
        **plain,
        "workload": "profile",
        "profiled": workload.name,
        "us_per_saga_by_activity": table,
        "us_per_saga_of_the_cores": round(wall_us, 1),
        f"us_per_saga_{WAIT}": round(wall_us - sum(cpu_us.values()), 1),
        "sagas_per_s_while_profiled": round(len(seen.ended) / seen.seconds, 1),
        **verdict,
    }


async def _seen(
    bed: Bed, workload: Workload, load: Load, numbers: Iterator[int], py_spy: str
) -> tuple[dict[str, Stacks], Loop]:
    """Keep the load up, and look at each process in turn; return the stacks, and the loop."""
    one = one_saga(bed, workload, "seen", dedicated=load.dedicated, sheds=False)
    processes = {**bed.meter.pids, os.getpid(): "caller"}
    look_s = max(load.seconds / 2, 1.0)
    total_s = len(processes) * (look_s + BEGIN_S)
    loop = asyncio.ensure_future(
        closed_loop(one, numbers, in_flight=load.in_flight, seconds=total_s)
    )
    found: dict[str, Stacks] = {}
    try:
        for pid, name in processes.items():
            found[name] = await _look(py_spy, pid, look_s)
    finally:
        done = await loop
    return found, done


def profiler() -> str:
    """Return the path of py-spy.

    Raises:
        ProfilerMissingError: If it is not installed.
    """
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None or importlib.util.find_spec("matplotlib") is None:
        raise ProfilerMissingError("install what a bench needs: pip install 'raysaga[bench]'")
    return found


async def _look(py_spy: str, pid: int, seconds: float) -> Stacks:
    """Return the stacks that a process was seen in, weighted by seconds on a core."""
    with tempfile.NamedTemporaryFile() as file:
        arguments = ["--pid", str(pid), "--duration", str(round(seconds))]
        # Native stacks can be read of a process that stands still only.
        arguments.append("--native" if is_compiled() else "--nonblocking")
        arguments += ["--rate", str(SAMPLES_PER_S), "--format", "raw", "--function", "--threads"]
        before = _thread_cpu_s(pid)
        process = await asyncio.create_subprocess_exec(
            py_spy,
            "record",
            *arguments,
            "--output",
            file.name,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise ProfilerMissingError("py-spy was not let into a process; run it as root")
        after = _thread_cpu_s(pid)
        used_s = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
        stacks = stacks_in(file.read().decode())
        if is_compiled():
            sources = compiled_sources()
            stacks = _gathered((as_sources(s, sources), count) for s, count in stacks.items())
        return weighted(stacks, used_s)


def _gathered(stacks: Iterable[tuple[tuple[str, ...], float]]) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for stack, count in stacks:
        found[stack] += count
    return dict(found)


def _thread_cpu_s(pid: int) -> dict[int, float]:
    threads = psutil.Process(pid).threads()
    return {thread.id: thread.user_time + thread.system_time for thread in threads}


def weighted(stacks: Stacks, used_s: Mapping[int, float]) -> dict[tuple[str, ...], float]:
    """Return stacks whose weights are seconds on a core.

    A sampler takes a thread that is about to sleep for a busy one; what each thread has used
    is known better. Threads without a Python stack are Ray's own.

    Args:
        stacks: Each begins with its thread, `thread (ID): name`; weights are samples.
        used_s: Thread to what it has used meanwhile.
    """
    samples: Counter[int] = Counter()
    for (thread, *_), count in stacks.items():
        samples[_id_of(thread)] += int(count)
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for (thread, *rest), count in stacks.items():
        used = used_s.get(_id_of(thread), 0.0)
        found[tuple(rest)] += count * used / samples[_id_of(thread)]
    native_s = sum(used for thread, used in used_s.items() if not samples[thread])
    return {**found, NATIVE: native_s}


def _id_of(thread: str) -> int:
    return int(thread.partition("(")[2].partition(")")[0])


def stacks_in(text: str) -> dict[tuple[str, ...], float]:
    """Return the stacks of collapsed lines: frames joined by semicolons, and a count."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        frames, _, count = line.rpartition(" ")
        if frames:
            found[tuple(frames.split(";"))] += int(count)
    return {stack: float(count) for stack, count in found.items()}


def _draw(pictures: Path, name: str, stacks: Stacks) -> None:
    path = pictures / f"{name.replace('/', '-')}.svg"
    path.write_text(flame_graph(name, stacks), encoding="utf-8")
