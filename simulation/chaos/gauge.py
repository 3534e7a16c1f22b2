"""Measures the processes of a run while it lasts: their memory, and their open files."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

import psutil

from raysaga.simulation.chaos.fault import now_ms
from raysaga.simulation.chaos.stage import Stage
from raysaga.storage.errors import DataFolderError

LOOK_EVERY_S = 2.0

FILES_MAX = 300
"""Files that an engine's process may have open; under load they have some sixty (measured)."""

ENGINE = ("shard/", "participant/", "supervisor", "saga/")


class Reading(NamedTuple):
    """One look at one process: memory in bytes, and open files."""

    at_ms: int
    role: str
    pid: int
    rss_bytes: int
    file_count: int


class Gauge:
    """What was measured.

    Attributes:
        readings: In the order of time.
    """

    def __init__(self, stage: Stage) -> None:
        self.readings: list[Reading] = []
        self._stage = stage

    async def watch(self) -> None:
        """Look at all processes for ever."""
        while True:
            # While the engine restarts, there may be no folder to look into.
            with suppress(DataFolderError):
                for role, pid in self._stage.roles().items():
                    with suppress(psutil.Error):
                        process = psutil.Process(pid)
                        rss, files = process.memory_info().rss, process.num_fds()
                        self.readings.append(Reading(now_ms(), role, pid, rss, files))
            await asyncio.sleep(LOOK_EVERY_S)

    def beyond_bounds(self) -> list[str]:
        """Return which of the engine's processes had more files open than they ever need."""
        found = {
            (reading.role, reading.pid): reading.file_count
            for reading in self.readings
            if reading.file_count > FILES_MAX and reading.role.startswith(ENGINE)
        }
        return [f"{role}, process {pid}, had {n} files open" for (role, pid), n in found.items()]

    def highest(self) -> dict[str, dict[str, int]]:
        """Return the most memory and files that a process of each kind had."""
        found: dict[str, dict[str, int]] = {}
        for reading in self.readings:
            most = found.setdefault(reading.role.split("/")[0], {"rss_bytes": 0, "files": 0})
            most["rss_bytes"] = max(most["rss_bytes"], reading.rss_bytes)
            most["files"] = max(most["files"], reading.file_count)
        return found
