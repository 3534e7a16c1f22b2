"""Tells a history of a proof so that a person can follow it."""

from __future__ import annotations

from collections.abc import Iterable

from raysaga.simulation.prove_moves import Moves
from raysaga.simulation.prove_search import Counterexample
from raysaga.simulation.prove_world import LEDGER, NOBODY, Call, Move, MoveKind, State
from raysaga.statemachines.calls import Outcome
from raysaga.statemachines.commands import CallStep, Decision
from raysaga.statemachines.events import CompensationStarted, Event, SagaParked

_SENTENCES = {
    MoveKind.SUBMIT: "the caller submits the saga",
    MoveKind.RETRY_DUE: "the time of the next attempt has come",
    MoveKind.DEADLINE: "the deadline passes",
    MoveKind.CANCEL: "the caller cancels",
    MoveKind.WRITE_BEHIND: "what was written behind reaches the disk",
    MoveKind.COMMIT: "the commit returns",
    MoveKind.ORDER_RETRY: "an operator orders: try again",
    MoveKind.ORDER_SKIP: "an operator orders: go on without it",
    MoveKind.ORDER_FORCE: "an operator orders: turn back",
}


def story(moves: Moves, found: Counterexample) -> list[str]:
    """Return a counterexample, a sentence for each move and, indented, what the host decides."""
    told: list[str] = []
    state = moves.first()
    for number, move in enumerate(found.moves, 1):
        told.append(f"{number:>3}. {_sentence(moves, state, move)}")
        decided = _decision(moves, state, move)
        if decided is not None:
            told.append(f"     host: {_decided(moves, decided)}")
        if number < len(found.moves) or found.promise == "end_in_reach":
            state = moves.make(state, move)
    told.append(f"broken: {found.promise}: {found.detail}")
    return told


def _sentence(moves: Moves, state: State, move: Move) -> str:
    match move.kind:
        case MoveKind.ARRIVE:
            assert move.call is not None
            return _arrival(moves, state, move.call, move.how)
        case MoveKind.HEAR:
            assert move.call is not None and move.answer is not None
            code = f" ({move.answer.code})" if move.answer.code else ""
            said = Outcome(move.answer.outcome).name.lower()
            return f"the host hears of {_name(moves, move.call)}: {said}{code}"
        case MoveKind.GIVE_UP_WAITING:
            assert move.call is not None
            return f"no answer to {_name(moves, move.call)} in time"
        case MoveKind.CRASH:
            if state.disk == NOBODY:
                return "the host dies; the next one finds nothing on the disk"
            phase = moves.sagas[state.disk].phase.value
            return f"the host dies; the next one reads from the disk that the saga is {phase}"
        case _:
            return _SENTENCES[move.kind]


def _arrival(moves: Moves, state: State, call: Call, how: int) -> str:
    row = state.rows[call.step]
    becomes, answer = LEDGER[row, call.undo][how]
    changed = f"{row.value} stays" if becomes is row else f"{row.value} becomes {becomes.value}"
    heard = "" if call.attempt else ", and nobody hears it"
    said = Outcome(answer.outcome).name.lower() + (f" ({answer.code})" if answer.code else "")
    name = _name(moves, call)
    participant = moves.definition.steps[call.step].participant
    return f"{name} arrives at {participant}: {changed}, the answer is {said}{heard}"


def _name(moves: Moves, call: Call) -> str:
    name = moves.definition.steps[call.step].name
    attempt = f"attempt {call.attempt}" if call.attempt else "an earlier attempt"
    return f"{'the undo' if call.undo else 'the action'} of {name} ({attempt})"


def _decision(moves: Moves, state: State, move: Move) -> Decision | None:
    """Return what the engine decides upon a move; None if it is not asked, or raises."""
    if move.kind in (MoveKind.ARRIVE, MoveKind.COMMIT, MoveKind.WRITE_BEHIND):
        return None
    host = state.disk if move.kind is MoveKind.CRASH else state.host
    if host == NOBODY and move.kind is MoveKind.CRASH:
        return None
    given, now_ms = moves.given(state, move)
    try:
        return moves.ask(host, given, now_ms)
    except Exception:  # noqa: BLE001 - the last line of the story tells it
        return None


def _decided(moves: Moves, decision: Decision) -> str:
    parts = [_event(moves, event) for event in decision.events]
    sent = [Call(c.step, c.undo, c.attempt) for c in decision.commands if isinstance(c, CallStep)]
    if decision.durable_first:
        parts.append("waits for the disk")
    parts.extend(f"then sends {_name(moves, call)}" for call in sent)
    return "; ".join(parts) or "nothing"


def _event(moves: Moves, event: Event) -> str:
    name = type(event).__name__
    match event:
        case CompensationStarted():
            return f"{name}, to undo: {_names(moves, event.undo) or 'nothing'}"
        case SagaParked():
            return f"{name} ({event.code}), may stand: {_names(moves, event.net_effect) or 'none'}"
        case _:
            step = getattr(event, "step", None)
            of = "" if step is None else f" {moves.definition.steps[step].name}"
            return f"{name}{of}"


def _names(moves: Moves, steps: Iterable[int]) -> str:
    return ", ".join(moves.definition.steps[i].name for i in steps)
