"""Small definitions of every shape, for proofs that take a second."""

from __future__ import annotations

from raysaga.statemachines.definition import CompensationPolicy, SagaDefinition, Step, StepKind


def step(name: str, *, undo: bool = True, **more: object) -> Step:
    """Return a step of a participant of its own, with an undo unless it is to have none."""
    fields: dict[str, object] = {"compensation": "undo" if undo else None, **more}
    if not undo:
        fields.setdefault("kind", StepKind.RETRIABLE)
    return Step(name=name, participant=f"p-{name}", action="do", **fields)  # type: ignore[arg-type]


def chain_saga(count: int, *, deadline_ms: int | None = None) -> SagaDefinition:
    """Return steps in a row, each with an undo."""
    steps = tuple(step(f"s{i}") for i in range(count))
    return SagaDefinition(name=f"chain-{count}", steps=steps, deadline_ms=deadline_ms)


def diamond_saga(policy: CompensationPolicy = CompensationPolicy.HALT) -> SagaDefinition:
    """Return `first`, then `left` and `right` side by side, then `last`, which uses `left`."""
    return SagaDefinition(
        name=f"diamond-{policy.value}",
        compensation_policy=policy,
        steps=(
            step("first"),
            step("left", after=("first",)),
            step("right", after=("first",)),
            step("last", after=("left", "right"), request={"made": "results.left.made"}),
        ),
    )


def pivot_saga(*, best_effort: bool = False) -> SagaDefinition:
    """Return one that can be undone, the pivot, and two side by side that must be done."""
    return SagaDefinition(
        name="pivot-and-more" if best_effort else "pivot",
        steps=(
            step("reserve"),
            step("charge", undo=False, kind=StepKind.PIVOT),
            step("ship", undo=False, after=("charge",), request={"paid": "results.charge.made"}),
            step("tell", undo=False, after=("charge",), best_effort=best_effort),
        ),
    )


def mail_saga() -> SagaDefinition:
    """Return two that can be undone, and mail, which cannot, without a pivot."""
    return SagaDefinition(
        name="mail",
        deadline_ms=1_000,
        steps=(step("reserve"), step("pay"), step("mail", undo=False)),
    )
