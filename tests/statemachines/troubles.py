"""Troubles that named examples have in common."""

from __future__ import annotations

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.inputs import TimeReached
from raysaga.statemachines.tables import Phase

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


def at_the_backup(world: World) -> World:
    """Take the backup just after acceptance, which every one of these stories starts from."""
    world.submit()
    assert len(world.marks) == 1
    return world


def restore(world: World, *, to: int = 0) -> None:
    """Lose the host, and put the journal back to the backup."""
    world.crash()
    world.restore(world.marks[to])


def answer_with(world: World, **statuses: LedgerStatus) -> None:
    """Let participants hold what no honest history leads to, and answer."""
    for name, status in statuses.items():
        row = world.ledgers.rows[world.definition.index[name]]
        row.status, row.effect = status, status is LedgerStatus.APPLIED
    world.answer_questions(only_final=False)


def parked_by_poison(world: World) -> int:
    """Park a saga that may still turn back; return the number of the backup taken then."""
    world.submit()
    world.recoveries_max = 0
    world.crash()
    world.restart()
    world.recoveries_max = 100
    assert world.saga.phase is Phase.PARKED_RUNNING
    return len(world.marks) - 1
