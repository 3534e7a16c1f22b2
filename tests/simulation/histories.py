"""Histories made by hand: a good one, and what a test changes in it to make it bad."""

from __future__ import annotations

from typing import Any

from raysaga.simulation.history import (
    Asked,
    Committed,
    Effect,
    Granted,
    Line,
    Observation,
    Reading,
    Sent,
    Told,
)
from raysaga.statemachines.calls import ACTION, COMPENSATION
from raysaga.statemachines.definition import Durability, SagaDefinition, Step, StepKind

SAGA = "trip:o1"
SCOPE = "uuid/shard-0"


def trip(durability: Durability = Durability.PIPELINED) -> SagaDefinition:
    """Return two steps that can be undone, and a last one that need not succeed."""
    return SagaDefinition(
        name="trip",
        durability=durability,
        steps=(
            Step(name="a", participant="p", action="do", compensation="undo"),
            Step(name="b", participant="p", action="do-b", compensation="undo-b"),
            Step(
                name="c",
                participant="q",
                action="do-c",
                kind=StepKind.RETRIABLE,
                best_effort=True,
                after=("a", "b"),
            ),
        ),
    )


class Tale:
    """A history that is told line by line."""

    def __init__(self, definition: SagaDefinition | None = None) -> None:
        self.lines: list[Line] = [Granted(0, "shard-0#1", SCOPE, 1)]
        self.left = {"p": 10, "q": 10}
        self.seq = 0
        self.seen = Observation(
            definitions={"trip": definition or trip()},
            lines=self.lines,
            stock={"p": (10, 10), "q": (10, 10)},
        )

    def ask(self, operation: str = "submit", fingerprint: str = "f") -> Tale:
        facts = {"fingerprint": fingerprint} if operation == "submit" else {}
        self.lines.append(Asked(0, "caller-0", operation, SAGA, facts))
        return self

    def tell(self, operation: str, kind: str, **facts: Any) -> Tale:
        self.lines.append(Told(0, "caller-0", operation, SAGA, kind, facts))
        return self

    def accepted(self, fingerprint: str = "f") -> Tale:
        self.ask("submit", fingerprint)
        return self.tell("submit", "ok", answer="accepted", fingerprint=fingerprint)

    def send(self, step: str, verb: int = ACTION, epoch: int = 1) -> Tale:
        participant = "q" if step == "c" else "p"
        self.lines.append(Sent(0, "shard-0#1", participant, verb, SAGA, step, SCOPE, epoch, 1))
        return self

    def effect(self, kind: str, step: str, epoch: int = 1, saga: str = SAGA) -> Tale:
        participant = "q" if step == "c" else "p"
        summary: Any = None
        if kind in ("action", "compensation"):
            self.left[participant] += 1 if kind == "compensation" else -1
            summary = {"amount": 1, "left": self.left[participant]}
        line = Effect(0, participant, self.seq, kind, saga, step, SCOPE, epoch, summary)
        self.seq += 1
        self.lines.append(line)
        return self

    def done(self, *steps: str) -> Tale:
        for step in steps:
            self.send(step).effect("action", step)
        return self

    def undone(self, *steps: str) -> Tale:
        for step in steps:
            self.send(step, COMPENSATION).effect("compensation", step)
        return self

    def commit(self, seq: int, phase: str, epoch: int = 1) -> Tale:
        self.lines.append(Committed(0, "shard-0#1", SCOPE, epoch, ((SAGA, seq, phase),)))
        return self

    def grant(self, epoch: int) -> Tale:
        self.lines.append(Granted(0, "shard-0#2", SCOPE, epoch))
        return self

    def ends(self, phase: str | None, code: str = "", *remaining: str) -> Observation:
        """Return the history, with what is read, listed and counted in the end."""
        seen = self.seen
        seen.readings[SAGA] = None if phase is None else Reading(phase, code, remaining, True)
        if phase is not None:
            seen.listed[SAGA] = phase
            seen.counted[phase] = 1
        seen.stock = {name: (10, left) for name, left in self.left.items()}
        return seen
