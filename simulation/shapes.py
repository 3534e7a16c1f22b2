"""Definitions of random shapes: rows and branches, with or without a pivot and what follows."""

from __future__ import annotations

import random
from functools import lru_cache

from raysaga.statemachines.definition import (
    CompensationPolicy,
    Durability,
    SagaDefinition,
    Step,
    StepKind,
)
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.retry import RetryPolicy

PARTICIPANTS = 3
"""Participants that the shapes share."""

SHAPES = 400
"""Different shapes; one is made once in a process, since checking it takes a millisecond."""

_QUICK = RetryPolicy(attempts_max=3, delay_ms_first=20, delay_ms_max=100)
_PATIENT = RetryPolicy(attempts_max=8, delay_ms_first=50, delay_ms_max=500)


@lru_cache(maxsize=SHAPES)
def shape(number: int) -> SagaDefinition:
    """Return the valid definition number `number`; 0 is the order saga with an amount."""
    number %= SHAPES
    return _order() if number == 0 else random_shape(random.Random(f"shape {number}"), number)


def random_shape(chance: random.Random, number: int) -> SagaDefinition:
    """Return a valid definition by chance."""
    steps: list[Step] = []

    def add(name: str, kind: StepKind, after: tuple[str, ...], best_effort: bool = False) -> None:
        known = [s.name for s in steps if not s.best_effort]
        uses = [n for n in known if n in after and chance.random() < 0.3]
        steps.append(
            Step(
                name=name,
                participant=f"p{chance.randrange(PARTICIPANTS)}",
                action=f"do-{name}",
                compensation=f"undo-{name}" if kind is StepKind.COMPENSATABLE else None,
                kind=kind,
                after=after,
                request={
                    "id": "input.order_id",
                    "amount": "input.amount",
                    **{used: f"results.{used}.made" for used in uses},
                },
                retry=chance.choice([_QUICK, _QUICK, _PATIENT]),
                compensation_retry=chance.choice([_QUICK, _PATIENT]),
                timeout_ms=chance.choice([200, 1_000]),
                best_effort=best_effort,
            )
        )

    for i in range(1 + chance.randrange(4)):
        names = [s.name for s in steps]
        in_a_row = chance.random() < 0.6
        after = names[-1:] if in_a_row else chance.sample(names, k=min(len(names), 2))
        add(f"c{i}", StepKind.COMPENSATABLE, tuple(after))
    followed = {name for s in steps for name in s.after or ()}
    ends = tuple(s.name for s in steps if s.name not in followed)
    if chance.random() < 0.5:
        add("p", StepKind.PIVOT, ends)
        ends = ("p",)
    if chance.random() < 0.5:
        for i in range(1 + chance.randrange(2)):
            add(f"r{i}", StepKind.RETRIABLE, ends, chance.random() < 0.3)
    return SagaDefinition(
        name=f"d{number}",
        steps=tuple(steps),
        deadline_ms=chance.choice([None, 3_000, 60_000]),
        compensation_policy=chance.choice([CompensationPolicy.HALT, *CompensationPolicy]),
        durability=chance.choice([Durability.PIPELINED, *Durability]),
    )


def _order() -> SagaDefinition:
    """Return the order saga's four steps, with requests that the simulated services take."""
    return SagaDefinition(
        name=order_saga.name,
        deadline_ms=order_saga.deadline_ms,
        steps=tuple(
            Step(
                name=step.name,
                participant=step.participant,
                action=step.action,
                compensation=step.compensation,
                request={"id": "input.order_id", "amount": "input.amount"},
                retry=_QUICK,
                compensation_retry=_PATIENT,
                timeout_ms=1_000,
            )
            for step in order_saga.steps
        ),
    )
