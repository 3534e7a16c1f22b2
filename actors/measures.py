"""Counts and times what happens to a host's sagas, from the events that move them.

Guarantees: whatever an event tells is counted once, by the host that decided it; what is
replayed is not. Times are what the journal will tell, in whole milliseconds.
Costs: under a microsecond an event. Nothing here grows with the number of sagas.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, cast

from raysaga.statemachines.events import (
    AttemptFailed,
    Event,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    StepRefused,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import Direction
from raysaga.statemachines.saga import Saga

BOUNDS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000)
"""Upper bounds of the buckets, closed; what took longer is in one more."""

BOUNDS_ENTRIES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
"""The same for the entries of a commit."""

_ENDS: dict[type[Any], str] = {
    SagaCompleted: "completed",
    SagaCompensated: "compensated",
    SagaParked: "parked",
}
_ANSWERS: dict[type[Any], tuple[str, str]] = {
    StepSucceeded: (Direction.ACTION.value, "succeeded"),
    StepRefused: (Direction.ACTION.value, "refused"),
    StepUndone: (Direction.COMPENSATION.value, "undone"),
}


class Histogram:
    """How often something took how long, or was how many."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[int, ...] = BOUNDS_MS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def note(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def told(self) -> dict[str, Any]:
        """Return it as plain values; counts are by bucket, not summed up."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum}


class Measures:
    """One host's counts since it started."""

    def __init__(self) -> None:
        self._sagas: dict[str, Histogram] = {}
        self._steps: dict[tuple[str, str, str, str], Histogram] = {}
        self._snapshot: int | None = None
        self._snapshot_since_ms = 0.0

    def snapshot_age_ms(self, snapshot: int | None, now_ms: float) -> float:
        """Return for how long `snapshot` has been the oldest in use, since it was first noted."""
        if snapshot != self._snapshot:
            self._snapshot, self._snapshot_since_ms = snapshot, now_ms
        return 0.0 if snapshot is None else now_ms - self._snapshot_since_ms

    def note(self, saga: Saga, events: Iterable[Event]) -> None:
        """Count what has just happened to `saga`, which stands after it."""
        for event in events:
            kind = type(event)
            if kind in _ANSWERS:
                answered = cast("StepSucceeded | StepRefused | StepUndone", event)
                self._step(saga, answered.step, *_ANSWERS[kind], event.at_ms)
            elif kind in _ENDS:
                self._saga(_ENDS[kind]).note(max(0, event.at_ms - saga.accepted_at_ms))
            elif isinstance(event, AttemptFailed):
                direction = Direction.COMPENSATION if event.undo else Direction.ACTION
                self._step(saga, event.step, direction.value, "failed", event.at_ms)

    def _saga(self, end: str) -> Histogram:
        found = self._sagas.get(end)
        if found is None:
            found = self._sagas[end] = Histogram()
        return found

    def _step(self, saga: Saga, i: int, direction: str, answer: str, at_ms: int) -> None:
        step = saga.definition.steps[i]
        key = (step.participant, step.name, direction, answer)
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = Histogram()
        found.note(max(0, at_ms - saga.steps[i].called_at_ms))

    def told(self) -> dict[str, Any]:
        """Return all of it as plain values.

        `{"bounds_ms", "sagas", "steps"}`: sagas has a row `{"outcome", "counts", "sum_ms"}`
        for each end, steps one `{"participant", "step", "direction", "result", "counts",
        "sum_ms"}` for each kind of answer. Counts are by bucket, not summed up.
        """
        return {
            "bounds_ms": list(BOUNDS_MS),
            "sagas": [
                {"outcome": end, "counts": list(h.counts), "sum_ms": h.sum}
                for end, h in self._sagas.items()
            ],
            "steps": [
                {
                    **dict(zip(("participant", "step", "direction", "result"), key, strict=True)),
                    "counts": list(h.counts),
                    "sum_ms": h.sum,
                }
                for key, h in self._steps.items()
            ],
        }
