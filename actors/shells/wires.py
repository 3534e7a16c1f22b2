"""Carries exchanges to named Ray actors, wherever and however often they restart."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

FOR_EVER = -1
"""Restarts of an actor that Ray brings back however often it dies."""


def named_actor(shell: Any, name: str, namespace: str, *, restarts: int, arguments: Any) -> Any:
    """Return the actor `name`, made of `shell` with `arguments` if there is none yet.

    It outlives its maker, on the maker's node, which has the data folder; it never runs on
    another. Ray never repeats a call to it by itself: repeats are ours, with keys.

    Args:
        shell: Its class.
        name: What all processes on the cluster find it by.
        namespace: Where the name is looked up.
        restarts: How often Ray restarts it when it dies; `FOR_EVER` or 0.
        arguments: Of the constructor.
    """
    options = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": restarts,
        "max_task_retries": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        ),
    }
    return ray.remote(shell).options(**options).remote(*arguments)


class ActorWire:
    """One way to one named actor; looked up again after each failure."""

    def __init__(self, name: str, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._handle: Any = None

    async def __call__(self, batch: bytes) -> bytes:
        """Carry `batch` there and the answer back.

        Raises:
            ray.exceptions.RayError: If the actor died or cannot be reached; the batch may
                have been taken.
            ValueError: If there is no such actor.
        """
        try:
            handle = await self.handle()
            answer: bytes = await handle.exchange.remote(batch)
        except asyncio.CancelledError:
            raise
        except Exception:
            self._handle = None
            raise
        return answer

    async def handle(self) -> Any:
        """Return the actor's handle.

        Raises:
            ValueError: If there is no such actor.
        """
        if self._handle is None:
            # A look-up asks another process; beside the loop, which must go on.
            self._handle = await asyncio.get_running_loop().run_in_executor(
                None, lambda: ray.get_actor(self._name, namespace=self._namespace)
            )
        return self._handle


def participant_actor(engine: str, participant: str) -> str:
    """Return the name of the actor that a participant is."""
    return f"{engine}/participant/{participant}"


def shard_actor(engine: str, shard: int) -> str:
    """Return the name of the actor that houses a shard."""
    return f"{engine}/shard/{shard}"


def saga_actor(engine: str, saga_id: str) -> str:
    """Return the name of the actor of a dedicated saga."""
    return f"{engine}/saga/{saga_id}"


def supervisor_actor(engine: str) -> str:
    """Return the name of the actor that watches the others."""
    return f"{engine}/supervisor"
