"""The Ray actor that keeps an engine's other actors alive.

It holds the data folder's lock, makes the actors, and pings them. One that died
for good is made anew; one that does not answer is killed by process id, since
Ray does not notice a process that merely stands still.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from typing import Any

import ray
import structlog
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from raysaga.actors.actor_names import participant_actor, shard_actor
from raysaga.actors.brokers.address import (
    is_broker_address,
    lacks_password,
    parse_address,
    without_password,
)
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.shells.housing import configure_process_log
from raysaga.actors.shells.ownership import kill_and_wait
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.process import end_with_ray, exit_fatally
from raysaga.actors.shells.service import ServiceShell
from raysaga.actors.shells.shard import ShardShell
from raysaga.actors.shells.wires import FOR_EVER, named_actor
from raysaga.statemachines.errors import SagaError
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.errors import DataFolderError
from raysaga.storage.participants_note import ParticipantsNote, read_note, write_note

PING_EVERY_S = 0.5
PING_TIMEOUT_S = 5.0
"""A call that takes so long is not slow: the loop of the other end stands still."""

PINGS_MISSED_MAX = 2
"""Pings without an answer after which an actor's process is killed."""

RESTART_PAUSE_S = 1.0
"""Pause after an actor that could not start was sent to try again."""

STOP_TIMEOUT_S = 10.0
"""How long an actor may take to let go before it is killed, which is as safe."""

FIRST_PINGS_MAX = 5
"""How often an actor of a new engine may die before it serves, until the engine is given up."""

LOCK_WAIT_S = 15.0
"""How long to wait for an earlier engine on the same folder to be gone."""


