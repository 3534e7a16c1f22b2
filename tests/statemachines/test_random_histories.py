"""Random sagas in random histories keep the promises, whatever happens around them.

Judged by the participants' ledgers, the disk and what callers were told; see
`world` for what can happen and `promises` for what is checked.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .recipes import Chance, Seeded, random_definition
from .wandering import CALM, MOVES, WITH_RESTORES, come_to_rest, random_world, wander
from .world import World

WAYS = {"trouble": MOVES, "calm": CALM, "restores": WITH_RESTORES}

SEEDS_A_WAY = 1_500

SOMETIMES = {
    "trouble": {
        "rest completed": 100,
        "rest compensated": 100,
        "crash at a barrier": 50,
        "zombie acts": 10,
        "a zombie was fenced out": 10,
        "a zombie stopped at its barrier": 2,
        "late answer": 20,
        "lost whole": 5,
        "parked COMPENSATION_REFUSED": 10,
        "parked COMPENSATION_STUCK": 20,
        "parked PIVOT_UNKNOWN": 10,
        "parked POISON": 5,
        "parked STEP_REFUSED": 10,
        "parked STEP_STUCK": 10,
        "turned back: CANCELLED": 20,
        "turned back: DEADLINE_EXCEEDED": 20,
        "CancelRequested cancel_too_late": 20,
        "RetryOrdered accepted": 50,
        "SkipOrdered accepted": 20,
    },
    "calm": {"rest completed": 200, "rest compensated": 50},
    "restores": {
        "restored": 100,
        "ledgers answered": 50,
        "turned back: RESTORED": 5,
        "CancelRequested ledgers_not_asked": 5,
    },
}
"""What a run must have met, and how often, to prove anything."""


class Drawn:
    """Chance from hypothesis, which can shrink a history that breaks a promise."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def below(self, bound: int) -> int:
        return self._data.draw(st.integers(0, bound - 1))


def run(chance: Chance, way: str) -> World:
    """Let one history happen, and judge it."""
    world = random_world(chance)
    wander(world, chance, WAYS[way], 10 + chance.below(60))
    come_to_rest(world, chance)
    return world


@pytest.mark.parametrize("way", WAYS)
def test_seeded_histories_keep_every_promise_and_meet_every_trouble(way: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS_A_WAY):
        try:
            seen.update(run(Seeded(seed), way).seen)
        except Exception as error:
            error.add_note(f"seed {seed}, {way}")
            raise
    lacking = {what: seen[what] for what, least in SOMETIMES[way].items() if seen[what] < least}
    assert not lacking, f"this run proves little: {lacking}"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), way=st.sampled_from(sorted(WAYS)))
def test_drawn_histories_keep_every_promise(data: st.DataObject, way: str) -> None:
    assert run(Drawn(data), way).saga.is_terminal


def test_random_definitions_have_every_shape() -> None:
    shapes: Counter[str] = Counter()
    for seed in range(300):
        definition = random_definition(Seeded(seed))
        steps = definition.steps
        shapes["pivot"] += any(step.kind.value == "pivot" for step in steps)
        shapes["retriable"] += any(step.kind.value == "retriable" for step in steps)
        shapes["best effort"] += any(step.best_effort for step in steps)
        shapes["uses"] += any(definition.uses)
        shapes["branches"] += any(len(row) > 1 for row in definition.dependents)
        shapes["joins"] += any(len(row) > 1 for row in definition.dependencies)
        shapes["shuffled"] += definition.topological != tuple(range(len(steps)))
        shapes[definition.durability.value] += 1
        shapes[definition.compensation_policy.value] += 1
        shapes["deadline"] += definition.deadline_ms is not None
    assert min(shapes.values()) >= 10, shapes
    assert len(shapes) == 13
