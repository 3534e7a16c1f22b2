"""Every fault there is."""

from __future__ import annotations

from collections.abc import Iterable

from raysaga.simulation.chaos import (
    faults_callers,
    faults_clock,
    faults_damage,
    faults_disk,
    faults_network,
    faults_nodes,
    faults_processes,
    faults_room,
    faults_services,
    faults_wires,
)
from raysaga.simulation.chaos.fault import Fault
from raysaga.statemachines.errors import ValidationError

FAULTS: tuple[Fault, ...] = (
    *faults_processes.FAULTS,
    *faults_services.FAULTS,
    *faults_wires.FAULTS,
    *faults_callers.FAULTS,
    *faults_disk.FAULTS,
    *faults_nodes.FAULTS,
    *faults_network.FAULTS,
    *faults_room.FAULTS,
    *faults_damage.FAULTS,
    *faults_clock.FAULTS,
)


def chosen(names: Iterable[str]) -> list[Fault]:
    """Return the faults of these names; of none, all that this machine can play.

    Raises:
        ValidationError: If there is no such fault, or this machine lacks something for it.
    """
    by_name = {fault.name: fault for fault in FAULTS}
    wanted = list(names)
    if not wanted:
        return [fault for fault in FAULTS if not fault.missing()]
    for name in wanted:
        if name not in by_name:
            raise ValidationError(f"{name!r} is none of {', '.join(sorted(by_name))}", "--faults")
        if missing := by_name[name].missing():
            raise ValidationError(f"{name}: {missing}", "--faults")
    return [by_name[name] for name in wanted]
