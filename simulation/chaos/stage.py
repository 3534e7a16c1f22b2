"""The stage on which faults play: one data folder, its engine's processes, and the callers.

The conductor (the process of `raysaga chaos`) has no Ray of its own, so that it outlives
whatever is broken: a *keeper* process opens the engine and with it the local Ray, and a process
of *callers* connects to it as any client does. What is where the stage reads from the table of
processes and from the data folder, and never from the engine's answers.

Guarantees: after `close` no process is left that descends from this one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from raysaga.actors.local_wire import socket_path
from raysaga.actors.placement import shard_scope
from raysaga.simulation.chaos.child import Child, ChildGoneError
from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.simulation.chaos.processes import (
    adopt_orphans,
    descendants,
    is_alive,
    kill_all,
    reap,
    roles,
)
from raysaga.storage.data_folder import DataFolder

T = TypeVar("T")

LOOK_EVERY_S = 0.1
WAIT_S = 90.0
"""How long a condition on the stage is waited for; the machine may be busy."""

START_S = 180.0
"""How long an engine may take to start."""

STARTS_MAX = 4
"""How often a start is tried before it counts as impossible."""

STOP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How the keeper and the callers are started.

    Attributes:
        environment: Variables that are set for them, and so for Ray and all actors.
        settings: Changes to the engine's settings, as `EngineSettings` has them.
        address: Of a Ray cluster that the engine is to join; None: a local one of its own.
        prefix: A command that runs theirs, such as `("ip", "netns", "exec", "a")`.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    address: str | None = None
    prefix: tuple[str, ...] = ()


CALM = Launch()
"""Nothing special."""


class Stage:
    """What a fault can reach.

    Attributes:
        workplace: Folder of the run: the data folder, what the callers and the participants
            noted, logs, and whatever a fault needs (`workplace / its name`).
        folder: The data folder.
        scenery: What the engine is made of: `EngineSettings`, services, number of shards; plain.
        launch: How the running engine was started.
        keeper: The process that holds the engine open; None while there is none.
        callers: The process that submits orders; None while there is none.
        log: Told what the stage itself does, for the timeline.
        ray_logs: Where every Ray of the run has kept its logs.
    """

    def __init__(
        self, workplace: Path, scenery: Mapping[str, Any], log: Callable[[str], None] = print
    ) -> None:
        self.workplace = workplace
        self.folder = workplace / "data"
        self.scenery = scenery
        self.launch = CALM
        self.keeper: Child | None = None
        self.callers: Child | None = None
        self.log = log
        self.ray_logs: list[Path] = []
        self._starts = 0
        self._reaping: asyncio.Task[None] | None = None
        for name in ("calls", "callers", "trouble", "log"):
            (workplace / name).mkdir(parents=True, exist_ok=True)

    # -- what is there -----------------------------------------------------------

    def data(self) -> DataFolder:
        """Return the data folder, opened; it holds no files open."""
        return DataFolder.open(self.folder, shard_count=None, create=False)

    def roles(self) -> dict[str, int]:
        """Return process ids by role; see `processes.roles`, and `keeper` and `callers`."""
        found = roles(self.data())
        for name, child in (("keeper", self.keeper), ("callers", self.callers)):
            if child is not None and is_alive(child.pid):
                found[name] = child.pid
        return found

    async def pid(self, role: str) -> int:
        """Return the process id of a role, once there is one."""
        return await self.until(lambda: self.roles().get(role), f"{role} runs")

    def socket(self, role: str) -> Path:
        """Return where the actor in a role listens, such as `shard/0` or `participant/payment`."""
        assert self.keeper is not None
        return socket_path(f"{self.keeper.heard['engine']}/{role}")

    def epoch(self, shard: int) -> int:
        """Return the newest epoch that a shard's journal has granted for its own scope."""
        data = self.data()
        journal = data.open_journal(shard, read_only=True)
        try:
            return journal.epoch(shard_scope(data.uuid, shard))
        finally:
            journal.close()

    async def until(
        self, condition: Callable[[], T | None], what: str, timeout_s: float = WAIT_S
    ) -> T:
        """Return what `condition` gives once it is true.

        Raises:
            NeverHappenedError: If it is not in time.
        """
        end = time.monotonic() + timeout_s
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise NeverHappenedError(what, timeout_s)
            await asyncio.sleep(LOOK_EVERY_S)

    async def replaced(self, role: str, old_pid: int) -> int:
        """Return the process id that has taken the place of `old_pid` in a role."""

        def newer() -> int | None:
            pid = self.roles().get(role)
            return pid if pid != old_pid else None

        return await self.until(newer, f"{role} is replaced")

    # -- starting and ending -----------------------------------------------------

    async def start(self, launch: Launch = CALM) -> None:
        """Start the engine and the callers; returns when orders are being submitted.

        Raises:
            NeverHappenedError: If it does not start in time.
        """
        assert self.keeper is None and self.callers is None, "it has been started"
        if self._reaping is None:
            adopt_orphans()
            self._reaping = asyncio.create_task(self._reap_for_ever())
        self.launch = launch
        for left in reversed(range(STARTS_MAX)):
            try:
                await self._open()
                return
            except NeverHappenedError:
                # Ray gives up after half a minute, which a busy machine may need for longer.
                await self.kill()
                if not left:
                    raise

    async def _open(self) -> None:
        launch = self.launch
        self._starts += 1
        self.keeper = await self._child("keeper", launch)
        await self.keeper.hears("ready", START_S)
        self.ray_logs.append(Path(self.keeper.heard["logs"]))
        self.callers = await self._child("callers", launch)
        await self.callers.hears("ready", START_S)

    async def restart_callers(self) -> None:
        """End the callers, if there are any, and start new ones."""
        if self.callers is not None:
            await self.callers.close()
        self._starts += 1
        self.callers = await self._child("callers", self.launch)
        await self.callers.hears("ready", START_S)

    def pulse(self) -> Counter[str]:
        """Return what the callers have counted, since they were started."""
        return Counter({} if self.callers is None else self.callers.heard.get("pulse", {}))

    async def _child(self, kind: str, launch: Launch) -> Child:
        command = [*launch.prefix, sys.executable, "-m", f"raysaga.simulation.chaos.{kind}"]
        told = {
            **self.scenery,
            "workplace": str(self.workplace),
            "settings": {**self.scenery["settings"], **launch.settings},
            "address": launch.address,
            "life": self._starts,
        }
        log = self.workplace / "log" / f"{kind}-{self._starts}.txt"
        return await Child.start(command, {**os.environ, **launch.environment}, told, log)

    async def stop(self) -> None:
        """Stop callers and engine in good order; what does not stop in time is killed."""
        for child in (self.callers, self.keeper):
            if child is not None:
                await child.stop(STOP_S)
        await self._clear()

    async def kill(self) -> None:
        """SIGKILL keeper, callers, Ray and all actors at once."""
        for child in (self.keeper, self.callers):
            if child is not None:
                child.expected = True
        kill_all(descendants())
        await self._clear()

    async def rejoin(self) -> None:
        """End the keeper and the callers, and start them again, on the cluster that is there."""
        for child in (self.callers, self.keeper):
            if child is not None:
                await child.stop(STOP_S)
        self.keeper = self.callers = None
        await self._open()

    async def _clear(self) -> None:
        """Leave no process, and forget the children."""
        kill_all(descendants())
        with suppress(NeverHappenedError):
            await self.until(lambda: not descendants(), "all processes are gone", STOP_S)
        for child in (self.callers, self.keeper):
            if child is not None:
                await child.close()
        self.keeper = self.callers = None

    @asynccontextmanager
    async def relaunched(self, launch: Launch) -> AsyncIterator[None]:
        """Stop the engine, start it otherwise, and at the end start it as it was before."""
        before = self.launch
        await self.stop()
        try:
            await self.start(launch)
            yield
        finally:
            await self.stop()
            await self.start(before)

    async def order(self, child: Child | None, verb: str, **facts: Any) -> Any:
        """Have the keeper or the callers do something; return what they answer.

        Raises:
            NeverHappenedError: If that process is gone, or does not answer.
        """
        if child is None:
            raise NeverHappenedError(f"{verb}: no such process", 0.0)
        try:
            return await child.ask(verb, facts, WAIT_S)
        except ChildGoneError as gone:
            raise NeverHappenedError(f"{verb}: {gone}", 0.0) from gone

    async def _reap_for_ever(self) -> None:
        while True:
            reap()
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """End everything, whatever state it is in."""
        for pid in descendants():
            # Who was stopped cannot hear.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await self.stop()
        if self._reaping is not None:
            self._reaping.cancel()
            self._reaping = None
