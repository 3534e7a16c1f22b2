"""Measures raysaga and its peers side by side: the same saga, turn by turn, on fresh stores.

Guarantees: each repetition runs every peer once, in an order that rotates, so that what the
machine does meanwhile meets all of them; a figure is a median with its range. A peer whose
participants' counts do not fit its answers has none.
Refuses: nothing for a peer that cannot be had here; it is told why, and left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

from raysaga.bench.measure import Load
from raysaga.bench.meter import (
    Meter,
    Reading,
    disk_bytes,
    disk_kib_per_saga,
    foreign_cores,
    machine_busy_s,
    used_between,
)
from raysaga.bench.peers.errors import PeerFailedError, PeerMissingError
from raysaga.bench.peers.homes import home_of
from raysaga.bench.peers.postgres import postgres
from raysaga.bench.session import Cell, medians, run_cells
from raysaga.bench.workloads import happy, refused

OWN = "raysaga"

LINE_BYTES_MAX = 1 << 20

RESTATE_SERVER = "node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"
"""The program itself, and not the script of node that would stand before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerKind:
    """One way to run the saga.

    Attributes:
        adapter: Its folder.
        variant: What its adapter is told.
        durable: What it makes durable, in a few words.
        processes: In which processes it runs.
        facts: What else its adapter is told.
    """

    adapter: str
    variant: str
    durable: str
    processes: str
    facts: Mapping[str, Any] = field(default_factory=dict)


IN_PROCESS = "one process; participants in it, not durable"
SERVED = "server, deployment, client; participants in the deployment, not durable"

PEERS: Mapping[str, PeerKind] = {
    "sqlite-step": PeerKind(
        adapter="sqlite",
        variant="step",
        durable="start, each step, end: a commit each (WAL, FULL)",
        processes=IN_PROCESS,
    ),
    "sqlite-group": PeerKind(
        adapter="sqlite",
        variant="group",
        durable="start, each step, end: group commit (WAL, FULL)",
        processes=IN_PROCESS,
    ),
    "dbos-sqlite": PeerKind(
        adapter="dbos",
        variant="sqlite",
        durable="start, each step, end: a transaction each (SQLite, FULL)",
        processes=IN_PROCESS,
    ),
    "dbos-postgres": PeerKind(
        adapter="dbos",
        variant="postgres",
        durable="start, each step, end: a transaction each (PostgreSQL's defaults)",
        processes=f"{IN_PROCESS}; PostgreSQL",
    ),
    "restate-run": PeerKind(
        adapter="restate",
        variant="run",
        durable="invocation and each step: replicated log, 1 replica, synced",
        processes=SERVED,
    ),
    "restate-run-1-partition": PeerKind(
        adapter="restate",
        variant="run",
        durable="invocation and each step: replicated log, 1 replica, synced",
        processes=SERVED,
        facts={"partitions": 1},
    ),
    "restate-services": PeerKind(
        adapter="restate",
        variant="services",
        durable="each invocation and call: replicated log, 1 replica, synced",
        processes=SERVED,
    ),
}
"""Name to kind; the order is that of reports."""

OWN_FACTS = {
    "durable": "birth, end and every record between; each participant's effects: LMDB, synced",
    "processes": "shard, 4 participants with durable ledgers, Ray, caller",
}


