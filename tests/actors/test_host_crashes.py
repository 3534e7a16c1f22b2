"""The order saga with a crash at every moment: before and after each flush, around each call.

Each story is told once without a crash, to learn its moments; then once for each
moment, with the host dying there. Whatever the moment, the participants' ledgers
must show an order that is done or undone, exactly once, and the caller is told
the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.statemachines.calls import ACTION
from raysaga.statemachines.definition import Durability, SagaDefinition
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import TERMINAL

from .recipes import diamond_saga, pivot_saga
from .toy_services import Fate, fates
from .virtual_time import virtual_loop
from .world import World

STEPS = [step.name for step in order_saga.steps]


def order_with(durability: Durability) -> SagaDefinition:
    """Return the order saga with another durability."""
    return SagaDefinition(
        name="order",
        steps=order_saga.steps,
        deadline_ms=order_saga.deadline_ms,
        durability=durability,
    )


def refused(step: str) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.services.script.refuses[step] = "OUT_OF_IT"

    return arrange


def never_arrives(step: str) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.services.fate = fates({(step, ACTION): Fate.LOST})

    return arrange


def never_answered(step: str) -> Callable[[World], None]:
    def arrange(world: World) -> None:
        world.services.fate = fates({(step, ACTION): Fate.UNANSWERED})

    return arrange


STORIES: dict[str, Callable[[World], None]] = {
    "done": lambda _world: None,
    **{f"{step} refused": refused(step) for step in STEPS},
    **{f"{step} never arrives": never_arrives(step) for step in STEPS[1:]},
    **{f"{step} never answered": never_answered(step) for step in STEPS[::2]},
}


async def tell(
    folder: Path,
    definition: SagaDefinition,
    arrange: Callable[[World], None],
    crashes: tuple[int, ...] = (),
) -> tuple[list[str], str]:
    """Run one order from its submission to its end; return the moments, and the end."""
    world = await World(folder, exchange_hold_ms=500, exchange_grace_ms=500).start(definition)
    arrange(world)
    world.moments.clear()
    plan = list(crashes)
    request = world.send_order(definition=definition)
    saga_id = request.body[0]

    def is_over() -> Any:
        if world.engine.life.is_over and plan:
            # Counted from the death before.
            world.moments.clear()
        if world.crash_at is None and plan:
            world.crash_at = plan.pop(0)
        if world.engine.life.is_over or request.ended is None:
            return False
        head = world.journal.head(saga_id)
        return head is not None and head.phase in TERMINAL

    await world.restarted_until(is_over)
    moments = list(world.moments)
    world.crash_at = None
    end = world.phase(saga_id).value
    await world.finish()
    return moments, end


def run(folder: Path, *args: Any) -> tuple[list[str], str]:
    with virtual_loop() as loop:
        result: tuple[list[str], str] = loop.run(tell(folder, *args))
    return result


# A step that never answers makes a long story, whose crashes differ little by durability.
CASES = [
    (story, durability)
    for story in STORIES
    for durability in Durability
    if "never" not in story or durability is Durability.PIPELINED or story.startswith("process")
]


@pytest.mark.parametrize(("story", "durability"), CASES)
def test_a_crash_at_any_moment_leaves_the_order_done_or_undone(
    world_folder: Path, story: str, durability: Durability
) -> None:
    definition = order_with(durability)
    moments, end = run(world_folder / "whole", definition, STORIES[story])
    assert end == ("completed" if story == "done" else "compensated")
    assert len(moments) >= 10
    ends = set()
    for k, moment in enumerate(moments):
        try:
            _, end = run(world_folder / str(k), definition, STORIES[story], (k,))
        except BaseException as error:
            error.add_note(f"crash at {k}: {moment}, of {moments}")
            raise
        ends.add(end)
    # A saga that was under way when its host died goes on the way it would have gone.
    assert ends == {"completed" if story == "done" else "compensated"}


OTHERS: dict[str, tuple[SagaDefinition, Callable[[World], None], str]] = {
    "branches done": (diamond_saga(), STORIES["done"], "completed"),
    "branches undone": (diamond_saga(), refused("last"), "compensated"),
    "a branch refused": (diamond_saga(), refused("left"), "compensated"),
    "pivot done": (pivot_saga(), STORIES["done"], "completed"),
    "pivot refused": (pivot_saga(), refused("charge"), "compensated"),
    "best effort left out": (pivot_saga(best_effort=True), refused("tell"), "completed"),
}


@pytest.mark.parametrize("story", OTHERS)
def test_so_it_is_with_branches_and_beyond_a_pivot(world_folder: Path, story: str) -> None:
    definition, arrange, expected = OTHERS[story]
    moments, end = run(world_folder / "whole", definition, arrange)
    assert end == expected
    for k, moment in enumerate(moments):
        try:
            _, end = run(world_folder / str(k), definition, arrange, (k,))
        except BaseException as error:
            error.add_note(f"crash at {k}: {moment}, of {moments}")
            raise
        assert end == expected, f"crash at {k}: {moment}"


@pytest.mark.parametrize("seed", range(40))
def test_crashes_upon_crashes_leave_the_order_done_or_undone(world_folder: Path, seed: int) -> None:
    """The second and third crash come while the one before is being recovered from."""
    chance = random.Random(seed)
    story = chance.choice(list(STORIES))
    crashes = tuple(chance.randrange(25) for _ in range(3))
    _, end = run(world_folder, order_with(chance.choice(list(Durability))), STORIES[story], crashes)
    assert end == ("completed" if story == "done" else "compensated"), (story, crashes)
