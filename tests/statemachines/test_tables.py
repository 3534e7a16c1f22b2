"""The tables, exhaustively: every state with every trigger."""

from __future__ import annotations

import itertools

import pytest

from raysaga.statemachines.machine import IllegalMove, move_saga, move_step
from raysaga.statemachines.tables import (
    BACKWARD,
    FORWARD,
    PARKED,
    PHASE_TRANSITIONS,
    STEP_TRANSITIONS,
    TERMINAL,
    Phase,
    StepStatus,
)

from .recipes import Seeded
from .wandering import CALM, MOVES, WITH_RESTORES, come_to_rest, random_world, wander

PHASE_TRIGGERS = sorted({trigger for trigger, _, _ in PHASE_TRANSITIONS})
STEP_TRIGGERS = sorted({trigger for trigger, _, _ in STEP_TRANSITIONS})


class Model:
    """Anything with a phase and a status."""

    __slots__ = ("phase", "status")

    def __init__(self) -> None:
        self.phase = Phase.RUNNING
        self.status = StepStatus.PENDING


@pytest.mark.parametrize(("phase", "trigger"), list(itertools.product(Phase, PHASE_TRIGGERS)))
def test_every_phase_moves_as_its_row_says_or_not_at_all(phase: Phase, trigger: str) -> None:
    rows = {(name, source): destination for name, source, destination in PHASE_TRANSITIONS}
    model = Model()
    model.phase = phase
    if (trigger, phase) in rows:
        move_saga(model, trigger)
        assert model.phase is rows[trigger, phase]
    else:
        with pytest.raises(IllegalMove):
            move_saga(model, trigger)
        assert model.phase is phase


@pytest.mark.parametrize(("status", "trigger"), list(itertools.product(StepStatus, STEP_TRIGGERS)))
def test_every_status_moves_as_its_row_says_or_not_at_all(status: StepStatus, trigger: str) -> None:
    rows = {(name, source): destination for name, source, destination in STEP_TRANSITIONS}
    model = Model()
    model.status = status
    if (trigger, status) in rows:
        move_step(model, trigger)
        assert model.status is rows[trigger, status]
    else:
        with pytest.raises(IllegalMove):
            move_step(model, trigger)
        assert model.status is status


def test_no_two_rows_disagree() -> None:
    for rows in (PHASE_TRANSITIONS, STEP_TRANSITIONS):
        starts = [(trigger, source) for trigger, source, _ in rows]
        assert len(starts) == len(set(starts))


def test_no_row_leaves_a_terminal_phase() -> None:
    assert not [row for row in PHASE_TRANSITIONS if row[1] in TERMINAL]


def test_what_is_undone_stays_undone() -> None:
    ends = {StepStatus.UNDONE, StepStatus.UNDO_SKIPPED}
    assert not [row for row in STEP_TRANSITIONS if row[1] in ends]


def test_a_parked_saga_never_turns_against_the_way_it_faces() -> None:
    """Backward stays backward; forward-only turns only on the pivot's refusal."""
    for trigger, source, destination in PHASE_TRANSITIONS:
        if source in BACKWARD:
            assert destination in BACKWARD
        if source in (Phase.FORWARD_ONLY, Phase.PARKED_FORWARD) and destination in BACKWARD:
            assert trigger == "pivot_refused"


def test_every_phase_belongs_to_one_group() -> None:
    for phase in Phase:
        assert sum(phase in group for group in (FORWARD, PARKED, TERMINAL)) == (
            0 if phase is Phase.COMPENSATING else 1
        )


@pytest.mark.parametrize(
    ("first", "rows"),
    [(Phase.RUNNING, PHASE_TRANSITIONS), (StepStatus.PENDING, STEP_TRANSITIONS)],
)
def test_every_state_can_be_reached(first: Phase | StepStatus, rows: tuple[tuple, ...]) -> None:
    reached: set[Phase | StepStatus] = {first}
    while True:
        more = {destination for _, source, destination in rows if source in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(type(first))


NEEDS_A_STORY = {
    # A backup taken while parked, of a saga that had gone on since: `test_restored`.
    (Phase.PARKED_RUNNING, Phase.PARKED_FORWARD),
    (Phase.PARKED_RUNNING, Phase.PARKED_BACKWARD),
    (Phase.PARKED_FORWARD, Phase.PARKED_BACKWARD),
    # What contradicts itself cannot come about by chance: `test_contradictions`.
    (Phase.PARKED_RUNNING, Phase.PARKED_RUNNING),
    (Phase.PARKED_FORWARD, Phase.PARKED_FORWARD),
    (Phase.PARKED_BACKWARD, Phase.PARKED_BACKWARD),
    # An operator gives up on what kills its host: `test_operators`.
    (StepStatus.CALLING, StepStatus.SKIPPED),
    (StepStatus.WAITING, StepStatus.SKIPPED),
    (StepStatus.UNDOING, StepStatus.UNDO_SKIPPED),
    (StepStatus.UNDO_WAITING, StepStatus.UNDO_SKIPPED),
}
"""Rows that random histories need not reach; named examples do."""


def test_every_row_is_used_by_some_history() -> None:
    """A row that no history takes would be a promise that nothing keeps.

    Method: seeded random histories until each row has been taken, up to a bound.
    """
    wanted = {(source, destination) for _, source, destination in PHASE_TRANSITIONS}
    wanted |= {(source, destination) for _, source, destination in STEP_TRANSITIONS}
    wanted -= NEEDS_A_STORY
    used: set[tuple[object, object]] = set()
    for seed in range(2_000):
        chance = Seeded(seed)
        world = random_world(chance)
        wander(world, chance, (MOVES, CALM, WITH_RESTORES)[seed % 3], 10 + chance.below(60))
        come_to_rest(world, chance)
        used |= world.rows_used
        if wanted <= used:
            break
    assert not wanted - used
    # And nothing moves but by a row; a self-loop in the log may also be no move at all.
    assert {pair for pair in used if pair[0] is not pair[1]} <= wanted | NEEDS_A_STORY
