"""A saga in memory: what events make of it, and what can be read off it."""

from __future__ import annotations

import copy

import pytest

from raysaga.statemachines.events import (
    EVENT_TYPES,
    Accepted,
    Recovered,
    SagaCompleted,
    SagaParked,
    StepCalled,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.inputs import CancelRequested
from raysaga.statemachines.machine import IllegalMove
from raysaga.statemachines.saga import Saga, evolve, replay
from raysaga.statemachines.tables import Phase

from .recipes import Seeded
from .shapes import order_of
from .wandering import MOVES, random_world, wander
from .world import World, state_of

ACCEPTED = Accepted("example", "hash", "1", "f", "scope", {"id": 1}, 5, 99)


def new_saga() -> Saga:
    return Saga(SagaId("example:1"), order_of())


def test_a_new_saga_does_not_exist_yet() -> None:
    saga = new_saga()
    assert not saga.is_accepted
    assert saga.net_effect() == ()
    evolve(saga, ACCEPTED)
    assert saga.is_accepted
    assert (saga.key, saga.fingerprint, saga.scope) == ("1", "f", "scope")
    assert (saga.accepted_at_ms, saga.deadline_at_ms, saga.due_at_ms()) == (5, 99, 99)


@pytest.mark.parametrize(
    "event",
    [
        StepUndone(0, 1, 0, None),
        SagaCompleted(0),
        StepSucceeded(0, 1, 0, {}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_the_tables_do_not_allow_is_no_history(event: object) -> None:
    """Here: anything more after the end."""
    history = [ACCEPTED]
    for i in range(4):
        history += [StepCalled(i, False, 1, 0), StepSucceeded(i, 1, 0, {})]
    history.append(SagaCompleted(0))
    saga = replay(SagaId("example:1"), order_of(), history, taken_over=False)
    assert saga.phase is Phase.COMPLETED
    before = copy.deepcopy(state_of(saga))
    with pytest.raises(IllegalMove):
        replay(SagaId("example:1"), order_of(), [*history, event], taken_over=False)
    with pytest.raises(IllegalMove):
        evolve(saga, event)  # type: ignore[arg-type]
    assert state_of(saga)["phase"] == before["phase"]


def test_a_replayed_saga_waits_for_nobodys_answers() -> None:
    history = [ACCEPTED, StepCalled(0, False, 1, 0)]
    saga = replay(SagaId("example:1"), order_of(), history, taken_over=True)
    assert saga.in_flight == 0
    assert saga.taken_over
    assert not replay(SagaId("example:1"), order_of(), history, taken_over=False).taken_over
    # The log may tell of a takeover itself.
    history.append(Recovered(0, 2, 1))
    assert replay(SagaId("example:1"), order_of(), history, taken_over=False).taken_over


def test_the_same_events_give_the_same_saga() -> None:
    """Any prefix of any history, replayed twice; and a flush compares it with the live one."""
    for seed in range(60):
        chance = Seeded(seed)
        world = random_world(chance)
        wander(world, chance, MOVES, 40)
        for length in range(len(world.journal) + 1):
            one, other = (
                replay(SagaId("r:1"), world.definition, world.journal[:length], taken_over=True)
                for _ in range(2)
            )
            assert state_of(one) == state_of(other)


def test_a_reason_is_why_it_is_parked_or_else_why_it_turned_back() -> None:
    world = World(order_of())
    world.submit()
    assert world.saga.reason is None
    world.give(CancelRequested("somebody", "no"))
    assert world.saga.reason is not None
    assert world.saga.reason.code == "CANCELLED"
    evolve(world.saga, SagaParked(0, "POISON", "it kills", None, ()))
    assert world.saga.reason.code == "POISON"


def test_every_event_has_one_tag_for_ever() -> None:
    """Journals hold the numbers: they may be added to, never changed."""
    assert {tag: cls.__name__ for tag, cls in EVENT_TYPES.items()} == {
        1: "Accepted",
        2: "StepCalled",
        3: "StepSucceeded",
        4: "StepRefused",
        5: "AttemptFailed",
        6: "StepUndone",
        7: "StepSkipped",
        8: "GoGiven",
        9: "CompensationStarted",
        10: "SagaCompleted",
        11: "SagaCompensated",
        12: "SagaParked",
        13: "SagaResumed",
        14: "Recovered",
        15: "LedgersAsked",
    }


def test_a_record_written_before_a_field_was_added_can_be_read() -> None:
    assert Recovered(1, 2, 3) == Recovered(1, 2, 3, restored=False)
