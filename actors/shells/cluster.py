"""Joins or starts a Ray cluster, and the engine of one data folder on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from raysaga.actors.actor_names import (
    engine_name,
    participant_actor,
    shard_actor,
    supervisor_actor,
)
from raysaga.actors.engine_note import remove_note, served_at, write_note
from raysaga.actors.errors import EngineUnavailableError
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.plan import EnginePlan
from raysaga.actors.shells.supervisor import SupervisorShell
from raysaga.actors.shells.wires import (
    FOR_EVER,
    ActorWire,
    named_actor,
)
from raysaga.storage.data_folder import DataFolder

NAMESPACE = "raysaga"

RAY_ENVIRONMENT = {
    # Five to fifteen percent of the throughput on two cores (measured).
    "RAY_enable_open_telemetry": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    # A call in flight when its actor is killed fails after 60 ms and not after 1.5 s.
    "RAY_timeout_ms_task_wait_for_death_info": "50",
    "RAY_core_worker_internal_heartbeat_ms": "50",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # With Ray's 15 an engine waits for whatever else the machine does, its own caller
    # included; beside other programs that takes a quarter of its throughput (measured).
    "RAY_worker_niceness": "0",
}
"""Set for a local Ray of our own, unless the caller has set them."""

STOP_TIMEOUT_S = 60.0
"""How long an engine may take to stop; each of its actors has a sixth of that."""

OBJECT_STORE_BYTES = 100 << 20
"""Our messages are far below the size from which Ray uses its object store."""


class Engine:
    """A running engine, as far as a caller's process is concerned."""

    def __init__(self, plan: EnginePlan, supervisor: Any, *, owns_ray: bool) -> None:
        self.plan = plan
        self._supervisor = supervisor
        self._owns_ray = owns_ray

    def wire(self, shard: int) -> ActorWire:
        """Return the way to a shard."""
        plan = self.plan
        return ActorWire(shard_actor(plan.engine, shard), plan.namespace, plan.settings.wire)

    async def pids(self) -> dict[str, int]:
        """Return the process ids of the engine's actors by name."""
        pids: dict[str, int] = await self._supervisor.ready.remote()
        return pids

    async def participants(self) -> dict[str, str]:
        """Return what makes, or reaches, each participant that is served, by name.

        Raises:
            EngineUnavailableError: If the supervisor does not answer.
        """
        try:
            served: dict[str, str] = await self._supervisor.participants.remote()
        except ray.exceptions.RayError as error:
            raise EngineUnavailableError(type(error).__name__) from error
        return served

    async def participant_stats(self) -> dict[str, dict[str, Any]]:
        """Return the counts of each participant that is an actor and answers, by its name."""
        found: dict[str, dict[str, Any]] = {}
        prefix = participant_actor(self.plan.engine, "")
        for name in await self.pids():
            if name.startswith(prefix):
                # One that has just died is made anew, and answers the next time.
                with contextlib.suppress(ray.exceptions.RayError, ValueError):
                    actor = ray.get_actor(name, namespace=self.plan.namespace)
                    found[name.removeprefix(prefix)] = await actor.stats.remote()
        return found

    async def close(self) -> None:
        """Stop the engine and the Ray that was started for it; leave one that was joined."""
        if self._owns_ray:
            await self.stop()
            remove_note(Path(self.plan.folder))
            ray.shutdown()

    async def stop(self) -> None:
        """Flush what is decided and end the engine's actors, for every caller."""
        supervisor = self._supervisor
        if supervisor is None:
            name = supervisor_actor(self.plan.engine)
            supervisor = ray.get_actor(name, namespace=self.plan.namespace)
        # What does not stop in time is killed, which loses nothing that was told.
        with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
            await asyncio.wait_for(_result(supervisor.stop.remote()), STOP_TIMEOUT_S)
        ray.kill(supervisor)


async def open_engine(
    *,
    folder: Path,
    address: str | None,
    shard_count: int | None,
    settings: EngineSettings,
    participants: Mapping[str, str],
    services: Mapping[str, Any],
    usual_participants: Mapping[str, str],
    usual_services: Mapping[str, Any],
) -> Engine:
    """Return the engine of `folder`, started if it does not run.

    Args:
        folder: The data folder; made if missing.
        address: Of a Ray cluster to join; None for the local one that serves the folder,
            the one that `RAY_ADDRESS` names, or a new local one.
        shard_count: Number of shards of a new folder (1 if None); must agree with an old one.
        settings: Bounds and defaults.
        participants: See `EnginePlan`.
        services: See `EnginePlan`.
        usual_participants: See `EnginePlan`.
        usual_services: See `EnginePlan`.

    Raises:
        DataFolderError: If the folder cannot be used.
        EngineUnavailableError: If Ray or the engine does not start.
    """
    opened = DataFolder.open(folder, shard_count=shard_count, create=True)
    owns_ray = _connect_ray(opened.path, address)
    plan = EnginePlan(
        engine=engine_name(opened.uuid),
        namespace=NAMESPACE,
        folder=str(opened.path.resolve()),
        shard_count=opened.shard_count,
        settings=settings,
        participants=dict(participants),
        services=dict(services),
        usual_participants=dict(usual_participants),
        usual_services=dict(usual_services),
    )
    supervisor = named_actor(
        SupervisorShell,
        supervisor_actor(plan.engine),
        plan.namespace,
        restarts=FOR_EVER,
        arguments=(plan.model_dump(mode="json"),),
    )
    try:
        await supervisor.ready.remote()
    except ray.exceptions.RayError as error:
        if owns_ray or isinstance(error, ray.exceptions.RayTaskError):
            # It could not start. One that only does not answer may be at work for others.
            ray.kill(supervisor)
        if owns_ray:
            ray.shutdown()
        if isinstance(error, ray.exceptions.RayTaskError):
            raise _cause(error) from error
        raise EngineUnavailableError(type(error).__name__) from error
    return Engine(plan, supervisor, owns_ray=owns_ray)


def _cause(error: BaseException) -> BaseException:
    """Return what was raised in the actor that failed, through however many actors it came."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    return error


def _connect_ray(folder: Path, address: str | None) -> bool:
    """Connect this process to Ray; return whether the Ray was started for it."""
    if ray.is_initialized():
        return False
    local = None if address else served_at(folder)
    running = address or local or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if running is not None:
        if local is not None:
            _show_token()
        ray.init(address=running, **options)
        return False
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=max(os.cpu_count() or 1, 4),
        object_store_memory=OBJECT_STORE_BYTES,
        **options,
    )
    write_note(folder, ray.get_runtime_context().gcs_address)
    return True


def _show_token() -> None:
    """Have this process show the user's token to a local Ray of ours, if there is one.

    A local Ray asks for it unless told otherwise, and `ray.init` shows it only to one that it
    has found by itself, not to one whose address it is given (Ray 2.60). What it calls then is
    not public; `RAY_AUTH_MODE` in the environment is heeded by it as well.
    """
    with contextlib.suppress(ImportError):
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup.maybe_enable_token_auth_if_token_available(
            warn_if_disabled=False
        )


async def _result(ref: Any) -> Any:
    return await ref
