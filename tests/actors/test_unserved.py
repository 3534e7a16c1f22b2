"""An engine that was started without a participant: its sagas wait, and never turn back for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raysaga.actors.recovery import read_events
from raysaga.statemachines.calls import Code
from raysaga.statemachines.events import AttemptFailed
from raysaga.statemachines.tables import Phase

from .recipes import chain_saga
from .virtual_time import in_virtual_time, until
from .world import World

ENGINES_WITHOUT = 8
"""More than the restarts without progress after which a saga would be poison."""

CHAIN = chain_saga("chain", 3)
IMPATIENT = chain_saga("impatient", 3, deadline_ms=60_000)


def failures(world: World, saga_id: str) -> list[str]:
    """Return the codes of the attempts that failed, as the disk tells them."""
    events = read_events(world.journal, world.head(saga_id))
    return [event.code for event in events if isinstance(event, AttemptFailed)]


@in_virtual_time
async def test_a_saga_waits_for_a_participant_that_is_not_served_and_goes_on_when_it_is(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start(CHAIN)
    world.unserved.add("p1")
    await world.restart()
    await world.submit("1", CHAIN)
    await until(lambda: failures(world, "chain:1"))
    await asyncio.sleep(2 * 3_600)
    assert world.phase("chain:1") is Phase.RUNNING
    assert set(failures(world, "chain:1")) == {Code.NO_SUCH_PARTICIPANT}
    assert len(failures(world, "chain:1")) > CHAIN.steps[1].action_retry.attempts_max
    for number in range(ENGINES_WITHOUT):
        known = len(failures(world, "chain:1"))
        await world.restart()
        await until(lambda known=known: len(failures(world, "chain:1")) > known, within_s=60)
        assert world.phase("chain:1") is Phase.RUNNING, number
    world.unserved.clear()
    await world.restart()
    await world.rests("chain:1", within_s=60)
    assert world.phase("chain:1") is Phase.COMPLETED
    await world.finish()


@in_virtual_time
async def test_an_undo_waits_as_long_for_a_participant_that_is_not_served(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start(CHAIN)
    world.services.script.refuses["s2"] = "OUT_OF_IT"
    await world.submit("1", CHAIN)
    await until(lambda: world.phase("chain:1") is Phase.COMPENSATING)
    world.unserved.add("p1")
    await world.restart()
    await until(lambda: Code.NO_SUCH_PARTICIPANT in failures(world, "chain:1"))
    await asyncio.sleep(2 * 3_600)
    assert world.phase("chain:1") is Phase.COMPENSATING
    world.unserved.clear()
    await world.restart()
    await world.rests("chain:1", within_s=60)
    assert world.head("chain:1").reason == "OUT_OF_IT"
    assert world.phase("chain:1") is Phase.COMPENSATED
    await world.finish()


@in_virtual_time
async def test_a_deadline_turns_a_saga_back_whether_its_participants_are_served_or_not(
    world_folder: Path,
) -> None:
    """The caller has said when an order is of no use any more; that is no missing name."""
    world = await World(world_folder).start(IMPATIENT)
    world.unserved.add("p2")
    await world.restart()
    await world.submit("1", IMPATIENT)
    await until(lambda: world.phase("impatient:1") is Phase.COMPENSATING, within_s=120)
    await until(lambda: failures(world, "impatient:1")[-1] == Code.NO_SUCH_PARTICIPANT)
    world.unserved.clear()
    await world.restart()
    await world.rests("impatient:1", within_s=60)
    assert world.head("impatient:1").reason == "DEADLINE_EXCEEDED"
    assert world.phase("impatient:1") is Phase.COMPENSATED
    await world.finish()
