"""Makes a service of the run misbehave for a while; see `services` for the ways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raysaga.simulation.chaos.tail import Tail
from raysaga.statemachines.calls import ACTION


class Trouble:
    """A trouble that is on.

    Attributes:
        calls: What reached the service, and what it answered, since it began.
    """

    def __init__(self, workplace: Path, service: str) -> None:
        self._bites = Tail(workplace / "trouble", f"{service}.bites")
        self.calls = CallLog(workplace, service)

    def bites(self) -> list[Any]:
        """Return `[at_ms, mode, saga_id, step, verb, attempt]` of each call that met it."""
        return self._bites.lines()


class CallLog:
    """What reached a service, and what it answered, from a moment on."""

    def __init__(self, workplace: Path, service: str) -> None:
        self._tail = Tail(workplace / "calls", f"{service}-*.jsonl")

    def arrived(self) -> list[list[Any]]:
        """Return `[at_ms, verb, saga_id, step, scope, epoch, attempt]` of each call."""
        return [line[1:] for line in self._tail.lines() if line[0] == "call"]

    def answered(self) -> list[list[Any]]:
        """Return what was answered.

        `[at_ms, verb, saga_id, step, epoch, attempt, outcome, code, stored, duplicate]` each.
        """
        return [line[1:] for line in self._tail.lines() if line[0] == "reply"]

    def repeated(self) -> int:
        """Return how many actions were no first attempts."""
        return sum(line[1] == ACTION and line[6] > 1 for line in self.arrived())

    def from_the_ledger(self) -> int:
        """Return how many answers had been given before."""
        return sum(bool(line[9]) for line in self.answered())


@asynccontextmanager
async def troubled(
    workplace: Path, service: str, what: Mapping[str, Any]
) -> AsyncIterator[Trouble]:
    """Have a service misbehave until the end of the block."""
    path = workplace / "trouble" / f"{service}.json"
    trouble = Trouble(workplace, service)
    made = path.with_suffix(".new")
    made.write_text(json.dumps(dict(what)))
    made.replace(path)
    try:
        yield trouble
    finally:
        path.unlink(missing_ok=True)
