"""Faults of processes: killed, stopped and woken; what Ray and the supervisor must mend."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

from raysaga.simulation.chaos.fault import Blow, Fault
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import Stage


class KillShard(Fault):
    """SIGKILL of the process that houses a shard."""

    name: ClassVar[str] = "kill-shard"
    numbers: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "kills a shard's process"
    seconds: ClassVar[float] = 5.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill; it has bitten when the process is gone and another epoch is granted."""
        shard = blow.chance.randrange(stage.data().shard_count)
        role = f"shard/{shard}"
        pid, epoch = await stage.pid(role), stage.epoch(shard)
        os.kill(pid, signal.SIGKILL)
        blow.inflicted(f"{role}, process {pid}")
        await stage.until(lambda: not is_alive(pid), f"process {pid} is gone")
        newer = await stage.until(
            lambda: e if (e := stage.epoch(shard)) > epoch else None, f"{role} has a new epoch"
        )
        blow.bit(f"process {pid} is gone; epoch {newer} was granted after {epoch}")
        await stage.replaced(role, pid)
        blow.healed(f"{role} is process {await stage.pid(role)}")
