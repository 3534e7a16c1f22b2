"""Proves a definition: visits every state that one saga of it can come to.

Guarantees: a proof without a counterexample means that every promise in `PROMISES` holds in
every history within the bounds: any order, loss, delay and number of arrivals of calls and
answers, any outcome of each step and of each undo, a cancel and the deadline at any moment,
a crash of the host at any moment with what was not flushed lost.
Does not look at: several owners at once (that is what fencing is for), a restored journal,
outside providers, expiry and the code of participants. `docs/PROOF.md` tells what does.
Costs: seconds for eight steps in a row; branches cost more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raysaga.simulation.prove_matrix import Line, crash_matrix
from raysaga.simulation.prove_moves import Bounds, Moves
from raysaga.simulation.prove_promises import PROMISES
from raysaga.simulation.prove_search import STATES_MAX, explore
from raysaga.simulation.prove_story import story
from raysaga.simulation.prove_world import MoveKind
from raysaga.statemachines.definition import SagaDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a proof has shown.

    Attributes:
        definition: As it was given.
        bounds: How far it looked.
        state_count: States visited.
        move_counts: Moves between them, by kind; one of which there are none was never met.
        elapsed_s: How long it took.
        ends: Outcomes that were met on good days; empty with a counterexample.
        matrix: What becomes of a crash at each point; empty with a counterexample.
        broken: Name of the promise that does not hold; None if all do.
        story: The shortest history that breaks it, a line each.
    """

    definition: SagaDefinition
    bounds: Bounds
    state_count: int
    move_counts: Mapping[str, int]
    elapsed_s: float
    ends: frozenset[str] = frozenset()
    matrix: tuple[Line, ...] = ()
    broken: str | None = None
    story: tuple[str, ...] = ()

    @property
    def move_count(self) -> int:
        """Moves of all kinds."""
        return sum(self.move_counts.values())

    @property
    def holds(self) -> bool:
        """Whether every promise does."""
        return self.broken is None

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        definition = self.definition
        return {
            "definition": definition.name,
            "version": definition.version,
            "definition_hash": definition.content_hash,
            "durability": definition.durability.value,
            "step_count": len(definition.steps),
            "bounds": asdict(self.bounds),
            "promises": dict(PROMISES),
            "holds": self.holds,
            "broken": self.broken,
            "story": list(self.story),
            "state_count": self.state_count,
            "move_count": self.move_count,
            "move_counts": dict(self.move_counts),
            "elapsed_s": round(self.elapsed_s, 3),
            "ends": sorted(self.ends),
            "crash_matrix": [asdict(line) for line in self.matrix],
        }


def prove(
    definition: SagaDefinition, bounds: Bounds | None = None, *, states_max: int = STATES_MAX
) -> Proof:
    """Return the proof of a definition, or the shortest counterexample.

    Raises:
        TooManyStatesError: If there are more states than `states_max`.
    """
    bounds = bounds or Bounds()
    began_s = time.monotonic()
    moves = Moves(definition, bounds)
    explored = explore(moves, states_max)
    found = explored.counterexample
    return Proof(
        definition=definition,
        bounds=bounds,
        state_count=len(explored.states),
        move_counts={kind.value: explored.move_counts[kind] for kind in MoveKind},
        elapsed_s=time.monotonic() - began_s,
        ends=frozenset().union(*explored.ends),
        matrix=crash_matrix(moves, explored) if found is None else (),
        broken=None if found is None else found.promise,
        story=() if found is None else tuple(story(moves, found)),
    )
