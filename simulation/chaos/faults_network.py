"""Faults of the network between the head and the engine's node: cut both ways, or one way.

What is on the node reaches itself without the head. So orders go on through a cut; a short one
leaves no trace. After a longer one Ray has given the node up, and ends it when the wire is back:
there is one engine at any time, and its successor has the next epoch.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError
from raysaga.simulation.chaos.faults_nodes import OnTwoNodes, accepted, epochs, taken_over
from raysaga.simulation.chaos.processes import is_alive
from raysaga.simulation.chaos.stage import Stage
from raysaga.simulation.chaos.two_nodes import HEAD, NODE, TwoNodes

SHORT_S: Final = (1.0, 3.0)
"""Bounds of a cut that Ray is not to notice."""

LONG_S: Final = (15.0, 45.0)
"""Bounds of one after which it has given the node up."""

HEARD_S_MAX: Final = 20.0


class _Cut(OnTwoNodes):
    """Packets vanish, in so many directions."""

    way_count: ClassVar[int]

    def _seconds(self, blow: Blow) -> float:
        is_short = blow.chance.random() < 0.5
        return blow.chance.uniform(*(SHORT_S if is_short else LONG_S))

    async def play(self, stage: Stage, blow: Blow, nodes: TwoNodes) -> None:
        """Bitten when the head cannot reach the node; a long cut also when it is given up."""
        seconds = self._seconds(blow)
        ways = blow.chance.sample((HEAD, NODE), self.way_count)
        before, raylet, lost = epochs(stage), nodes.raylet(NODE), nodes.lost_count()
        count = stage.pulse()["accepted"]
        for way in ways:
            nodes.cut(way)
        blow.inflicted(f"no packet reaches the {' nor the '.join(ways)} for {seconds:.0f} s")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(seconds))
                if await nodes.is_heard():
                    raise NeverHappenedError("the node is out of reach", 0.0)
                blow.bit("the head cannot connect to the node")
                if seconds >= LONG_S[0]:
                    await stage.until(lambda: nodes.lost_count() > lost, "the node is given up")
                    blow.bit("the head has given the node up")
        finally:
            nodes.mend()
        blow.bit(f"meanwhile {stage.pulse()['accepted'] - count} orders were accepted")
        if seconds < LONG_S[0]:
            await self._goes_on(stage, blow, nodes, raylet, before)
            return
        await stage.until(lambda: not is_alive(raylet), "the node that was given up ends")
        blow.bit(f"back in touch, raylet {raylet} has ended by itself")
        await nodes.bring_back()
        await taken_over(stage, blow, before)

    async def _goes_on(
        self, stage: Stage, blow: Blow, nodes: TwoNodes, raylet: int, before: list[int]
    ) -> None:
        """See that a short cut is over, and was no reason for anybody to end."""
        if not await nodes.is_heard(HEARD_S_MAX):
            raise NeverHappenedError("the node is in reach again", HEARD_S_MAX)
        await accepted(stage, 10)
        if is_alive(raylet) and epochs(stage) == before:
            blow.bit(f"the same processes went on, epochs {before}")
        else:
            await nodes.bring_back()
            await taken_over(stage, blow, before)


class Partition(_Cut):
    """Cut both ways."""

    name: ClassVar[str] = "partition"
    numbers: ClassVar[tuple[int, ...]] = (11,)
    what: ClassVar[str] = "cuts the head off from the engine's node"
    way_count: ClassVar[int] = 2


class CutOneWay(_Cut):
    """Cut in one direction, towards the head or towards the node."""

    name: ClassVar[str] = "cut-one-way"
    numbers: ClassVar[tuple[int, ...]] = (12,)
    what: ClassVar[str] = "lets packets through in one direction only"
    way_count: ClassVar[int] = 1


FAULTS: Final[tuple[Fault, ...]] = (Partition(), CutOneWay())
