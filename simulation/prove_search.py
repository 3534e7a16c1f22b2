"""Visits every state that a saga can come to, and tells what that has shown.

Explicit-state model checking, breadth first, so that the counterexample is one of the
shortest (Holzmann, The SPIN Model Checker, 2003, chapter 8).
Costs: some 20 microseconds a move and some 2 kilobytes a state; refuses to go on at
`STATES_MAX`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from raysaga.simulation.prove_moves import Moves, is_end, is_good
from raysaga.simulation.prove_promises import PromiseBrokenError
from raysaga.simulation.prove_world import NOBODY, FrozenSaga, Move, MoveKind, State
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.tables import PARKED

STATES_MAX = 3_000_000
"""States that one proof may visit; some 6 GiB."""


class TooManyStatesError(SagaError):
    """The definition has more states than a proof may visit; bound it more narrowly.

    Attributes:
        states_max: The bound.
    """

    code = "TOO_MANY_STATES"

    def __init__(self, states_max: int) -> None:
        super().__init__(states_max)
        self.states_max = states_max

    def __str__(self) -> str:
        return (
            f"more than {self.states_max:,} states: lower --crashes, --orders or --attempts, "
            "or prove a part of the steps at a time"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """A shortest history that breaks a promise.

    Attributes:
        promise: Which.
        detail: What is wrong.
        moves: From the beginning to the move that breaks it.
    """

    promise: str
    detail: str
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """All states, or the way to the first bad one.

    Attributes:
        states: In the order in which they were found, so a shortest way to each is known.
        move_counts: Moves between them, by kind.
        counterexample: None if every promise holds.
        ends: Outcomes that each state leads to on good days; empty with a counterexample.
        crashes: Pairs of the state before a death of the host, and the one after.
    """

    states: tuple[State, ...]
    move_counts: Mapping[MoveKind, int]
    counterexample: Counterexample | None
    ends: tuple[frozenset[str], ...] = ()
    crashes: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class _Search:
    moves: Moves
    numbers: dict[State, int] = field(default_factory=dict)
    states: list[State] = field(default_factory=list)
    came_from: list[tuple[int, Move] | None] = field(default_factory=list)
    good_before: list[list[int]] = field(default_factory=list)
    crashes: list[tuple[int, int]] = field(default_factory=list)
    move_counts: Counter[MoveKind] = field(default_factory=Counter)

    def run(self, states_max: int) -> Explored:
        """Visit everything."""
        self._number(self.moves.first(), None)
        at = 0
        while at < len(self.states):
            if len(self.states) > states_max:
                raise TooManyStatesError(states_max)
            found = self._visit(at)
            if found is not None:
                return self._explored(found)
            at += 1
        ends = self._ends()
        lost = next((n for n, found_ends in enumerate(ends) if not found_ends), None)
        if lost is not None:
            what = "from here no end is in reach"
            return self._explored(
                Counterexample(promise="end_in_reach", detail=what, moves=self._way_to(lost))
            )
        return Explored(
            states=tuple(self.states),
            move_counts=self.move_counts,
            counterexample=None,
            ends=ends,
            crashes=tuple(self.crashes),
        )

    def _explored(self, counterexample: Counterexample) -> Explored:
        return Explored(
            states=tuple(self.states), move_counts=self.move_counts, counterexample=counterexample
        )

    def _visit(self, at: int) -> Counterexample | None:
        state = self.states[at]
        for move in self.moves.after(state):
            self.move_counts[move.kind] += 1
            try:
                made = self.moves.make(state, move)
            except PromiseBrokenError as broken:
                return self._counterexample(at, move, broken.promise, broken.detail)
            except Exception as error:  # noqa: BLE001 - whatever the engine raises is the finding
                what = f"the engine raises {type(error).__name__}: {error}"
                return self._counterexample(at, move, "total", what)
            number = self._number(made, (at, move))
            if is_good(state, move):
                self.good_before[number].append(at)
            if move.kind is MoveKind.CRASH:
                self.crashes.append((at, number))
        return None

    def _number(self, state: State, came_from: tuple[int, Move] | None) -> int:
        number = self.numbers.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
            self.came_from.append(came_from)
            self.good_before.append([])
        return number

    def _counterexample(self, at: int, move: Move, promise: str, detail: str) -> Counterexample:
        return Counterexample(promise=promise, detail=detail, moves=(*self._way_to(at), move))

    def _way_to(self, at: int) -> tuple[Move, ...]:
        way: list[Move] = []
        while (before := self.came_from[at]) is not None:
            at, move = before
            way.append(move)
        return tuple(reversed(way))

    def _ends(self) -> tuple[frozenset[str], ...]:
        """Return for each state the ends that good days lead to."""
        found: list[set[str]] = [set() for _ in self.states]
        for number, state in enumerate(self.states):
            saga = None if state.host == NOBODY else self.moves.sagas[state.host]
            if is_end(state, saga):
                assert saga is not None
                self._spread(found, number, end_of(saga))
        shared: dict[frozenset[str], frozenset[str]] = {}
        frozen = (frozenset(names) for names in found)
        return tuple(shared.setdefault(names, names) for names in frozen)

    def _spread(self, found: list[set[str]], number: int, end: str) -> None:
        """Note an end with every state that leads to it and has not heard of it."""
        open_states = [number]
        while open_states:
            at = open_states.pop()
            if end not in found[at]:
                found[at].add(end)
                open_states.extend(self.good_before[at])


def end_of(saga: FrozenSaga) -> str:
    """Return the word for how a saga came to rest."""
    return "parked" if saga.phase in PARKED else saga.phase.value


def explore(moves: Moves, states_max: int = STATES_MAX) -> Explored:
    """Visit every state, or stop at the first broken promise.

    Raises:
        TooManyStatesError: If there are more than `states_max`.
    """
    return _Search(moves).run(states_max)
