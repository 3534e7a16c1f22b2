"""Definitions of all shapes, for the host to be tried on."""

from __future__ import annotations

from raysaga.statemachines.definition import (
    CompensationPolicy,
    Durability,
    SagaDefinition,
    Step,
    StepKind,
)
from raysaga.statemachines.retry import RetryPolicy

QUICK = RetryPolicy(attempts_max=3, delay_ms_first=20, delay_ms_max=100)


def step(
    name: str,
    *,
    after: tuple[str, ...] | None = None,
    kind: StepKind = StepKind.COMPENSATABLE,
    uses: tuple[str, ...] = (),
    best_effort: bool = False,
    participant: str | None = None,
    timeout_ms: int = 1_000,
) -> Step:
    """Return a step with quick retries, at a participant of its own unless one is named."""
    request = {"id": "input.order_id", **{used: f"results.{used}.made" for used in uses}}
    return Step(
        name=name,
        participant=participant or f"p-{name}",
        action=f"do-{name}",
        compensation=f"undo-{name}" if kind is StepKind.COMPENSATABLE else None,
        kind=kind,
        after=after,
        request=request,
        retry=QUICK,
        compensation_retry=QUICK,
        timeout_ms=timeout_ms,
        best_effort=best_effort,
    )


def chain_saga(
    name: str, count: int, *, deadline_ms: int | None = None, participants: int = 3
) -> SagaDefinition:
    """Return steps `s0`, `s1`, … in a row, each with an undo."""
    steps = tuple(step(f"s{i}", participant=f"p{i % participants}") for i in range(count))
    return SagaDefinition(name=name, steps=steps, deadline_ms=deadline_ms)


def diamond_saga(
    name: str = "diamond", policy: CompensationPolicy = CompensationPolicy.HALT
) -> SagaDefinition:
    """Return `first`, then `left` and `right` side by side, then `last`."""
    return SagaDefinition(
        name=name,
        compensation_policy=policy,
        steps=(
            step("first", after=()),
            step("left", after=("first",)),
            step("right", after=("first",)),
            step("last", after=("left", "right"), uses=("left",)),
        ),
    )


def pivot_saga(name: str = "pivot", *, best_effort: bool = False) -> SagaDefinition:
    """Return two that can be undone, the pivot, and two side by side that must be done."""
    return SagaDefinition(
        name=name,
        deadline_ms=60_000,
        steps=(
            step("reserve"),
            step("check"),
            step("charge", kind=StepKind.PIVOT),
            step("ship", after=("charge",), kind=StepKind.RETRIABLE, uses=("charge",)),
            step("tell", after=("charge",), kind=StepKind.RETRIABLE, best_effort=best_effort),
        ),
    )


def with_durability(definition: SagaDefinition, durability: Durability) -> SagaDefinition:
    """Return the same with another durability."""
    return SagaDefinition(
        name=definition.name,
        steps=definition.steps,
        deadline_ms=definition.deadline_ms,
        compensation_policy=definition.compensation_policy,
        durability=durability,
    )
