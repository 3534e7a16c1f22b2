"""Troubles that named examples have in common."""

from __future__ import annotations

from raysaga.statemachines.inputs import TimeReached

from .shapes import order_of
from .world import World


def fail_for_good(world: World, name: str, *, undo: bool = False) -> None:
    """Let every attempt of a call come to nothing, until its policy gives up."""
    i = world.definition.index[name]
    step = world.definition.steps[i]
    attempts = (step.compensation_retry if undo else step.action_retry).attempts_max
    for attempt in range(attempts):
        if attempt:
            world.now_ms = max(world.now_ms, world.saga.steps[i].retry_at_ms)
            world.give(TimeReached())
        world.time_out(world.call(name, undo=undo))


def stuck_on_the_way_back(**more: object) -> World:
    """Return an order whose payment could not be refunded, with inventory still reserved."""
    world = World(order_of(**more))
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    world.reply(world.call("ship"), refuse=True)
    world.reply(world.call("ship", undo=True))
    fail_for_good(world, "pay", undo=True)
    return world


def poisoned(world: World) -> World:
    """Let the host stop again and again, until the saga is taken for the cause."""
    world.recoveries_max = 0
    world.crash()
    world.restart()
    world.recoveries_max = 100
    return world
