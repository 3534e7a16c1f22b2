"""What becomes of a saga whose host dies at each point of each step, as a table.

A cell tells the ends that recovery leads to when nothing else goes wrong afterwards; whatever
else may go wrong, the proof has looked at too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysaga.simulation.prove_moves import Moves
from raysaga.simulation.prove_search import Explored
from raysaga.simulation.prove_world import NOBODY, FrozenSaga, State
from raysaga.statemachines.saga import MOVING_BACK
from raysaga.statemachines.tables import BACKWARD, PARKED, TERMINAL, StepStatus

POINTS = ("on its way", "done, not heard", "heard, not on disk", "on disk")
"""Where a call can be when the host dies, in the order in which it passes them."""

ON_ITS_WAY, NOT_HEARD, NOT_ON_DISK, ON_DISK = POINTS

SETTLED = frozenset(
    {StepStatus.SUCCEEDED, StepStatus.REFUSED, StepStatus.UNKNOWN, StepStatus.SKIPPED}
)
SETTLED_BACK = frozenset({StepStatus.UNDONE, StepStatus.UNDO_FAILED, StepStatus.UNDO_SKIPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        what: A step's name, its undo, or a turn of the whole saga.
        ends: By point: the ends that were seen, sorted; a point that was not met is missing.
        crash_counts: By point: states in which the host has died there.
    """

    what: str
    ends: Mapping[str, tuple[str, ...]]
    crash_counts: Mapping[str, int]


def crash_matrix(moves: Moves, explored: Explored) -> tuple[Line, ...]:
    """Return the table of a proof that found no counterexample."""
    steps = moves.definition.steps
    order = moves.definition.topological
    lines = [
        "accepted",
        *(steps[i].name for i in order),
        "turned back",
        *(f"undo {steps[i].name}" for i in reversed(order) if steps[i].has_undo),
        "parked",
        "ended",
    ]
    ends: dict[tuple[str, str], set[str]] = {}
    counts: dict[tuple[str, str], int] = {}
    for before, after in explored.crashes:
        for cell in set(_cells(moves, explored.states[before])):
            ends.setdefault(cell, set()).update(explored.ends[after])
            counts[cell] = counts.get(cell, 0) + 1
    return tuple(
        Line(
            what=what,
            ends={p: tuple(sorted(ends[what, p])) for p in POINTS if (what, p) in ends},
            crash_counts={p: counts[what, p] for p in POINTS if (what, p) in counts},
        )
        for what in lines
        if any((what, point) in ends for point in POINTS)
    )


def _cells(moves: Moves, state: State) -> Iterator[tuple[str, str]]:
    """Yield the points that a state stands at: line and point."""
    saga = moves.sagas[state.host]
    disk = None if state.disk == NOBODY else moves.sagas[state.disk]
    yield from _turns(saga, disk)
    heard = {(reply.call.step, reply.call.undo) for reply in state.replies}
    awaited = {(call.step, call.undo) for call in state.awaited}
    definition = moves.definition
    for i, step in enumerate(definition.steps):
        for undo, name in ((False, step.name), (True, f"undo {step.name}")):
            if (i, undo) in awaited:
                yield name, NOT_HEARD if (i, undo) in heard else ON_ITS_WAY
            elif saga.steps[i].status in (SETTLED_BACK if undo else SETTLED):
                if disk is None or disk.steps[i].status is not saga.steps[i].status:
                    yield name, NOT_ON_DISK
                elif not _has_gone_on(
                    saga, definition.dependencies[i] if undo else definition.dependents[i], undo
                ):
                    yield name, ON_DISK


def _turns(saga: FrozenSaga, disk: FrozenSaga | None) -> Iterator[tuple[str, str]]:
    """Yield where the saga as a whole stands."""
    if disk is None:
        yield "accepted", NOT_ON_DISK
    for what, phases in (("turned back", BACKWARD), ("parked", PARKED), ("ended", TERMINAL)):
        if saga.phase in phases:
            is_on_disk = disk is not None and disk.phase in phases
            if what != "turned back" or not is_on_disk:
                yield what, ON_DISK if is_on_disk else NOT_ON_DISK


def _has_gone_on(saga: FrozenSaga, following: Sequence[int], undo: bool) -> bool:
    """Return whether a later call is under way or over, so that this one's point has passed."""
    if undo:
        passed = MOVING_BACK | SETTLED_BACK
        return any(saga.steps[j].status in passed for j in following) or saga.phase in TERMINAL
    begun = any(saga.steps[j].status is not StepStatus.PENDING for j in following)
    return begun or saga.phase in BACKWARD or saga.phase in TERMINAL