class SupervisorShell:
    """Makes and watches the shards and participants of one engine."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = EnginePlan.model_validate(plan)
        self._actors: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self._watching: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._lock: Any = None
        end_with_ray()
        is_back = ray.get_runtime_context().was_current_actor_reconstructed
        start = self._start_again() if is_back else self._start()
        self._ready = asyncio.get_running_loop().create_task(start)
        # Who asks whether it is ready hears the error; nobody else has to.
        self._ready.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _start(self) -> None:
        """Start an engine as a whole, or leave nothing of it behind."""
        folder, note = await self._take_folder()
        for name in self._names():
            self._actors[name] = self._make(name)
        try:
            await asyncio.gather(*(self._first_ping(name) for name in self._names()))
        except BaseException:
            for actor in self._actors.values():
                ray.kill(actor)
            self._lock.close()
            raise
        self._begin_watch()
        # Only now, for who could not be started must not be in the way of the next engine.
        known = {**note.participants, **self._plan.participants}
        known = {name: without_password(target) for name, target in known.items()}
        write_note(folder.path, ParticipantsNote(known, self._plan.services))
        self._log.info("engine_ready", pids=dict(self._pids))

    async def _start_again(self) -> None:
        """Look after an engine that was at work when the supervisor before this one died.

        Nobody may be there to hear that it fails, so it never gives up: what does not serve is
        seen to by the watch, and where not even that can begin, the next process tries.
        """
        try:
            await self._take_folder()
        except (SagaError, OSError) as error:
            await asyncio.sleep(RESTART_PAUSE_S)
            exit_fatally(error)
        for name in self._names():
            self._actors[name] = self._make(name)
        self._begin_watch()
        self._log.warning("supervisor_restarted")

    async def _take_folder(self) -> tuple[DataFolder, ParticipantsNote]:
        """Lock the folder for this engine, and settle the plan by what it notes; return both."""
        plan = self._plan
        folder = DataFolder.open(plan.folder, shard_count=plan.shard_count, create=True)
        configure_process_log(folder.log_path / "supervisor.jsonl", plan.settings, folder.uuid)
        self._log = structlog.get_logger()
        self._lock = await self._locked(folder)
        note = read_note(folder.path)
        self._plan = plan = plan.settled(note, _is_found)
        self._tell_changes(note)
        for target in plan.participants.values():
            if is_broker_address(target):
                # What is wrong with an address is better told now than by every host.
                open_broker(parse_address(target))
        return folder, note

    def _begin_watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._watching = [loop.create_task(self._watch(name)) for name in self._names()]

    def _tell_changes(self, note: ParticipantsNote) -> None:
        """Log what is served otherwise than the folder notes, or not at all."""
        for name, noted in note.participants.items():
            function = self._plan.participants.get(name)
            if function is None:
                self._log.warning("participant_not_found", participant=name, function=noted)
            elif without_password(function) != noted:
                self._log.warning(
                    "participant_changed",
                    participant=name,
                    function=without_password(function),
                    noted=noted,
                )

    async def _locked(self, folder: DataFolder) -> Any:
        loop = asyncio.get_running_loop()
        until = loop.time() + LOCK_WAIT_S
        while True:
            try:
                return folder.lock_for_engine()
            except DataFolderError:
                if loop.time() > until:
                    raise
                await asyncio.sleep(0.1)

    def _names(self) -> list[str]:
        plan = self._plan
        shards = [shard_actor(plan.engine, i) for i in range(plan.shard_count)]
        served = [name for name, of in plan.participants.items() if not is_broker_address(of)]
        return [participant_actor(plan.engine, name) for name in served] + shards

    def _make(self, name: str) -> Any:
        plan = self._plan
        kind, _, which = name.removeprefix(f"{plan.engine}/").partition("/")
        shell: Any = ShardShell if kind == "shard" else ServiceShell
        return named_actor(
            shell,
            name,
            plan.namespace,
            restarts=FOR_EVER,
            arguments=(plan.model_dump(mode="json"), int(which) if kind == "shard" else which),
        )

    async def _first_ping(self, name: str) -> None:
        """Return once an actor serves.

        Raises:
            RayTaskError: With its reason, if it cannot.
            RayError: If its process died again and again.
        """
        for pings_left in reversed(range(FIRST_PINGS_MAX)):
            try:
                pong = await self._actors[name].ping.remote()
            except RayTaskError:
                raise
            except RayError:
                if not pings_left:
                    raise
                await asyncio.sleep(RESTART_PAUSE_S)
                self._actors[name] = self._make(name)
            else:
                self._pids[name] = pong["pid"]
                return

    async def _watch(self, name: str) -> None:
        # The flag, for `wait_for` of Python 3.11 loses a cancel that meets an answer
        # (python/cpython#86296).
        while not self._is_stopping:
            await asyncio.sleep(PING_EVERY_S)
            try:
                await self._look_after(name)
            except (RayError, SagaError, ValueError, TimeoutError) as error:
                self._log.warning("look_failed", actor=name, kind=type(error).__name__)

    async def _look_after(self, name: str) -> None:
        """Ping one actor; replace it if it is gone, kill its process if it stands still."""
        try:
            pong = await asyncio.wait_for(_result(self._actors[name].ping.remote()), PING_TIMEOUT_S)
        except ActorDiedError:
            self._log.warning("actor_gone", actor=name)
            self._actors[name] = self._make(name)
            return
        except RayTaskError as error:
            # It lives and could not start, or cannot serve: a new process may.
            self._log.warning("actor_unable", actor=name, error=str(error.cause))
            ray.kill(self._actors[name], no_restart=False)
            await asyncio.sleep(RESTART_PAUSE_S)
            return
        except TimeoutError:
            self._missed[name] = self._missed.get(name, 0) + 1
            if self._missed[name] >= PINGS_MISSED_MAX and name in self._pids:
                self._log.warning("actor_hangs", actor=name, pid=self._pids[name])
                self._missed[name] = 0
                await kill_and_wait(self._pids.pop(name))
            return
        self._missed[name] = 0
        if self._pids.get(name) != pong["pid"]:
            self._log.warning("actor_restarted", actor=name, pid=pong["pid"])
            self._pids[name] = pong["pid"]

    async def ready(self) -> dict[str, int]:
        """Return the process ids by actor's name, once all of them serve.

        Raises:
            DataFolderError: If the folder cannot be used, or another engine has it.
        """
        await asyncio.shield(self._ready)
        return dict(self._pids)

    async def participants(self) -> dict[str, str]:
        """Return what makes, or reaches, each participant of this engine, by name."""
        await asyncio.shield(self._ready)
        served = self._plan.participants
        return {name: without_password(target) for name, target in served.items()}

    async def stop(self) -> None:
        """Stop the actors: shards first, so that no call is lost on the way."""
        await asyncio.shield(self._ready)
        for task in self._watching:
            task.cancel()
        # One that is killing a process finishes that; none may replace what is stopped here.
        self._is_stopping = True
        await asyncio.gather(*self._watching, return_exceptions=True)
        for name in reversed(self._names()):
            try:
                await asyncio.wait_for(_result(self._actors[name].stop.remote()), STOP_TIMEOUT_S)
            except (RayError, TimeoutError) as error:
                self._log.warning("stop_failed", actor=name, kind=type(error).__name__)
            ray.kill(self._actors[name])
        self._lock.close()


def _is_found(function: str) -> bool:
    """Return whether a noted `module:function` can be imported here, or an address be used."""
    if is_broker_address(function):
        return not lacks_password(function)
    try:
        return importlib.util.find_spec(function.partition(":")[0]) is not None
    except (ImportError, ValueError):
        return False


async def _result(ref: Any) -> Any:
    return await ref
