"""Participants that only a bench has: one that counts, and services that hold calls back.

Guarantees: what they do goes through a ledger like any other's. A gate holds actions back
until the file `gate` is in the data folder, however often its process was replaced.
Costs: a call at a gate has a task of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.participant import Effects, Operation, Participant
from raysaga.actors.services.behaviour import CALM, SeededBehaviour
from raysaga.actors.services.serve import serve
from raysaga.statemachines.calls import ACTION, StepCall, StepReply

GATE_LOOK_S = 0.02
"""Pause between two looks for the file."""

GATED = "gated"
"""The counting participant whose calls are held back."""

COUNTING = "counting"
"""The one whose calls are not."""


class Gate(SeededBehaviour):
    """Holds every action back until a file is there."""

    def __init__(self, path: Path) -> None:
        super().__init__(CALM)
        self._path = path
        self._opened: asyncio.Task[None] | None = None

    @property
    def is_calm(self) -> bool:
        """Never: a server without a behaviour would not ask."""
        return False

    async def before(self, call: StepCall) -> StepReply | None:
        """Wait for the file."""
        if call.verb == ACTION:
            if self._opened is None:
                self._opened = asyncio.get_running_loop().create_task(self._wait())
            await asyncio.shield(self._opened)
        return None

    def _is_open(self) -> bool:
        return self._path.exists()

    async def _wait(self) -> None:
        while not self._is_open():  # noqa: ASYNC110 - it is opened by another process
            await asyncio.sleep(GATE_LOOK_S)


class Counting(Participant):
    """Counts how often it was asked, and takes a count back."""

    tables = ("counts",)

    def __init__(self, name: str, gate: Gate | None) -> None:
        self.name = name
        self._gate = gate
        self.operations = {
            "count": Operation(apply=_count, undo_name="discount", undo=_discount),
        }

    @property
    def behaviour(self) -> Gate | None:
        """The gate, if it has one."""
        return self._gate


def _count(effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:  # noqa: ARG001
    effects.put("counts", f"{call.saga_id}/{call.step}", 1)
    return {"counted": 1}


def _discount(
    effects: Effects,
    call: StepCall,
    applied: Mapping[str, Any] | None,
    context: Any,  # noqa: ARG001
) -> Mapping[str, Any]:
    effects.delete("counts", f"{call.saga_id}/{call.step}")
    return applied or {}


def serve_counting(name: str, settings: Mapping[str, Any]) -> Participant:
    """Return a counting participant; the one called `gated` has a gate."""
    return Counting(name, Gate(gate_of(settings["folder"])) if name == GATED else None)


def serve_gated(name: str, settings: Mapping[str, Any]) -> Participant:
    """Return one of the four services, with a gate."""
    service = serve(name, settings)
    service.trouble = Gate(gate_of(settings["folder"]))
    return service


def gate_of(folder: Path | str) -> Path:
    """Return the file that opens the gates of a data folder."""
    return Path(folder) / "gate"
