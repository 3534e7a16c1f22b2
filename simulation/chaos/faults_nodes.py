"""Faults of whole nodes: killed, frozen, without their raylet, without their head.

Each plays on a cluster of two nodes. The engine lives on the node that has its folder, and on no
other: when that node is lost, its sagas wait for it. Who watches over machines (here: the fault)
starts the node and an engine again; nothing is to be repaired in the folder.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import ClassVar, Final

from raysaga.simulation.chaos.fault import Blow, Fault
from raysaga.simulation.chaos.machine import lacks_namespaces
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.two_nodes import HEAD, NODE, TwoNodes, on_two_nodes

ORDERS_MIN: Final = 10
"""Orders that are accepted before a fault strikes, so that there is something to lose."""


class OnTwoNodes(Fault):
    """A fault that plays on a cluster of two nodes."""

    seconds: ClassVar[float] = 60.0
    strike_s_max: ClassVar[float] = 420.0

    def missing(self) -> str:
        """Return what is missing to make networks."""
        return lacks_namespaces()

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Make the cluster, and break something of it."""
        async with on_two_nodes(stage) as nodes:
            await accepted(stage, ORDERS_MIN)
            await self.play(stage, blow, nodes)
            blow.healed("two nodes, and orders are accepted")

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Break something of a cluster that orders run on, and see them run on it again."""
        raise NotImplementedError


class KillRaylet(OnTwoNodes):
    """SIGKILL of the raylet of the engine's node."""

    name: ClassVar[str] = "kill-raylet"
    numbers: ClassVar[tuple[int, ...]] = (5,)
    what: ClassVar[str] = "kills the raylet of the engine's node"

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Bitten when the engine's processes have ended without anybody killing them."""
        before, actors = epochs(stage), _actors(stage)
        pid = nodes.raylet(NODE)
        os.kill(pid, signal.SIGKILL)
        blow.inflicted(f"raylet, process {pid}")
        await stage.until(lambda: not any(map(is_alive, actors)), "its actors end by themselves")
        blow.bit(f"{len(actors)} processes of the engine have ended by themselves")
        await nodes.bring_back()
        await taken_over(stage, blow, before)


class KillNode(OnTwoNodes):
    """SIGKILL of everything on the engine's node, its callers included."""

    name: ClassVar[str] = "kill-node"
    numbers: ClassVar[tuple[int, ...]] = (7,)
    what: ClassVar[str] = "kills everything on the engine's node at once"

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Bitten when the head has given the node up."""
        before, lost = epochs(stage), nodes.lost_count()
        count = len(nodes.pids(NODE))
        blow.inflicted(f"the node, {count} processes")
        await nodes.end(NODE)
        await stage.until(lambda: nodes.lost_count() > lost, "the head gives the node up")
        blow.bit("the head has given the node up")
        await nodes.bring_back()
        await taken_over(stage, blow, before)


class FreezeNode(OnTwoNodes):
    """SIGSTOP of everything on the engine's node, or of its raylet alone; woken too late."""

    name: ClassVar[str] = "freeze-node"
    numbers: ClassVar[tuple[int, ...]] = (6,)
    what: ClassVar[str] = "freezes the engine's node, or its raylet, until it is given up"

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Bitten when the head gives the node up; its raylet then ends when it wakes."""
        before, lost = epochs(stage), nodes.lost_count()
        raylet = nodes.raylet(NODE)
        whole = blow.chance.random() < 0.5
        frozen = nodes.pids(NODE) if whole else [raylet]
        count = stage.pulse()["accepted"]
        _signal(frozen, signal.SIGSTOP)
        blow.inflicted("the node" if whole else f"raylet, process {raylet}")
        try:
            await stage.until(lambda: nodes.lost_count() > lost, "the head gives the node up")
            blow.bit("the head has given the node up while it stood still")
            if not whole:
                more = stage.pulse()["accepted"] - count
                blow.bit(f"meanwhile {more} orders were accepted without a raylet")
        finally:
            _signal(frozen, signal.SIGCONT)
        await stage.until(lambda: not is_alive(raylet), "the raylet ends when it wakes")
        blow.bit(f"awake, raylet {raylet} has ended by itself")
        await nodes.bring_back()
        await taken_over(stage, blow, before)


class KillHead(OnTwoNodes):
    """SIGKILL of the head: the node loses the cluster's memory, and Ray gives it up."""

    name: ClassVar[str] = "kill-head"
    numbers: ClassVar[tuple[int, ...]] = (8,)
    what: ClassVar[str] = "kills the head with the cluster's memory"

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Bitten when the node's raylet has ended because it has no head."""
        before, raylet = epochs(stage), nodes.raylet(NODE)
        await nodes.end(HEAD)
        count = stage.pulse()["accepted"]
        blow.inflicted("the head")
        await stage.until(lambda: not is_alive(raylet), "the raylet ends without a head")
        more = stage.pulse()["accepted"] - count
        blow.bit(f"without a head {more} orders were accepted, until raylet {raylet} ended")
        await nodes.end(NODE)
        await nodes.start(HEAD)
        await nodes.bring_back()
        await taken_over(stage, blow, before)


FAULTS: Final[tuple[Fault, ...]] = (KillRaylet(), KillNode(), FreezeNode(), KillHead())


async def accepted(stage: Stage, more: int) -> None:
    """Wait until the callers were told so much more often that an order is accepted."""
    enough = stage.pulse()["accepted"] + more
    await stage.until(lambda: stage.pulse()["accepted"] >= enough, f"{more} orders are accepted")


def epochs(stage: Stage) -> list[int]:
    """Return the newest epoch of each shard."""
    return [stage.epoch(shard) for shard in range(stage.data().shard_count)]


async def taken_over(stage: Stage, blow: Blow, before: list[int]) -> None:
    """Note that every shard has a newer owner; one that has not is a broken promise."""
    await accepted(stage, ORDERS_MIN)
    now = epochs(stage)
    blow.bit(f"epochs {now} were granted after {before}")
    if not all(newer > older for newer, older in zip(now, before, strict=True)):
        blow.broke(f"epochs are {now} after a takeover from {before}")


def _actors(stage: Stage) -> list[int]:
    kinds = ("shard/", "participant/", "supervisor")
    return [pid for role, pid in stage.roles().items() if role.startswith(kinds)]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
