"""Runs the tables on `transitions`; the one place that imports it.

Guarantees: a move that is no row of a table raises and changes nothing.
Costs: under a microsecond a move, against 7.5 with the library's defaults: one
shared machine for each table, models that are never attached (attaching costs a
hundred microseconds and hangs methods on every saga), and triggers that only
change the state, since our rows have no callbacks to look for.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol, cast

from transitions import Event, Machine, MachineError, Transition

from raysaga.statemachines.tables import (
    PHASE_TRANSITIONS,
    STEP_TRANSITIONS,
    Phase,
    StepStatus,
)

# Two log lines for every move would cost more than the move.
logging.getLogger("transitions").setLevel(logging.WARNING)

IllegalMove = MachineError
"""Raised for a move that the table does not have."""


class HasPhase(Protocol):
    """A saga, as far as its machine is concerned."""

    phase: Phase


class HasStatus(Protocol):
    """A step of a saga, as far as its machine is concerned."""

    status: StepStatus


class _PlainEvent(Event):
    """A trigger whose rows have no callbacks or conditions, so it does not look for any.

    The library's way through a trigger makes an object, a closure and a dozen calls to
    find out that there is nothing to call; this looks the row up and takes it.
    """

    def __init__(self, name: str, machine: Machine) -> None:
        super().__init__(name, machine)
        self._attribute = machine.model_attribute
        self._destinations: dict[str, Any] = {}

    def add_transition(self, transition: Transition) -> None:
        """Take in a row; no row of ours is internal, so there always is a destination."""
        super().add_transition(transition)
        destination = self.machine.states[cast(str, transition.dest)].value
        self._destinations.setdefault(transition.source, destination)

    def trigger(self, model: Any, *_args: Any, **_kwargs: Any) -> bool:
        source = getattr(model, self._attribute)
        # Found by the member's own name; `Enum.name` is a descriptor and costs as much again.
        destination = self._destinations.get(source._name_)
        if destination is None:
            raise MachineError(f"no row leads {self.name} from {source.value}")
        setattr(model, self._attribute, destination)
        return True


class _PlainMachine(Machine):
    event_cls = _PlainEvent


def _build(
    states: type[Phase] | type[StepStatus],
    rows: tuple[tuple[str, Phase, Phase], ...] | tuple[tuple[str, StepStatus, StepStatus], ...],
    attribute: str,
) -> Machine:
    return _PlainMachine(
        model=None,
        states=states,
        transitions=[list(row) for row in rows],
        initial=next(iter(states)),
        # Off, or every state could be entered from anywhere by a `to_*` trigger.
        auto_transitions=False,
        model_attribute=attribute,
    )


_PHASES = _build(Phase, PHASE_TRANSITIONS, "phase")
_STATUSES = _build(StepStatus, STEP_TRANSITIONS, "status")


def move_saga(saga: HasPhase, trigger: str) -> None:
    """Move `saga.phase` along `trigger`.

    Raises:
        IllegalMove: If the table has no such row; the saga is unchanged.
    """
    _PHASES.events[trigger].trigger(saga)


def move_step(step: HasStatus, trigger: str) -> None:
    """Move `step.status` along `trigger`.

    Raises:
        IllegalMove: If the table has no such row; the step is unchanged.
    """
    _STATUSES.events[trigger].trigger(step)
