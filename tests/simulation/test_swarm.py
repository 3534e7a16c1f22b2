"""The workers of a swarm end with whoever began them, however that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import psutil
import pytest

WAIT_S = 60.0
WORKERS = 2


def workers_of(swarm: psutil.Process) -> list[psutil.Process]:
    """Return the workers that play, once all do."""
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s and swarm.is_running():
        workers = [one for one in swarm.children() if "spawn_main" in " ".join(one.cmdline())]
        # By then they have their seeds: a second is more than the start takes of them.
        if len(workers) == WORKERS and all(sum(w.cpu_times()[:2]) > 1 for w in workers):
            return workers
        Event().wait(0.05)
    pytest.fail("its workers never played")


def test_workers_do_not_outlive_a_swarm_that_was_killed() -> None:
    program = Path(sys.executable).with_name("raysaga")
    command = [program, "simulate", "--hours", "1", "--workers", str(WORKERS)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            workers = workers_of(psutil.Process(process.pid))
        finally:
            process.kill()
    _, left = psutil.wait_procs(workers, timeout=WAIT_S)
    for worker in left:
        worker.kill()
    assert not left
