"""Random definitions of every valid shape, and the chance that random histories take."""

from __future__ import annotations

import random
from typing import Protocol

from raysaga.statemachines.definition import (
    CompensationPolicy,
    Durability,
    SagaDefinition,
    Step,
    StepKind,
)
from raysaga.statemachines.retry import RetryPolicy


class Chance(Protocol):
    """Where choices come from: a seeded generator, or hypothesis, which can shrink them."""

    def below(self, bound: int) -> int:
        """Return a number from 0 to `bound` - 1."""


class Seeded:
    """Chance from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def below(self, bound: int) -> int:
        return self._random.randrange(bound)


def one_in(chance: Chance, n: int) -> bool:
    """Return true once in `n` times; the last choice, so that shrinking says no."""
    return chance.below(n) == n - 1


def _policy(chance: Chance) -> RetryPolicy:
    return RetryPolicy(
        attempts_max=1 + chance.below(3), delay_ms_first=10, delay_ms_max=20 + chance.below(50)
    )


def _some(chance: Chance, names: list[str]) -> tuple[str, ...]:
    return tuple(name for name in names if chance.below(2))


def _sinks(steps: list[Step]) -> list[str]:
    """Return the steps that no other of `steps` waits for."""
    followed = {name for step in steps for name in step.after or ()}
    return [step.name for step in steps if step.name not in followed]


def _ancestors(steps: list[Step], after: tuple[str, ...]) -> list[Step]:
    by_name = {step.name: step for step in steps}
    found: dict[str, Step] = {}
    pending = list(after)
    while pending:
        step = by_name[pending.pop()]
        if step.name not in found:
            found[step.name] = step
            pending.extend(step.after or ())
    return [found[name] for name in sorted(found)]


def _step(
    chance: Chance, name: str, kind: StepKind, after: tuple[str, ...], made: list[Step]
) -> Step:
    usable = [step.name for step in _ancestors(made, after) if not step.best_effort]
    request = {"id": "input.id"}
    for source in usable:
        if one_in(chance, 4):
            request[source] = f"results.{source}.value"
    return Step(
        name=name,
        participant=f"p{chance.below(3)}",
        action="do",
        compensation="undo" if kind is StepKind.COMPENSATABLE else None,
        kind=kind,
        after=after,
        request=request if chance.below(4) else None if len(request) == 1 else request,
        retry=_policy(chance),
        compensation_retry=_policy(chance),
        best_effort=kind is not StepKind.PIVOT and one_in(chance, 5),
    )


def random_definition(chance: Chance) -> SagaDefinition:
    """Return a valid definition: branches, a pivot or none, steps without undo, all policies."""
    steps: list[Step] = []
    for i in range(chance.below(5)):
        names = [step.name for step in steps]
        # Half of all sagas' steps wait for the one before, as most do in life.
        after = tuple(names[-1:]) if chance.below(2) else _some(chance, names)
        steps.append(_step(chance, f"c{i}", StepKind.COMPENSATABLE, after, steps))
    ends = tuple(_sinks(steps))
    if one_in(chance, 2):
        steps.append(_step(chance, "pivot", StepKind.PIVOT, ends, steps))
        ends = ("pivot",)
    later: list[str] = []
    for i in range(chance.below(3) if steps else 1 + chance.below(2)):
        after = ends + _some(chance, later)
        steps.append(_step(chance, f"r{i}", StepKind.RETRIABLE, after, steps))
        later.append(f"r{i}")
    if one_in(chance, 3):
        # Where a step stands in the list must not matter: `after` says it all.
        steps = [steps.pop(chance.below(len(steps))) for _ in range(len(steps))]
    return SagaDefinition(
        name="random",
        steps=tuple(steps),
        deadline_ms=(None, None, 60, 400)[chance.below(4)],
        compensation_policy=tuple(CompensationPolicy)[chance.below(2)],
        durability=(
            Durability.PIPELINED,
            Durability.PIPELINED,
            Durability.STRICT,
            Durability.RELAXED,
        )[chance.below(4)],
    )
