"""Reads what the processes of an engine have used: processor time, memory, bytes written.

Guarantees: every process below this one is counted once, under the name of what it does;
`ray` is all that is Ray's own, `caller` this process.
Costs: a read of three files of `/proc` for each process; some milliseconds in all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What one process, or several of one name, have used since they began.

    Attributes:
        cpu_s: Seconds on a core, the system's included.
        written_bytes: What it had the system write, as that counts: where files are kept in large
            folios (Linux 6), a row of a page counts as up to a megabyte. See `disk_bytes`.
    """

    cpu_s: float
    written_bytes: int


Reading = Mapping[str, Used]


class Meter:
    """Knows the processes by name.

    Attributes:
        pids: Process id to name; of those that have one.
    """

    def __init__(self, pids: Mapping[int, str]) -> None:
        self.pids = dict(pids)

    def read(self) -> Reading:
        """Return what was used so far, by name."""
        found: dict[str, Used] = {}
        for process in self.processes():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    written = process.io_counters().write_bytes
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            name = self.name_of(process)
            before = found.get(name, Used(cpu_s=0.0, written_bytes=0))
            found[name] = Used(
                cpu_s=before.cpu_s + times.user + times.system,
                written_bytes=before.written_bytes + written,
            )
        return found

    def memory_mib(self) -> dict[str, float]:
        """Return the proportional set size by name."""
        found: dict[str, float] = {}
        for process in self.processes():
            try:
                size = process.memory_full_info().pss / MIB
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            name = self.name_of(process)
            found[name] = round(found.get(name, 0.0) + size, 1)
        return found

    def own_bytes(self, name: str) -> int:
        """Return the memory of the processes of one name that is nobody else's and no file's.

        Pages of a mapped file are not among them: they are the system's, which takes them
        back when it needs room.
        """
        total = 0
        for process in self.processes():
            if self.name_of(process) == name:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
                kib = re.search(r"^Pss_Anon: +(\d+) kB$", rollup, re.MULTILINE)
                assert kib is not None, "the system tells of anonymous memory since Linux 5.4"
                total += int(kib[1]) * 1024
        return total

    def name_of(self, process: psutil.Process) -> str:
        """Return what a process is."""
        if process.pid == psutil.Process().pid:
            return "caller"
        return self.pids.get(process.pid, "ray")

    def processes(self) -> list[psutil.Process]:
        """Return this process and all below it."""
        this = psutil.Process()
        return [this, *this.children(recursive=True)]


def disk_bytes(folder: Path) -> int | None:
    """Return what the disk below `folder` has written since it was started, for whomever.

    None if its file system is on no disk, as in memory or in layers.
    """
    device = folder.stat().st_dev
    told = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if not told.exists():
        return None
    # The seventh number is sectors written, of 512 bytes each whatever the disk's own are
    # (Documentation/block/stat.rst of Linux).
    return int(told.read_text(encoding="ascii").split()[6]) * 512


def disk_kib_per_saga(before: int | None, after: int | None, sagas: int) -> float | None:
    """Return what the disk has written meanwhile for each saga, in KiB; None if unknown."""
    if before is None or after is None:
        return None
    return round((after - before) / 1024 / sagas, 3)


def machine_busy_s() -> float:
    """Return how long the machine's cores have worked since it was started, all together."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def foreign_cores(busy_s: float, used: Reading, seconds: float) -> float:
    """Return how many cores worked for others meanwhile; a figure is as good as this is small.

    Args:
        busy_s: What all cores worked.
        used: What was used of that.
        seconds: In which time.
    """
    own_s = sum(one.cpu_s for one in used.values())
    return round(max(busy_s - own_s, 0.0) / seconds, 2)


def used_between(before: Reading, after: Reading) -> dict[str, Used]:
    """Return what was used between two readings, by name."""
    nothing = Used(cpu_s=0.0, written_bytes=0)
    return {
        name: Used(
            cpu_s=max(now.cpu_s - before.get(name, nothing).cpu_s, 0.0),
            written_bytes=max(now.written_bytes - before.get(name, nothing).written_bytes, 0),
        )
        for name, now in after.items()
    }
