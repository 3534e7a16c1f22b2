"""What holds for a host before it has any saga."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StorageFailedError

from .toy_services import Fate
from .virtual_time import in_virtual_time, until
from .world import World

WITHOUT_ASSERTIONS = """
from raysaga.actors.host import SagaHost
try:
    SagaHost(journal=None, scope='s', owner='o', connect=None, clock=None, settings=None,
             chance=None, run_blocking=None, fatal=None)
except RuntimeError as error:
    print(error)
"""


def test_a_host_refuses_to_start_without_its_assertions() -> None:
    """They guard what is written: under `python -O` nothing would stop a bug of ours."""
    ran = subprocess.run(
        [sys.executable, "-O", "-c", WITHOUT_ASSERTIONS], capture_output=True, text=True, check=True
    )
    assert "does not run under python -O" in ran.stdout


@in_virtual_time
async def test_each_start_is_a_new_epoch_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    epochs = [world.engine.host.epoch]
    for _ in range(3):
        await world.restart()
        epochs.append(world.engine.host.epoch)
        assert world.journal.epoch(world.engine.host.scope) == world.engine.host.epoch
    assert epochs == [1, 2, 3, 4]
    await world.finish()


@in_virtual_time
async def test_a_commit_whose_outcome_is_unknown_stops_the_host_and_answers_nobody(
    world_folder: Path,
) -> None:
    """It may be on disk or not: the next owner finds out, and the caller asks again."""
    world = await World(world_folder).start()
    world.may_stop = True
    world.engine.disk.faults = [StorageFailedError("journal", "EIO")]
    request = world.send_order()
    await until(lambda: world.engine.fatal)
    assert request.told == []
    assert world.services.calls == []
    await world.restart()
    assert (await world.outcome(request))["phase"] == "completed"
    await world.finish()


@in_virtual_time
async def test_a_commit_that_was_made_and_not_confirmed_is_found_by_the_next_owner(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    world.may_stop = True
    commit = world.engine.disk.journal.commit

    def unconfirmed(*args: object, **kwargs: object) -> None:
        commit(*args, **kwargs)  # type: ignore[arg-type]
        raise StorageFailedError("journal", "it was written, and nobody knows")

    world.engine.disk.commit = unconfirmed  # type: ignore[method-assign, assignment]
    world.services.fate = lambda _call: Fate.ARRIVES
    request = world.send_order()
    await until(lambda: world.engine.fatal)
    assert request.told == []
    await world.restart()
    assert (await world.outcome(request))["phase"] == "completed"
    assert request.ok in ("accepted", "already")
    assert world.phase("order:1") is Phase.COMPLETED
    await world.finish()
