"""What no barrier waits for: on disk in time, and no sooner than it must be."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raysaga.statemachines.calls import ACTION
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.tables import Phase

from .recipes import chain_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import World


async def held_at_s1(world: World, definition: SagaDefinition, key: str) -> str:
    """Submit a saga whose second step stays away; return its id once it has sent that."""
    count = len(world.services.held)
    await world.submit(key, definition, watch=False)
    await until(lambda: len(world.services.held) > count)
    return f"{definition.name}:{key}"


@in_virtual_time
async def test_each_saga_is_written_when_its_own_events_have_waited(world_folder: Path) -> None:
    """A saga that ends before its time costs no record of its own for what went well."""
    definition = chain_saga("chain", 3)
    world = await World(world_folder, lazy_flush_ms=200).start(definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD, Fate.HELD]})
    early = await held_at_s1(world, definition, "early")
    await asyncio.sleep(0.12)
    late = await held_at_s1(world, definition, "late")
    await until(lambda: world.head(early).seq == 1, within_s=0.1)
    assert world.head(late).seq == 0
    world.services.let_go()
    await world.rests(early, late)
    # Birth and end; and between them what had waited for too long.
    assert (world.head(early).seq, world.head(late).seq) == (2, 1)
    await world.finish()


@in_virtual_time
async def test_what_waits_is_on_disk_in_time_though_others_keep_coming(world_folder: Path) -> None:
    definition = chain_saga("chain", 3)
    world = await World(world_folder, lazy_flush_ms=100).start(definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD] * 10})
    loop = asyncio.get_running_loop()
    waiting: dict[str, float] = {}
    waited_s: list[float] = []
    for number in range(20):
        if number % 2 == 0:
            saga_id = await held_at_s1(world, definition, str(number))
            waiting[saga_id] = loop.time()
        await asyncio.sleep(0.01)
        for saga_id in [s for s in waiting if world.head(s).seq == 1]:
            waited_s.append(loop.time() - waiting.pop(saga_id))
    assert waited_s
    # It is looked at in every second pause, or so.
    assert max(waited_s) <= 0.1 + 0.02
    assert all(loop.time() - since <= 0.1 + 0.02 for since in waiting.values())
    world.services.let_go()
    await until(lambda: world.engine.host.finished_count == 10)
    await world.finish()


@in_virtual_time
async def test_a_host_that_stops_writes_all_that_it_holds(world_folder: Path) -> None:
    definition = chain_saga("chain", 3)
    world = await World(world_folder, lazy_flush_ms=3_600_000).start(definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD]})
    saga_id = await held_at_s1(world, definition, "1")
    assert world.head(saga_id).seq == 0
    await world.engine.host.stop()
    assert world.head(saga_id).seq == 1
    await world.restart()
    world.services.let_go()
    await world.rests(saga_id)
    assert world.phase(saga_id) is Phase.COMPLETED
    await world.finish()
