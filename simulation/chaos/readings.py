"""Reads every saga of a run once more when all is at rest: what the checker takes for its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from raysaga.actors.errors import SagaNotFoundError
from raysaga.api.client import Sagas
from raysaga.simulation.chaos.diary import read_diaries
from raysaga.simulation.history import Asked, Reading

READ_AT_ONCE = 200

READINGS = "readings.json"
"""In the folder of the run: saga to reading, or null."""


async def last_readings(sagas: Sagas, folder: Path) -> int:
    """Ask the engine for every saga that was ever asked for, and keep what it says.

    Returns the number of sagas.
    """
    asked = {
        line.saga_id
        for line in read_diaries(folder / "callers")
        if isinstance(line, Asked) and line.operation == "submit"
    }
    found: dict[str, Reading | None] = {}
    waiting = iter(sorted(asked))
    while page := list(islice(waiting, READ_AT_ONCE)):
        found |= zip(page, await asyncio.gather(*(_read(sagas, s) for s in page)), strict=True)
    (folder / READINGS).write_text(json.dumps(found))
    return len(found)


async def _read(sagas: Sagas, saga_id: str) -> Reading | None:
    try:
        status = await sagas.status(saga_id)
    except SagaNotFoundError:
        return None
    return Reading(status["phase"], status["code"], tuple(status["remaining"]), True)


def read_readings(folder: Path) -> Iterator[tuple[str, Reading | None]]:
    """Yield what `last_readings` has kept."""
    kept = json.loads((folder / READINGS).read_bytes())
    for saga_id, fields in kept.items():
        if fields is None:
            yield saga_id, None
        else:
            phase, code, remaining, is_whole = fields
            yield saga_id, Reading(phase, code, tuple(remaining), is_whole)
