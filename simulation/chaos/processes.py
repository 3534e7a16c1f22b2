"""Finds the processes of a run by what they are, without asking any of them.

Guarantees: every process that descends from this one is found, orphans included: this process
takes them over (prctl(2), PR_SET_CHILD_SUBREAPER) and reaps them, which Ray needs: a raylet
that nobody reaps looks alive to its workers.
Costs: one look at the table of processes, some ten milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from raysaga.storage.data_folder import DataFolder, previous_owner

_PR_SET_CHILD_SUBREAPER = 36

_TITLES = {
    "ray::SupervisorShell": "supervisor",
    "ray::ShardShell": "shard",
    "ray::ServiceShell": "participant",
    "ray::SagaShell": "saga",
}
"""Beginnings of the titles that Ray gives to our actors' processes, and what they are."""

_PROGRAMS = {"raylet": "raylet", "gcs_server": "gcs"}

_RAYS = ("raylet", "gcs_server", "ray::")
"""Beginnings of the names of processes that Ray starts."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Bury Ray's dead processes that this one has adopted; others wait for their own children."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            is_rays = child.name().startswith(_RAYS)
            if is_rays and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def is_alive(pid: int) -> bool:
    """Return whether a process runs or is stopped; a zombie does neither."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def roles(folder: DataFolder) -> dict[str, int]:
    """Return process ids by role.

    `shard/0`, `participant/payment`, `supervisor`, `raylet/1`, `gcs/1`, and `saga/1` and so on
    for the actors of dedicated sagas. Only processes that descend from this one.
    """
    alive = dict(_ours())
    found = {}
    for role, path in _environments(folder):
        pid = previous_owner(path)
        if pid is not None and pid in alive:
            found[role] = pid
    for kind in ("supervisor", "saga", "raylet", "gcs"):
        pids = sorted(pid for pid, role in alive.items() if role == kind)
        numbered = {f"{kind}/{i}": pid for i, pid in enumerate(pids, 1)}
        found |= {kind: pids[-1]} if kind == "supervisor" and pids else numbered
    return found


def _ours() -> Iterator[tuple[int, str]]:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                continue
            title = (child.cmdline() or [""])[0]
            kind = _TITLES.get(title.split(".", 1)[0].split(" ", 1)[0], "")
            yield child.pid, kind or _PROGRAMS.get(child.name(), "")


def _environments(folder: DataFolder) -> Iterator[tuple[str, Path]]:
    for shard in range(folder.shard_count):
        yield f"shard/{shard}", folder.journal_path(shard)
    for name in folder.service_names():
        yield f"participant/{name}", folder.service_path(name)


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL processes of ours; one that is gone is no error."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def descendants() -> list[int]:
    """Return every process that descends from this one, the dead not included."""
    return [pid for pid, _ in _ours()]
