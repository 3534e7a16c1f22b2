"""Disks that fail and fill up, wires that are cut, and a node without its raylet: each survived.

A strike proves by itself that it bit; then the checker decides by what is left, as in a run.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysaga.simulation.chaos.catalogue import FAULTS
from raysaga.simulation.chaos.evidence import gather
from raysaga.simulation.chaos.fault import Blow, Fault
from raysaga.simulation.chaos.faults_clock import environment_of
from raysaga.simulation.chaos.faults_disk import FlushFails, SweepCalls
from raysaga.simulation.chaos.faults_network import Partition
from raysaga.simulation.chaos.faults_nodes import KillRaylet, accepted
from raysaga.simulation.chaos.faults_room import DiskFull
from raysaga.simulation.chaos.run import scenery
from raysaga.simulation.chaos.shifted_clock import put
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.two_nodes import on_two_nodes
from raysaga.simulation.checker import check

pytestmark = pytest.mark.cluster

SHORT_CUT_SEED = 1
"""Of which the first draw makes a cut a short one."""


def blow_of(fault: Fault, seed: int = SHORT_CUT_SEED) -> Blow:
    if missing := fault.missing():
        pytest.skip(f"{fault.name}: {missing}")
    return Blow(fault=fault.name, number=1, chance=random.Random(seed), told=print_it)


def print_it(what: str, text: str) -> None:
    sys.stdout.write(f"{what}: {text}\n")


def networks_of(pid: int) -> list[Path]:
    """Return the network namespaces that a process has made."""
    return list(Path("/run/netns").glob(f"raysaga-{pid}-*"))


async def read_again(stage: Stage) -> None:
    """Let all come to rest, and read it; what the checker takes for the end."""
    assert await stage.order(stage.callers, "rest", timeout_s=60.0) == []
    await stage.order(stage.callers, "readings")


def assert_nothing_is_broken(stage: Stage, *blows: Blow) -> None:
    evidence = gather(
        stage.workplace,
        blows,
        began_at_ms=0,
        healed_at_ms=0,
        ended_at_ms=0,
        late=[],
        unserved=[],
        left_over=[],
        ray_logs=[],
        poison=frozenset(),
    )
    assert evidence.records > 0
    assert check(evidence.seen) == []
    for blow in blows:
        assert blow.bit_at_ms and blow.healed_at_ms, blow
        assert blow.broken == []


async def test_a_process_ends_when_its_disk_fails_and_waits_when_it_is_full(
    tmp_path: Path,
) -> None:
    faults = [FlushFails(), SweepCalls(), DiskFull()]
    blows = [blow_of(fault) for fault in faults]
    stage = Stage(tmp_path, scenery(7, 20.0), log=lambda _text: None)
    try:
        await stage.start()
        for fault, blow in zip(faults, blows, strict=True):
            await fault.strike(stage, blow)
        await read_again(stage)
    finally:
        await stage.close()
    assert_nothing_is_broken(stage, *blows)
    assert "orders were told STORAGE_FULL" in blows[-1].evidence[0]


async def test_orders_go_on_through_a_short_cut_and_after_a_raylet_is_lost(tmp_path: Path) -> None:
    cut, loss = Partition(), KillRaylet()
    blows = [blow_of(cut), blow_of(loss)]
    stage = Stage(tmp_path, scenery(8, 20.0), log=lambda _text: None)
    try:
        async with on_two_nodes(stage) as nodes:
            await accepted(stage, 5)
            await cut.play(stage, blows[0], nodes)
            await loss.play(stage, blows[1], nodes)
            for blow in blows:
                blow.healed()
            await read_again(stage)
    finally:
        await stage.close()
    assert_nothing_is_broken(stage, *blows)
    assert "the same processes went on" in blows[0].evidence[-1]
    assert networks_of(os.getpid()) == []


def test_a_clock_that_is_put_elsewhere_leaves_durations_alone(tmp_path: Path) -> None:
    put(tmp_path / "clock", -86_400)
    clocks = "import time; print(time.time(), time.monotonic())"
    environment = {**os.environ, **environment_of(tmp_path / "clock")}
    told = subprocess.run(
        [sys.executable, "-c", clocks], env=environment, capture_output=True, check=True, text=True
    )
    wall, monotonic = map(float, told.stdout.split())
    assert abs(time.monotonic() - monotonic) < 3_600
    assert abs(time.time() - 86_400 - wall) < 3_600


def test_every_fault_says_what_it_misses() -> None:
    for fault in FAULTS:
        missing = fault.missing()
        assert not missing or "\n" not in missing
