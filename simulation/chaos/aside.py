"""A stage of its own beside the run's, for what would leave no truth to check there.

A damaged record, a truncated file or a clock that jumps makes the history of a whole run
unreadable. So the run's engine is stopped, the fault plays on a copy of its folder or on a new
one, and what was seen there is judged there; then the run goes on as if nothing had been.

Guarantees: nothing that happens aside reaches the run's folder, its callers or its ledgers.
Costs: a stop and a start of the run's engine, and a copy of its folder.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import audit_folder, verify_folder
from raysaga.simulation.chaos.stage import Stage

LEFT_OUT = ("ballast", "owner.json", "cluster.json", "lock", "log")
"""What a copy does without: notes about processes, and room."""

ENDS_MAX = 2_000
"""Sagas that are told of; some 200 microseconds each."""

TERMINAL = ("completed", "compensated")


@asynccontextmanager
async def aside(stage: Stage, name: str, *, copied: bool, **scenery: Any) -> AsyncIterator[Stage]:
    """Stop the engine, and give a stage that is not started yet; then start the engine again.

    Args:
        stage: The run's.
        name: Of the folder in the workplace; it is removed at the end.
        copied: Whether the new stage begins with what the run's folder holds, or with nothing.
        scenery: Changes to the run's scenery.
    """
    before, ran = stage.launch, stage.keeper is not None
    await stage.stop()
    try:
        other = Stage(stage.workplace / name, {**stage.scenery, **scenery}, stage.log)
        if copied:
            ignored = shutil.ignore_patterns(*LEFT_OUT)
            shutil.copytree(stage.folder, other.folder, ignore=ignored)
        try:
            yield other
        finally:
            await other.close()
            shutil.rmtree(other.workplace, ignore_errors=True)
    finally:
        if ran:
            await stage.start(before)


def ends_of(stage: Stage) -> dict[str, dict[str, Any]]:
    """Return what is told of the newest sagas that are over, by id; no engine may run."""
    with Archive.open(stage.folder) as archive:
        return {
            told.status["saga_id"]: told.status
            for told in islice(archive.sagas(), ENDS_MAX)
            if told.status["phase"] in TERMINAL
        }


def problems_of(stage: Stage) -> Iterator[str]:
    """Yield what verifying the folder finds wrong; no engine may run."""
    with Archive.open(stage.folder) as archive:
        for part in verify_folder(archive)["parts"]:
            yield from (f"{part['name']}: {problem}" for problem in part["problems"])


def flaws_of(stage: Stage) -> Iterator[str]:
    """Yield what verifying and auditing the folder find wrong; all sagas must have ended."""
    yield from problems_of(stage)
    with Archive.open(stage.folder) as archive:
        for check in audit_folder(archive).failed:
            yield from (f"{check.name}: {offender}" for offender in check.offenders)
