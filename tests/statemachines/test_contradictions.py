"""What the ledgers and a restored journal cannot both have right is left to a person."""

from __future__ import annotations

import pytest

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import Durability
from raysaga.statemachines.events import (
    SagaParked,
)
from raysaga.statemachines.inputs import (
    CancelRequested,
    RetryOrdered,
)
from raysaga.statemachines.tables import Phase

from .shapes import mail_of, order_of, pivot_of
from .troubles import answer_with, at_the_backup, parked_by_poison, restore
from .world import World

CANCEL = CancelRequested("somebody", "")
RETRY = RetryOrdered("somebody", "")


@pytest.mark.parametrize("status", [LedgerStatus.APPLIED, LedgerStatus.PENDING])
@pytest.mark.parametrize("parked", [False, True])
def test_mail_that_is_out_beside_a_tombstone_parks(status: LedgerStatus, parked: bool) -> None:
    world = World(mail_of())
    if parked:
        restore(world, to=parked_by_poison(world))
    else:
        restore(at_the_backup(world))
    answer_with(world, reserve=LedgerStatus.TOMBSTONE, mail=status)
    assert world.saga.phase is Phase.PARKED_RUNNING
    assert world.saga.parked is not None
    assert (world.saga.parked.code, world.saga.parked.step) == ("RESTORED_CONTRADICTION", 2)
    assert 2 in world.saga.net_effect()
    if parked:
        assert (Phase.PARKED_RUNNING, Phase.PARKED_RUNNING) in world.rows_used


def test_mail_that_is_out_while_the_saga_was_being_undone_parks() -> None:
    world = at_the_backup(World(mail_of()))
    world.give(CANCEL)
    restore(world, to=-1)
    answer_with(world, mail=LedgerStatus.APPLIED)
    assert world.saga.phase is Phase.PARKED_BACKWARD
    restore(world, to=-1)
    answer_with(world, mail=LedgerStatus.APPLIED)
    assert (Phase.PARKED_BACKWARD, Phase.PARKED_BACKWARD) in world.rows_used


@pytest.mark.parametrize("pivot", [LedgerStatus.NOTHING, LedgerStatus.UNKNOWN])
def test_what_was_undone_beyond_go_without_a_refused_pivot_parks(pivot: LedgerStatus) -> None:
    world = World(pivot_of())
    world.submit()
    world.reply(world.call("reserve"))
    restore(world, to=-1)
    answer_with(world, reserve=LedgerStatus.UNDONE, pay=pivot)
    assert world.saga.phase is Phase.PARKED_FORWARD
    restore(world, to=-1)
    answer_with(world, reserve=LedgerStatus.UNDONE, pay=pivot)
    assert (Phase.PARKED_FORWARD, Phase.PARKED_FORWARD) in world.rows_used


def test_what_was_undone_beyond_go_parks_a_saga_without_a_pivot() -> None:
    world = World(mail_of())
    world.submit()
    world.reply(world.call("reserve"))
    world.reply(world.call("pay"))
    restore(world, to=-1)
    answer_with(world, reserve=LedgerStatus.UNDONE, pay=LedgerStatus.APPLIED)
    assert world.saga.phase is Phase.PARKED_FORWARD


@pytest.mark.parametrize("status", [LedgerStatus.NOTHING, LedgerStatus.REFUSED])
def test_a_success_of_which_the_ledger_knows_nothing_parks(status: LedgerStatus) -> None:
    world = at_the_backup(World(order_of(durability=Durability.STRICT)))
    world.reply(world.call("reserve"))
    restore(world, to=-1)
    answer_with(world, reserve=status)
    parked = next(e for e in world.journal if isinstance(e, SagaParked))
    assert (parked.code, parked.step) == ("RESTORED_CONTRADICTION", 0)
    # Nothing stands: that is the contradiction.
    assert parked.net_effect == ()


def test_a_contradiction_that_a_crash_cuts_short_is_asked_about_again() -> None:
    world = at_the_backup(World(mail_of()))
    restore(world)
    world.torn, world.crash_at_barrier = 1, 0
    answer_with(world, reserve=LedgerStatus.TOMBSTONE, mail=LedgerStatus.APPLIED)
    world.restart()
    assert world.saga.phase is Phase.PARKED_RUNNING
    assert world.saga_host.asking
    assert world.give(RETRY).answer is Answer.LEDGERS_NOT_ASKED
    world.torn = 0
    answer_with(world)
    assert world.saga.phase is Phase.PARKED_RUNNING
    assert 2 in world.saga.net_effect()
