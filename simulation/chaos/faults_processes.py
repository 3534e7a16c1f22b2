"""Faults of processes: killed, stopped and woken; what Ray and the supervisor must mend."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from raysaga.actors.placement import shard_scope
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError, now_ms
from raysaga.simulation.chaos.orders import SERVICES
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.trouble import CallLog, Trouble, troubled


class KillShard(Fault):
    """SIGKILL of the process that houses a shard."""

    name: ClassVar[str] = "kill-shard"
    numbers: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "kills a shard's process"
    combines: ClassVar[bool] = True

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill; it has bitten when the process is gone and another epoch is granted."""
        shard = _some_shard(stage, blow)
        role = f"shard/{shard}"
        pid, epoch = await stage.pid(role), stage.epoch(shard)
        os.kill(pid, signal.SIGKILL)
        blow.inflicted(f"{role}, process {pid}")
        await _succeeded(stage, blow, shard, pid, epoch)


class KillService(Fault):
    """SIGKILL of a participant's process, after the effect and before the answer."""

    name: ClassVar[str] = "kill-service"
    numbers: ClassVar[tuple[int, ...]] = (3,)
    what: ClassVar[str] = "kills a service between an effect and its answer"
    seconds: ClassVar[float] = 6.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Have the service kill itself; it has bitten when the same call is answered again."""
        service = blow.chance.choice(SERVICES)
        role = f"participant/{service}"
        pid = await stage.pid(role)
        async with troubled(stage.workplace, service, {"mode": "die"}) as trouble:
            blow.inflicted(f"{role}, process {pid}")
            bite = await stage.until(lambda: next(iter(trouble.bites()), None), "a call met it")
            await stage.until(lambda: not is_alive(pid), f"process {pid} is gone")
        _, _, saga_id, step, verb, _ = bite
        await stage.replaced(role, pid)
        blow.healed(f"{role} is another process")

        def came_again() -> bool:
            """Return whether it was asked for again, or undone: its saga may have turned back."""
            return any(
                line[2:4] == [saga_id, step] and (line[9] or line[1] > verb)
                for line in trouble.calls.answered()
            )

        await stage.until(came_again, f"{step} of {saga_id} is answered from the ledger, or undone")
        blow.bit(f"{step} of {saga_id} was done, not answered, and then found in the ledger")


class KillServiceAnytime(Fault):
    """SIGKILL of a participant's process at any moment."""

    name: ClassVar[str] = "kill-service-anytime"
    numbers: ClassVar[tuple[int, ...]] = (3,)
    what: ClassVar[str] = "kills a service's process"
    combines: ClassVar[bool] = True

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill; it has bitten when the process is gone and another has its ledger."""
        role = f"participant/{blow.chance.choice(SERVICES)}"
        pid = await stage.pid(role)
        os.kill(pid, signal.SIGKILL)
        blow.inflicted(f"{role}, process {pid}")
        newer = await stage.replaced(role, pid)
        blow.bit(f"process {pid} is gone, {newer} is {role}")
        blow.healed()


class KillSupervisor(Fault):
    """SIGKILL of the supervisor, and of a shard that it should have looked after."""

    name: ClassVar[str] = "kill-supervisor"
    numbers: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "kills the supervisor, and a shard with it"
    seconds: ClassVar[float] = 8.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill both; it has bitten when both are replaced."""
        shard = _some_shard(stage, blow)
        supervisor, pid = await stage.pid("supervisor"), await stage.pid(f"shard/{shard}")
        epoch = stage.epoch(shard)
        for each in (supervisor, pid):
            os.kill(each, signal.SIGKILL)
        blow.inflicted(f"supervisor {supervisor} and shard/{shard} {pid}")
        newer = await stage.replaced("supervisor", supervisor)
        blow.bit(f"supervisor {supervisor} is gone, {newer} is in its place")
        await _succeeded(stage, blow, shard, pid, epoch)


