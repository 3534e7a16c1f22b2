"""Makes sure that no earlier owner of an environment is left alive on this machine.

A stopped process that holds LMDB's write lock would block the new owner for
ever; killed, it frees the lock at once. The epoch fences an owner elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import structlog

from raysaga.storage.data_folder import previous_owner, record_owner

DEATH_WAIT_S = 10.0
"""How long to wait for a killed process to be gone."""


async def take_ownership(path: Path) -> None:
    """Kill the process noted as owner of `path`, if it still is that process; note this one."""
    pid = previous_owner(path)
    if pid is not None and pid != os.getpid():
        structlog.get_logger().warning("zombie_killed", pid=pid, path=path.name)
        await kill_and_wait(pid)
    record_owner(path)


async def kill_and_wait(pid: int) -> None:
    """SIGKILL a process and wait until it runs no more.

    Raises:
        TimeoutError: If it is still there after ten seconds.
    """
    try:
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + DEATH_WAIT_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if loop.time() > until:
            raise TimeoutError(f"process {pid} does not die")
        await asyncio.sleep(0.01)