def run_peers(
    names: tuple[str, ...],
    levels: tuple[int, ...],
    *,
    seconds: float,
    repetitions: int,
    refused_percent: int,
    settings: Mapping[str, Any],
    tell: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Yield a line of results for raysaga and each peer, level by level.

    Args:
        names: Of `PEERS`.
        levels: Callers at a time.
        seconds: Aim of one measurement.
        repetitions: Rounds.
        refused_percent: Orders that cannot be shipped; 0, or a divisor of 100.
        settings: Of our engine.
        tell: Told of peers that are left out.
    """
    homes: dict[str, Path] = {}
    for name in names:
        try:
            homes[name] = home_of(PEERS[name].adapter)
        except PeerMissingError as missing:
            tell(f"left out: {missing}")
    for level in levels:
        found: dict[str, list[dict[str, Any]]] = {}
        runners = [OWN, *homes]
        for repetition in range(repetitions):
            turn = repetition % len(runners)
            for name in runners[turn:] + runners[:turn]:
                with tempfile.TemporaryDirectory(prefix="raysaga-bench-") as folder:
                    try:
                        run = (
                            _own(Path(folder), level, seconds, refused_percent, settings)
                            if name == OWN
                            else run_peer(
                                name, homes[name], Path(folder), level, seconds, refused_percent
                            )
                        )
                    except (PeerMissingError, PeerFailedError) as error:
                        tell(f"no figure: {error}")
                        continue
                found.setdefault(name, []).append(run)
        for name in runners:
            if name in found:
                yield _line(name, level, refused_percent, found[name])


def _line(
    name: str, level: int, refused_percent: int, runs: list[dict[str, Any]]
) -> dict[str, Any]:
    kind = PEERS.get(name)
    facts = OWN_FACTS if kind is None else {"durable": kind.durable, "processes": kind.processes}
    workload = "peers" if not refused_percent else f"peers-refused-{refused_percent}"
    return (
        {"workload": workload, "peer": name, "in_flight": level}
        | medians(runs)
        | facts
        | ({"workload": workload})
    )


def _own(
    folder: Path, level: int, seconds: float, refused_percent: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    workload = refused(refused_percent) if refused_percent else happy()
    cells = [Cell(workload, Load(level, seconds))]
    return uvloop.run(run_cells(folder / "data", cells, repetitions=1, settings=settings))[0]


def run_peer(
    name: str, home: Path, folder: Path, level: int, seconds: float, refused_percent: int
) -> dict[str, Any]:
    """Return one run of a peer on a fresh store.

    Raises:
        PeerMissingError: If its server cannot be had.
        PeerFailedError: If it came to nothing, or its counts do not fit its answers.
    """
    kind = PEERS[name]
    store = folder / "store"
    store.mkdir()
    plan = {
        "adapter": kind.adapter,
        "variant": kind.variant,
        "folder": str(store),
        "in_flight": level,
        "seconds": seconds,
        "refused_every": 100 // refused_percent if refused_percent else 0,
        "server": str(home / RESTATE_SERVER),
        **kind.facts,
    }
    with ExitStack() as stack:
        servers: dict[int, str] = {}
        if kind.variant == "postgres":
            plan["database_url"], pid = stack.enter_context(postgres(folder))
            servers[pid] = "postgres"
        return uvloop.run(_driven(name, home, plan, servers))


async def _driven(
    name: str, home: Path, plan: dict[str, Any], servers: dict[int, str]
) -> dict[str, Any]:
    """Run the driver in the peer's environment, and read what its processes use meanwhile."""
    environment = {**os.environ, "PYTHONPATH": str(home / "lib")}
    log = Path(plan["folder"]) / "driver.log"
    with open(log, "wb") as errors:  # noqa: ASYNC230 - opened once, before anything is timed
        process = await asyncio.create_subprocess_exec(
            str(home / "venv/bin/python"),
            # Without the working folder, where all of ours may be.
            "-P",
            "-m",
            "raysaga.bench.peers.drive",
            json.dumps(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
            limit=LINE_BYTES_MAX,
        )
    below = psutil.Process(process.pid)
    try:
        run = await _heard(name, process, servers, Path(plan["folder"]))
        if await process.wait() or "audit" not in run:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise PeerFailedError(name, f"its driver ended: {' '.join(last)}")
        return run
    finally:
        if process.returncode is None:
            # With all that it has started, or that would go on for ever.
            for each in [*below.children(recursive=True), below]:
                each.kill()
            await process.wait()


async def _heard(
    name: str, process: asyncio.subprocess.Process, servers: dict[int, str], folder: Path
) -> dict[str, Any]:
    before: Reading = {}
    busy_s = 0.0
    on_disk: int | None = None
    run: dict[str, Any] = {}
    async for told in _lines(process):
        event = told.pop("event")
        meter = _TreeMeter({process.pid: "driver", **servers})
        if event == "measuring":
            before, busy_s, on_disk = meter.read(), machine_busy_s(), disk_bytes(folder)
        elif event == "measured":
            used = used_between(before, meter.read())
            run = told | _costs(used, told["ended"])
            run["disk_kib_per_saga"] = disk_kib_per_saga(on_disk, disk_bytes(folder), told["ended"])
            run["foreign_cores"] = foreign_cores(machine_busy_s() - busy_s, used, told["seconds"])
            run["memory_mib_by_process"] = meter.memory_mib()
        if event in ("measuring", "measured"):
            assert process.stdin is not None
            process.stdin.write(b"\n")
        elif event == "checked":
            if told["problems"]:
                raise PeerFailedError(name, "; ".join(told["problems"]))
            run["memory_mib"] = round(sum(run["memory_mib_by_process"].values()), 1)
            run["audit"] = "counts agree"
    return run


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)


def _costs(used: Reading, sagas: int) -> dict[str, Any]:
    cpu_s = {name: u.cpu_s for name, u in used.items()}
    written = {name: u.written_bytes for name, u in used.items()}
    return {
        "cpu_ms_per_saga": round(sum(cpu_s.values()) * 1e3 / sagas, 4),
        "cpu_ms_per_saga_by_process": {k: round(v * 1e3 / sagas, 4) for k, v in cpu_s.items()},
        "written_kib_per_saga": round(sum(written.values()) / 1024 / sagas, 3),
    }


class _TreeMeter(Meter):
    """Reads the processes below some, and those themselves; each is named by its program."""

    def processes(self) -> list[psutil.Process]:
        """Return the roots and all below them."""
        found: list[psutil.Process] = []
        for pid in self.pids:
            try:
                root = psutil.Process(pid)
                found += [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
        return found

    def name_of(self, process: psutil.Process) -> str:
        """Return what a process is."""
        if process.pid in self.pids:
            return self.pids[process.pid]
        try:
            return str(process.name())
        except psutil.NoSuchProcess:
            return "gone"