class KillSaga(Fault):
    """SIGKILL of the actor of a dedicated saga in the middle of it."""

    name: ClassVar[str] = "kill-saga"
    numbers: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "kills a dedicated saga's actor half way"
    seconds: ClassVar[float] = 12.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Hold the saga at its third step, kill, let go; bitten when a newer epoch finishes it."""
        key = f"dedicated-{blow.number}-{now_ms()}"
        saga_id = f"order:{key}"
        held = {"mode": "hang", "saga_id": saga_id}
        async with troubled(stage.workplace, "shipping", held) as trouble:
            code = await stage.order(stage.callers, "submit", key=key, dedicated=True)
            if code:
                raise NeverHappenedError(f"the dedicated order is accepted, not {code}", 0.0)
            await stage.until(trouble.bites, f"{saga_id} is half way")
            # Whichever has it: it may have been taken by one that was there.
            pids = _sagas(stage)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            blow.inflicted(f"{saga_id}, processes {pids}")
            await stage.until(lambda: not any(map(is_alive, pids)), "its process is gone")
        await stage.until(lambda: _is_taken_over(trouble, saga_id), f"{saga_id} has a later owner")
        blow.bit(f"processes {pids} are gone; {saga_id} went on under epoch 2")
        blow.healed()


class RayKill(Fault):
    """`ray.kill` without a restart: the name is gone, and only the supervisor brings it back."""

    name: ClassVar[str] = "ray-kill"
    numbers: ClassVar[tuple[int, ...]] = (2,)
    what: ClassVar[str] = "has Ray kill a shard for good"
    seconds: ClassVar[float] = 8.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill; it has bitten when the process is gone and another epoch is granted."""
        shard = _some_shard(stage, blow)
        role = f"shard/{shard}"
        pid, epoch = await stage.pid(role), stage.epoch(shard)
        await stage.order(stage.keeper, "kill_actor", role=role, no_restart=True)
        blow.inflicted(f"{role}, process {pid}")
        await _succeeded(stage, blow, shard, pid, epoch)


class StopShard(Fault):
    """SIGSTOP of a shard for longer than the supervisor's patience."""

    name: ClassVar[str] = "stop-shard"
    numbers: ClassVar[tuple[int, ...]] = (13,)
    what: ClassVar[str] = "stops a shard for good; its successor must kill it first"
    seconds: ClassVar[float] = 25.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Stop; it has bitten when the supervisor has killed it and another epoch is granted."""
        shard = _some_shard(stage, blow)
        role = f"shard/{shard}"
        pid, epoch = await stage.pid(role), stage.epoch(shard)
        os.kill(pid, signal.SIGSTOP)
        blow.inflicted(f"{role}, process {pid}")
        try:
            await _succeeded(stage, blow, shard, pid, epoch)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class WakeZombie(Fault):
    """A shard that is stopped while another takes its epoch, and then wakes beside it."""

    name: ClassVar[str] = "wake-zombie"
    numbers: ClassVar[tuple[int, ...]] = (13,)
    what: ClassVar[str] = "stops a shard, has its epoch taken, and wakes it"
    seconds: ClassVar[float] = 10.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Wake it when it is no owner any more; it has bitten when it ends of itself."""
        shard = _some_shard(stage, blow)
        role = f"shard/{shard}"
        pid, supervisor = await stage.pid(role), await stage.pid("supervisor")
        epoch = stage.epoch(shard)
        # Else it would kill the zombie, as it should; here somebody else has the epoch.
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(pid, signal.SIGSTOP)
        blow.inflicted(f"{role}, process {pid}")
        try:
            taking = asyncio.create_task(asyncio.to_thread(_take_epoch, stage, shard))
            # Stopped in the middle of a commit it holds LMDB's lock, and must finish that first.
            await asyncio.wait({taking}, timeout=2.0)
        finally:
            os.kill(pid, signal.SIGCONT)
            os.kill(supervisor, signal.SIGCONT)
        taken = await taking
        await stage.until(lambda: not is_alive(pid), f"the zombie {pid} ends")
        blow.bit(f"epoch {taken} was taken after {epoch}; process {pid} woke, and ended")
        await _succeeded(stage, blow, shard, pid, taken)


class StopService(Fault):
    """SIGSTOP of a participant for longer than its callers wait, then SIGCONT."""

    name: ClassVar[str] = "stop-service"
    numbers: ClassVar[tuple[int, ...]] = (13, 18)
    what: ClassVar[str] = "stops a service for longer than calls wait, and wakes it"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 10.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Stop for some seconds; it has bitten when calls come again that were given up."""
        service = blow.chance.choice(SERVICES)
        role = f"participant/{service}"
        pid, calls = await stage.pid(role), CallLog(stage.workplace, service)
        os.kill(pid, signal.SIGSTOP)
        blow.inflicted(f"{role}, process {pid}")
        try:
            await asyncio.sleep(blow.chance.uniform(3.0, 6.0))
        finally:
            os.kill(pid, signal.SIGCONT)
        blow.healed()
        found = await stage.until(calls.repeated, "calls come again")
        blow.bit(f"{found} calls came again after they were given up")


class StopServiceForGood(Fault):
    """SIGSTOP of a participant for longer than the supervisor's patience."""

    name: ClassVar[str] = "stop-service-for-good"
    numbers: ClassVar[tuple[int, ...]] = (18,)
    what: ClassVar[str] = "stops a service until the supervisor replaces it"
    seconds: ClassVar[float] = 25.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Stop; it has bitten when the process was killed and replaced."""
        role = f"participant/{blow.chance.choice(SERVICES)}"
        pid = await stage.pid(role)
        os.kill(pid, signal.SIGSTOP)
        blow.inflicted(f"{role}, process {pid}")
        try:
            newer = await stage.replaced(role, pid)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        blow.bit(f"process {pid} was killed, {newer} is {role}")
        blow.healed()


class KillDriver(Fault):
    """SIGKILL of the process that holds the engine open, and so of the whole local Ray."""

    name: ClassVar[str] = "kill-driver"
    numbers: ClassVar[tuple[int, ...]] = (10,)
    what: ClassVar[str] = "kills the driver, and with it the whole local Ray"
    seconds: ClassVar[float] = 35.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Kill, start anew; it has bitten when Ray is gone and every shard has a new epoch."""
        shards = range(stage.data().shard_count)
        epochs = [stage.epoch(shard) for shard in shards]
        roles = stage.roles()
        os.kill(roles["keeper"], signal.SIGKILL)
        blow.inflicted(f"keeper {roles['keeper']}")
        raylet = roles["raylet/1"]
        await stage.until(lambda: not is_alive(raylet), f"raylet {raylet} is gone")
        await stage.kill()
        await stage.start(stage.launch)
        await stage.until(
            lambda: all(stage.epoch(s) > epochs[s] for s in shards), "every shard has a new epoch"
        )
        blow.bit(f"raylet {raylet} went with its driver; all shards came back with new epochs")
        blow.healed()


