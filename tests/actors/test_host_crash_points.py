"""Deaths at every durable point that `test_host_crashes` does not come to.

There the shared host dies. Here it is, at every moment, the host that a dedicated saga has of
its own, and the shard's host that such a saga is born at; and in both hostings each
participant, before and after the commit that holds its effect. Whatever the moment, the
ledgers must show a saga that is done or undone, and the caller is told the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raysaga.statemachines.calls import ACTION
from raysaga.statemachines.definition import Durability, SagaDefinition
from raysaga.statemachines.tables import TERMINAL

from .dedicated import DedicatedHosts
from .recipes import chain_saga, diamond_saga, pivot_saga, with_durability
from .toy_services import Fate, Station, fates
from .virtual_time import virtual_loop
from .world import World

STEPS = ["s0", "s1", "s2"]

SETTINGS: dict[str, Any] = {"exchange_hold_ms": 500, "exchange_grace_ms": 500, "reconcile_ms": 100}

Arrange = Callable[[World], None]


def refused(world: World) -> None:
    world.services.script.refuses["s2"] = "NO"


def never_answered(world: World) -> None:
    world.services.fate = fates({("s1", ACTION): Fate.UNANSWERED})


class Story(NamedTuple):
    """What goes wrong, how the saga ends, and which steps it undoes, first to last."""

    arrange: Arrange
    end: str
    undone: list[str]


STORIES = {
    "done": Story(lambda _world: None, "completed", []),
    "the last refused": Story(refused, "compensated", ["s2", "s1", "s0"]),
    "the second never answered": Story(never_answered, "compensated", ["s1", "s0"]),
}


class DiedError(BaseException):
    """A participant's process is gone, in the middle of a line."""


class Mortal:
    """A participant's ledger whose process dies around one of its commits.

    Attributes:
        moments: What was committed, in the order in which that happened.
    """

    def __init__(self, world: World, dies_at: int | None, *, committed: bool) -> None:
        self.moments: list[str] = []
        self._dies_at = dies_at
        self._committed = committed
        self._loop: Any = asyncio.get_running_loop()
        for station in world.services.stations.values():
            self._watch(station)

    def _watch(self, station: Station) -> None:
        handle = station.ledger.handle

        def handled(calls: Any) -> Any:
            what = " ".join(f"{c.call.step}/{c.call.verb}" for c in calls)
            self.moments.append(what)
            if self._dies_at != len(self.moments) - 1:
                return handle(calls)
            if self._committed:
                handle(calls)
            station.kill()
            # Soon enough for the attempts that are left; and not by itself, for it is dead.
            self._loop.call_later(0.01, self._restart, station, context=Context())
            died = DiedError(what)
            self._loop.expected.append(died)
            raise died

        station.ledger.handle = handled  # type: ignore[method-assign]

    def _restart(self, station: Station) -> None:
        async def start() -> None:
            await station.start()
            self._watch(station)

        self._loop.create_task(start())


async def begun(folder: Path, definition: SagaDefinition, *, dedicated: bool) -> World:
    world = World(folder, **SETTINGS)
    if dedicated:
        world.launcher = DedicatedHosts(world)
        # The saga's own host has it open as well.
        world.keeps_journal = True
    return await world.start(definition)


async def ended(world: World, definition: SagaDefinition, *, dedicated: bool) -> str:
    """Submit, and return how it has ended, on disk and as the caller was told."""
    request = world.send_order(definition=definition, dedicated=dedicated)
    saga_id = request.body[0]

    def is_over() -> bool:
        if world.engine.life.is_over or request.ended is None:
            return False
        head = world.journal.head(saga_id)
        return head is not None and head.phase in TERMINAL

    await world.restarted_until(is_over)
    end = world.phase(saga_id).value
    assert request.ended is not None
    assert request.ended["phase"] == end
    await world.finish()
    return end


def in_a_world(tell: Callable[[], Any]) -> Any:
    with virtual_loop() as loop:
        return loop.run(tell())


def run_with_own_host(
    folder: Path, definition: SagaDefinition, arrange: Arrange, who: str, crash_at: int | None
) -> tuple[list[str], str]:
    """Let the saga's own host, or its shard's, die at a moment; return all moments, and the end."""

    async def tell() -> tuple[list[str], str]:
        world = await begun(folder, definition, dedicated=True)
        arrange(world)
        world.moments.clear()
        mortal = world.launcher if who == "own" else world
        mortal.crash_at = crash_at
        end = await ended(world, definition, dedicated=True)
        assert mortal.crash_at is None, "nobody died"
        return mortal.moments, end

    moments, end = in_a_world(tell)
    return list(moments), end


