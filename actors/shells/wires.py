"""Carries exchanges to named Ray actors, wherever and however often they restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import structlog
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysaga.actors.local_wire import LocalDoor, LocalWire, socket_path
from raysaga.actors.settings import EngineSettings

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
        "scheduling_strategy": NodeAffinitySchedulingStrategy(this_node(), soft=False),
    }
    return ray.remote(shell).options(**options).remote(*arguments)


class ActorWire:
    """One way to one named actor; looked up again after each failure.

    Over the actor's socket where both ends are on one node, else by Ray calls.
    """

    def __init__(self, name: str, namespace: str, wire: str = "auto") -> None:
        """Make a way to the actor `name`; `wire` is the setting of that name."""
        self._name = name
        self._namespace = namespace
        self._wire = wire
        self._way: asyncio.Task[Callable[[bytes], Awaitable[bytes]]] | None = None

    async def __call__(self, batch: bytes) -> bytes:
        """Carry `batch` there and the answer back.

        Raises:
            ray.exceptions.RayError: If the actor died or cannot be reached; the batch may
                have been taken.
            ConnectionError: The same, over a socket.
            ValueError: If there is no such actor.
        """
        way = self._way
        if way is None:
            way = self._way = asyncio.get_running_loop().create_task(self._find_way())
        try:
            # Shared by the exchanges that are open at one time.
            carry = way.result() if way.done() else await asyncio.shield(way)
            return await carry(batch)
        except asyncio.CancelledError:
            raise
        except Exception:
            if self._way is way:
                self._way = None
            raise

    async def _find_way(self) -> Callable[[bytes], Awaitable[bytes]]:
        # A look-up asks another process; beside the loop, which must go on.
        actor = await asyncio.get_running_loop().run_in_executor(
            None, lambda: ray.get_actor(self._name, namespace=self._namespace)
        )

        async def call(batch: bytes) -> bytes:
            answer: bytes = await actor.exchange.remote(batch)
            return answer

        if self._wire == "ray":
            return call
        node, path = await actor.door.remote()
        if path is None or node != this_node():
            return call
        try:
            return (await LocalWire.connect(path)).exchange
        except OSError as error:
            # Another machine or container after all; Ray reaches it.
            structlog.get_logger().warning("no_local_wire", actor=self._name, error=str(error))
            return call


def this_node() -> str:
    """Return Ray's name of the node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


async def open_door(
    name: str, settings: EngineSettings, exchange: Callable[[bytes], Awaitable[bytes]]
) -> LocalDoor | None:
    """Return a door for the actor `name`; None where it is to be reached by Ray calls only."""
    if settings.wire == "ray":
        return None
    try:
        return await LocalDoor.open(socket_path(name), exchange)
    except OSError as error:
        structlog.get_logger().warning("no_local_door", actor=name, error=str(error))
        return None
