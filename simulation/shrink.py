"""Makes a history that breaks a promise as small as it gets while it still breaks it.

Takes away deeds and faults, first many at a time and then one by one (delta
debugging: Zeller, Hildebrandt, IEEE TSE 28(2), 2002). Chance depends on what it
is for, so that the rest of the history mostly stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raysaga.simulation.checker import check
from raysaga.simulation.play import play
from raysaga.simulation.recipe import Recipe

PLAYS_MAX = 400
"""Histories that are tried; at some 30 ms each a few seconds."""


def broken_by(recipe: Recipe) -> frozenset[str]:
    """Return the invariants that a history breaks."""
    return frozenset(violation.invariant for violation in check(play(recipe)))


def shrink(recipe: Recipe, *, broken: Callable[[Recipe], frozenset[str]] = broken_by) -> Recipe:
    """Return a smaller history that breaks one of the same invariants."""
    wanted = broken(recipe)
    plays = 0
    while True:
        for smaller in _smaller(recipe):
            plays += 1
            if plays > PLAYS_MAX:
                return recipe
            if broken(smaller) & wanted:
                recipe = smaller
                break
        else:
            return recipe


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    """Yield it with less, the larger cuts first."""
    rates = list(recipe.rates)
    if len(rates) > 1:
        yield recipe.without(set(), set(rates))
    count = len(recipe.deeds)
    size = count // 2
    while size:
        for at in range(0, count, size):
            yield recipe.without(set(range(at, min(at + size, count))), set())
        size //= 2
    for name in rates:
        yield recipe.without(set(), {name})
