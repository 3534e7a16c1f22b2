"""Kills every process of an engine with many sagas in flight, and times the way back.

Each saga has done two of its four steps, and its call to the third is under way: shipping
holds all calls back until the kill. Two kills are timed. `cold`: Ray dies as well, and a
new program starts Ray and the engine. `standing`: Ray stands, and brings its actors back.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from raysaga.actors.archive import Archive
from raysaga.bench.bed import SERVICES, Bed, calm_services, engine_settings, open_bed
from raysaga.bench.judge import RunRefusedError, judge
from raysaga.bench.orders import ordinary
from raysaga.bench.toy_services import gate_of
from raysaga.bench.waiting import SUBMITTED_AT_ONCE, TIMEOUT_MS, waiting_settings
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga

HELD_AT = "shipping"

LOOK_S = 0.01
"""Pause between two looks at the journal while sagas finish."""

WAIT_S_MAX = 300.0
"""Longest wait for anything here."""

GATED_SERVICES = {
    name: "raysaga.bench.toy_services:serve_gated"
    if name == HELD_AT
    else "raysaga.actors.services.serve:serve"
    for name in SERVICES
}


def held_order() -> SagaDefinition:
    """Return the order saga with so much patience that no attempt ends before the kill."""
    data = order_saga.to_data()
    data["name"] = "held-order"
    for step in data["steps"]:
        step["timeout_ms"] = TIMEOUT_MS
    return SagaDefinition.from_data(data)


def run_recovery(folder: Path, count: int, kind: str, seed: int) -> dict[str, Any]:
    """Return how long `count` sagas took to end after a kill of the kind `cold` or `standing`.

    Raises:
        RunRefusedError: If one is lost, or the books do not balance.
    """
    timed = _cold(folder, count) if kind == "cold" else uvloop.run(_standing(folder, count))
    return {
        "sagas": count,
        "kill": kind,
        **timed,
        **judge(folder, seed=seed, definitions=(held_order(),)),
    }


# -- Ray dies as well ----------------------------------------------------------


def _cold(folder: Path, count: int) -> dict[str, Any]:
    filling = [sys.executable, "-m", "raysaga.bench.recovery", str(folder), str(count)]
    with subprocess.Popen(filling, start_new_session=True) as child:
        marker = folder / "filled"
        pause = threading.Event()
        while not marker.exists():
            if child.poll() is not None:
                raise RunRefusedError("the engine that was to be killed ended by itself")
            pause.wait(0.02)
        this = psutil.Process(child.pid)
        for process in [*this.children(recursive=True), this]:
            _kill(process.pid)
    gate_of(folder).touch()
    return uvloop.run(_finish(folder, count))


async def _fill_and_wait(folder: Path, count: int) -> None:
    async with _open(folder, count) as bed:
        await _fill(bed, count)
        (folder / "filled").touch()
        await asyncio.sleep(WAIT_S_MAX)


async def _finish(folder: Path, count: int) -> dict[str, Any]:
    began_at = time.perf_counter()
    async with _open(folder, count) as bed:
        up_s = time.perf_counter() - began_at
        timeline = await _until_ended(folder, count, began_at)
        await bed.rest()
    return {
        "seconds_until_ray_and_engine_are_up": round(up_s, 3),
        "seconds_until_all_have_ended": timeline[-1][0],
        "seconds_from_up_until_all_have_ended": round(max(timeline[-1][0] - up_s, 0.0), 3),
        "timeline": timeline,
    }


# -- Ray stands ----------------------------------------------------------------


async def _standing(folder: Path, count: int) -> dict[str, Any]:
    async with _open(folder, count) as bed:
        await _fill(bed, count)
        pids = [pid for pid, name in bed.meter.pids.items()]
        supervisors = [p.pid for p in bed.meter.processes() if "SupervisorShell" in _title(p)]
        if len(supervisors) != 1:
            raise RunRefusedError(f"{len(supervisors)} supervisors were found, not one")
        gate_of(folder).touch()
        for pid in [*supervisors, *pids]:
            _kill(pid)
        began_at = time.perf_counter()
        timeline = await _until_ended(folder, count, began_at)
        await bed.rest()
    firsts = [at_s for at_s, ended in timeline if ended]
    return {
        "processes_killed": len(pids) + 1,
        "seconds_until_first_has_ended": firsts[0],
        "seconds_until_all_have_ended": timeline[-1][0],
        "seconds_from_first_until_all_have_ended": round(timeline[-1][0] - firsts[0], 3),
        "timeline": timeline,
    }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


# -- both ----------------------------------------------------------------------


def _open(folder: Path, count: int) -> Any:
    return open_bed(
        folder,
        services=calm_services(),
        participants=GATED_SERVICES,
        settings=waiting_settings(count),
    )


async def _fill(bed: Bed, count: int) -> None:
    """Return when `count` sagas are in flight, each with its third call under way or queued."""
    definition = held_order()
    numbers = iter(range(count))

    async def submit() -> None:
        for number in numbers:
            key, order = ordinary(number, "r")
            await bed.sagas.gateway.submit(definition, order, key=key, watch=False)

    await asyncio.gather(*(submit() for _ in range(min(SUBMITTED_AT_ONCE, count))))
    until = time.perf_counter() + WAIT_S_MAX
    while True:
        shards = await bed.sagas.stats()
        at_gate = [s["participants"].get(HELD_AT, {}) for s in shards]
        if sum(p.get("in_flight", 0) + p.get("queued", 0) for p in at_gate) >= count:
            break
        if time.perf_counter() > until:
            raise RunRefusedError("the sagas did not come to the gate")
        await asyncio.sleep(LOOK_S)
    # What was written behind is on disk as well, or it would not be half of the work.
    await asyncio.sleep(2 * engine_settings().lazy_flush_ms / 1_000)


async def _until_ended(folder: Path, count: int, began_at: float) -> list[tuple[float, int]]:
    """Return how many had ended when, as the journal tells, until all have."""
    timeline: list[tuple[float, int]] = [(0.0, 0)]
    with Archive.open(folder) as archive:
        while timeline[-1][1] < count:
            at_s = time.perf_counter() - began_at
            if at_s > WAIT_S_MAX:
                raise RunRefusedError(f"{count - timeline[-1][1]} sagas have not ended")
            ended = archive.counts()["completed"]
            if ended != timeline[-1][1]:
                timeline.append((round(at_s, 3), ended))
            await asyncio.sleep(LOOK_S)
    return timeline


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    uvloop.run(_fill_and_wait(Path(sys.argv[1]), int(sys.argv[2])))