MEMORY_CGROUPS = Path("/sys/fs/cgroup/memory")


class StarveShard(Fault):
    """A shard's process runs out of memory, and the kernel kills it."""

    name: ClassVar[str] = "starve-shard"
    numbers: ClassVar[tuple[int, ...]] = (4,)
    what: ClassVar[str] = "has the kernel kill a shard for want of memory"
    seconds: ClassVar[float] = 10.0

    def missing(self) -> str:
        """Return what is missing, if it is."""
        if os.access(MEMORY_CGROUPS / "cgroup.procs", os.W_OK):
            return ""
        return "needs the memory controller of cgroups v1, and root"

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Bound its memory below what it needs; it has bitten when it was killed."""
        shard = _some_shard(stage, blow)
        role = f"shard/{shard}"
        pid, epoch = await stage.pid(role), stage.epoch(shard)
        group = MEMORY_CGROUPS / f"raysaga-chaos-{os.getpid()}-{blow.number}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(1 << 20))
            (group / "cgroup.procs").write_text(str(pid))
            blow.inflicted(f"{role}, process {pid}")
            # Only what it asks for from now on is counted, so it must have more to do.
            before = await stage.order(stage.callers, "rate", per_s=500.0, in_flight_max=3_000)
            try:
                await stage.until(lambda: not is_alive(pid), f"process {pid} is killed", 30.0)
            finally:
                await stage.order(stage.callers, "rate", **before)
            kills = _oom_kills(group)
            await _succeeded(stage, blow, shard, pid, epoch)
            blow.bit(f"the kernel counts {kills} processes killed for want of memory")
        finally:
            with suppress(ProcessLookupError, OSError):
                (MEMORY_CGROUPS / "cgroup.procs").write_text(str(pid))
            group.rmdir()


def _oom_kills(group: Path) -> int:
    lines = (group / "memory.oom_control").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _some_shard(stage: Stage, blow: Blow) -> int:
    return blow.chance.randrange(stage.data().shard_count)


async def _succeeded(stage: Stage, blow: Blow, shard: int, pid: int, epoch: int) -> None:
    """Note the bite when a process is gone and a shard has a newer epoch, and the healing."""
    await stage.until(lambda: not is_alive(pid), f"process {pid} is gone")
    newer = await stage.until(
        lambda: e if (e := stage.epoch(shard)) > epoch else None, f"shard/{shard} has a new epoch"
    )
    blow.bit(f"process {pid} is gone; epoch {newer} was granted after {epoch}")
    replaced = await stage.replaced(f"shard/{shard}", pid)
    blow.healed(f"shard/{shard} is process {replaced}")


def _take_epoch(stage: Stage, shard: int) -> int:
    """Make somebody else the owner of a shard's scope; return the epoch."""
    data = stage.data()
    journal = data.open_journal(shard)
    try:
        return journal.grant_epoch(shard_scope(data.uuid, shard), "the nemesis", now_ms())
    finally:
        journal.close()


def _sagas(stage: Stage) -> list[int]:
    return [pid for role, pid in stage.roles().items() if role.startswith("saga/")]


def _is_taken_over(trouble: Trouble, saga_id: str) -> bool:
    """Return whether a later owner of a dedicated saga has sent a call."""
    return any(
        line[2] == saga_id and line[4].endswith(saga_id) and line[5] > 1
        for line in trouble.calls.arrived()
    )


FAULTS: tuple[Fault, ...] = (
    KillShard(),
    KillService(),
    KillServiceAnytime(),
    KillSupervisor(),
    KillSaga(),
    RayKill(),
    StopShard(),
    WakeZombie(),
    StopService(),
    StopServiceForGood(),
    KillDriver(),
    StarveShard(),
)