# A step that never answers makes a long story, whose crashes differ little by durability.
OWN_HOST_CASES = [
    (story, durability)
    for story in STORIES
    for durability in Durability
    if "never" not in story or durability is Durability.PIPELINED
]


@pytest.mark.parametrize(("story", "durability"), OWN_HOST_CASES)
def test_the_own_host_of_a_saga_may_die_at_every_moment(
    world_folder: Path, story: str, durability: Durability
) -> None:
    definition = with_durability(chain_saga("own", 3), durability)
    arrange, expected, undone = STORIES[story]
    moments, end = run_with_own_host(world_folder / "whole", definition, arrange, "own", None)
    assert end == expected
    left = [moment for moment in moments if moment.startswith("leaves")]
    assert {f"leaves {step}/action" for step in STEPS[:2]} <= set(left)
    assert [moment for moment in left if "undo" in moment] == [f"leaves {s}/undo" for s in undone]
    assert moments.count("before disk") == moments.count("after disk") >= 2
    for k, moment in enumerate(moments):
        folder = world_folder / str(k)
        try:
            _, end = run_with_own_host(folder, definition, arrange, "own", k)
        except BaseException as error:
            error.add_note(f"crash at {k}: {moment}, of {moments}")
            raise
        assert end == expected, f"crash at {k}: {moment}"


OTHERS: dict[str, tuple[SagaDefinition, str | None, str]] = {
    "branches undone": (diamond_saga(), "last", "compensated"),
    "a branch refused": (diamond_saga(), "left", "compensated"),
    "pivot done": (pivot_saga(), None, "completed"),
    "pivot refused": (pivot_saga(), "charge", "compensated"),
}
"""Recipe, the step that is refused, and the end."""


@pytest.mark.parametrize("story", OTHERS)
def test_so_it_is_with_branches_and_beyond_a_pivot(world_folder: Path, story: str) -> None:
    definition, refuses, expected = OTHERS[story]

    def arrange(world: World) -> None:
        if refuses is not None:
            world.services.script.refuses[refuses] = "NO"

    moments, end = run_with_own_host(world_folder / "whole", definition, arrange, "own", None)
    assert end == expected
    for k, moment in enumerate(moments):
        _, end = run_with_own_host(world_folder / str(k), definition, arrange, "own", k)
        assert end == expected, f"crash at {k}: {moment}, of {moments}"


@pytest.mark.parametrize("durability", Durability)
def test_the_shard_of_such_a_saga_may_die_at_every_moment(
    world_folder: Path, durability: Durability
) -> None:
    """It accepts the saga, starts its host and tells the caller: each may be cut off."""
    definition = with_durability(chain_saga("own", 3), durability)
    arrange, expected, _ = STORIES["the last refused"]
    moments, end = run_with_own_host(world_folder / "whole", definition, arrange, "shard", None)
    assert end == expected
    assert {"before disk", "after disk"} <= set(moments)
    for k, moment in enumerate(moments):
        folder = world_folder / str(k)
        try:
            _, end = run_with_own_host(folder, definition, arrange, "shard", k)
        except BaseException as error:
            error.add_note(f"crash at {k}: {moment}, of {moments}")
            raise
        assert end == expected, f"crash at {k}: {moment}"


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("dedicated", [False, True], ids=["shared", "dedicated"])
@pytest.mark.parametrize("committed", [False, True], ids=["before", "after"])
def test_a_participant_may_die_around_every_commit(
    world_folder: Path, committed: bool, dedicated: bool, durability: Durability
) -> None:
    """What it had not committed never happened; what it had, it answers again."""
    definition = with_durability(chain_saga("own", 3), durability)
    arrange, expected, _ = STORIES["the last refused"]

    def run(folder: Path, dies_at: int | None) -> tuple[list[str], str]:
        async def tell() -> tuple[list[str], str]:
            world = await begun(folder, definition, dedicated=dedicated)
            arrange(world)
            mortal = Mortal(world, dies_at, committed=committed)
            return mortal.moments, await ended(world, definition, dedicated=dedicated)

        moments, end = in_a_world(tell)
        return list(moments), end

    moments, end = run(world_folder / "whole", None)
    assert end == expected
    assert [m for m in moments if not m.endswith("/3")] == [
        *(f"{step}/0" for step in STEPS),
        *(f"{step}/1" for step in reversed(STEPS)),
    ]
    for k, moment in enumerate(moments):
        try:
            _, end = run(world_folder / str(k), k)
        except BaseException as error:
            error.add_note(f"death at {k}: {moment}, of {moments}")
            raise
        assert end == expected, f"death at {k}: {moment}"
