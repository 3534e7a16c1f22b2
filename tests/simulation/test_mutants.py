"""Each mutant of the engine is caught, and what is caught can be made small and be told."""

from __future__ import annotations

import pytest

from raysaga.simulation.checker import check
from raysaga.simulation.mutants import MUTANTS, SEEDS_MAX, Mutant
from raysaga.simulation.play import play
from raysaga.simulation.recipe import recipe_of
from raysaga.simulation.shrink import broken_by, shrink

CAUGHT_AT: dict[str, int] = {
    "act-before-commit": 4,
    "ack-before-flush": 8,
    "go-is-not-waited-for": 154,
    "latch-is-not-waited-for": 60,
    "failed-commit-counts": 53,
    "dropped-births-are-told": 2,
    "known-births-are-dropped": 882,
    "journal-ignores-epochs": 1,
    "epochs-are-given-twice": 0,
    "participants-ignore-epochs": 53,
    "undo-in-any-order": 2,
    "forget-the-failed-step": 4,
    "trust-the-log": 204,
    "unknown-is-refused": 3,
    "new-key-on-retry": 0,
    "cancel-is-forgotten": 60,
    "cancel-beyond-go": 129,
    "net-effect-is-untold": 2,
    "never-parks": 1,
    "no-tombstones": 4,
    "undone-is-done-again": 17,
    "effect-without-row": 0,
    "refusal-keeps-writes": 0,
    "answers-from-a-failed-commit": 1,
    "rows-are-forgotten-at-once": 141,
    "expiry-is-ignored": 127,
    "conflicts-pass": 4,
    "nothing-is-taken-up": 0,
    "timers-never-ring": 1,
    "lost-exchanges-are-untold": 0,
    "late-exchanges-take": 60,
}
"""Seed at which each mutant was caught, by `raysaga simulate --mutants`."""


def mutant(name: str) -> Mutant:
    """Return the mutant of that name."""
    return next(m for m in MUTANTS if m.name == name)


def test_each_mutant_has_a_seed_within_the_bound() -> None:
    assert {m.name for m in MUTANTS} == set(CAUGHT_AT)
    assert max(CAUGHT_AT.values()) < SEEDS_MAX


@pytest.mark.parametrize("name", [m.name for m in MUTANTS])
def test_a_mutant_is_caught_and_the_engine_itself_is_not(name: str) -> None:
    recipe = recipe_of(CAUGHT_AT[name])
    with mutant(name).alive():
        assert check(play(recipe))
    assert check(play(recipe)) == []


def test_a_mutant_leaves_nothing_behind() -> None:
    before = play(recipe_of(5)).text()
    for each in MUTANTS:
        with each.alive():
            pass
    assert play(recipe_of(5)).text() == before


@pytest.mark.parametrize("name", ["no-tombstones", "trust-the-log", "act-before-commit"])
def test_a_history_that_breaks_a_promise_is_made_smaller(name: str) -> None:
    recipe = recipe_of(CAUGHT_AT[name])
    with mutant(name).alive():
        small = shrink(recipe)
        assert broken_by(small) & broken_by(recipe)
    assert len(small.deeds) + len(small.rates) < len(recipe.deeds) + len(recipe.rates)
    assert 1 <= small.saga_count <= recipe.saga_count
    assert broken_by(small) == frozenset()
