"""Lays out the folder that an engine keeps everything in, and guards it.

    raysaga.json    what the folder is: format, uuid, number of shards
    lock            held by the one engine that uses the folder
    shards/000/     one journal for each shard
    services/NAME/  one environment for each participant kept here
    log/            what is told to people; may be deleted at any time

Guarantees: a folder is made in one step, and what it is never changes; its
uuid is part of each idempotency key.
Refuses: a folder of a newer format or another number of shards, somebody
else's, one that cannot be written to, or on a network file system, each in one
sentence (`DataFolderError`), before anything is touched.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from raysaga.storage.errors import DataFolderError
from raysaga.storage.file_system import (
    NETWORK_FILE_SYSTEMS,
    file_system_of,
    make_folder,
    unusable,
    write_atomically,
)
from raysaga.storage.journal import JournalIdentity
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.settings import JournalSettings

FOLDER_FORMAT_VERSION = 1
"""Version of this layout."""

SHARD_COUNT_DEFAULT = 1
"""Shards of a new folder; one writes some ten thousand sagas a second."""

SHARD_COUNT_MAX = 1_000
"""More shards than disks only cost flushes; three digits name their folders."""

FOLDER_FILE: Final = "raysaga.json"
BACKUP_FILE: Final = "backup.json"
LOCK_FILE: Final = "lock"
OWNER_FILE: Final = "owner.json"

_NOT_FOREIGN: Final = frozenset({LOCK_FILE, "log", "lost+found"})


class EngineLock:
    """The right to be the one engine of a folder; lost with the process, or by `close`."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def close(self) -> None:
        """Give it back; may be repeated."""
        self._file.close()

    def __enter__(self) -> EngineLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    """A folder that was found to be ours. See the head of this module.

    Attributes:
        path: Where it is; absolute.
        uuid: Made with the folder; a restored backup keeps it.
        shard_count: Fixed for ever: it decides which shard a saga belongs to.
        created_at_ms: When it was made, Unix time.
    """

    path: Path
    uuid: str
    shard_count: int
    created_at_ms: int

    @classmethod
    def open(cls, path: Path | str, *, shard_count: int | None, create: bool) -> DataFolder:
        """Return the folder at `path`; make it if it is missing or empty and `create` says so.

        Args:
            path: The folder.
            shard_count: What it must have; None takes what it has, or the default.
            create: Whether it is to be made, and must be writable.

        Raises:
            DataFolderError: If it cannot be used.
        """
        assert shard_count is None or 1 <= shard_count <= SHARD_COUNT_MAX
        path = Path(os.path.realpath(path))
        try:
            if path.exists() and not path.is_dir():
                raise DataFolderError(str(path), "is not a folder; name a folder to keep data in")
            if (path / BACKUP_FILE).exists():
                raise DataFolderError(
                    str(path), "is a backup; restore it into a new folder, and use that one"
                )
            found = _read(path)
            if found is None:
                if not create:
                    raise DataFolderError(
                        str(path), "holds no raysaga data; check the path, or start an engine on it"
                    )
                found = _make(path, SHARD_COUNT_DEFAULT if shard_count is None else shard_count)
            elif create and not os.access(path, os.W_OK):
                raise unusable(path, OSError(errno.EROFS, "not writable"))
        except OSError as error:
            raise unusable(path, error) from error
        if shard_count is not None and found.shard_count != shard_count:
            raise DataFolderError(
                str(path),
                f"has {found.shard_count} shards for ever, not {shard_count}; "
                "ask for that number, or name another folder",
            )
        return found

    @classmethod
    def of_backup(cls, path: Path) -> DataFolder:
        """Return what the backup in `path` is a copy of; only `backup.restore` does this.

        Raises:
            DataFolderError: If it is none.
        """
        try:
            found = _read(path)
        except OSError as error:
            raise unusable(path, error) from error
        if found is None or not (path / BACKUP_FILE).exists():
            raise DataFolderError(str(path), "is no backup; check the path")
        return found

    @property
    def log_path(self) -> Path:
        """The folder for logs; made by who writes one."""
        return self.path / "log"

    def journal_path(self, shard: int) -> Path:
        """Return the folder of a shard's journal."""
        assert 0 <= shard < self.shard_count
        return self.path / "shards" / f"{shard:03d}"

    def service_path(self, name: str) -> Path:
        """Return the folder of a participant's environment."""
        assert name and "/" not in name and not name.startswith(".")
        return self.path / "services" / name

    def service_names(self) -> list[str]:
        """Return the participants that have an environment here, sorted."""
        services = self.path / "services"
        if not services.is_dir():
            return []
        return sorted(p.name for p in services.iterdir() if (p / "data.mdb").exists())

    def open_journal(
        self,
        shard: int,
        *,
        map_bytes_first: int = JournalSettings().map_bytes_first,
        map_bytes_max: int = JournalSettings().map_bytes_max,
        reserve_ratio: float = JournalSettings().reserve_ratio,
        read_only: bool = False,
    ) -> LmdbJournal:
        """Open a shard's journal; made if it is missing, unless `read_only`.

        Raises:
            DataFolderError: If it cannot be used.
            NewerFormatError: If a later version wrote it.
        """
        return LmdbJournal.open(
            self.journal_path(shard),
            JournalIdentity(uuid=self.uuid, shard=shard, shard_count=self.shard_count),
            JournalSettings(
                map_bytes_first=map_bytes_first,
                map_bytes_max=map_bytes_max,
                reserve_ratio=reserve_ratio,
            ),
            read_only=read_only,
        )

    def lock_for_engine(self) -> EngineLock:
        """Return the right to be the one engine of this folder, to be kept while it runs.

        It ends with the process, however that ends.

        Raises:
            DataFolderError: If another process has it, by its pid.
        """
        return _locked(self.path / LOCK_FILE, str(self.path), "the engine")

    def lock_for_service(self, name: str) -> EngineLock:
        """Return the right to serve a participant outside an engine, as in `lock_for_engine`.

        Raises:
            DataFolderError: If another process has it, by its pid.
        """
        path = self.service_path(name)
        make_folder(path)
        return _locked(path / LOCK_FILE, str(path), "the runner")

    def lock_for_outbox(self, name: str) -> EngineLock:
        """Return the right to tell outcomes from the bookmark `name`, as in `lock_for_engine`.

        Raises:
            DataFolderError: If another process has it, by its pid.
        """
        return _locked(self.path / f"outbox-{name}.lock", f"outbox {name!r}", "the teller")

    def to_json(self) -> bytes:
        """Return the content of `raysaga.json`."""
        content = {
            "format_version": FOLDER_FORMAT_VERSION,
            "uuid": self.uuid,
            "shard_count": self.shard_count,
            "created_at_ms": self.created_at_ms,
        }
        return (json.dumps(content, indent=2) + "\n").encode()


def _locked(path: Path, shown: str, holder: str) -> EngineLock:
    """Return the lock on the file `path`; `shown` and `holder` are for the error."""
    try:
        file = open(  # noqa: SIM115 - held for as long as the lock is
            os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "r+", encoding="ascii"
        )
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
    except BlockingIOError as error:
        pid = file.read(32).strip() or "unknown"
        file.close()
        raise DataFolderError(
            shown, f"is in use by {holder} in process {pid}; stop that one first"
        ) from error
    except OSError as error:
        file.close()
        raise unusable(path, error) from error
    return EngineLock(file)


def record_owner(
    path: Path,
    pid: int | None = None,
    start_time: int | None = None,
    boot_id: str | None = None,
) -> None:
    """Note who owns the environment in `path`: this process, unless told otherwise.

    Raises:
        DataFolderError: If that cannot be written.
    """
    pid = os.getpid() if pid is None else pid
    owner = {
        "pid": pid,
        "start_time": process_start_time(pid) if start_time is None else start_time,
        "boot_id": current_boot_id() if boot_id is None else boot_id,
    }
    make_folder(path)
    try:
        write_atomically(path / OWNER_FILE, json.dumps(owner).encode())
    except OSError as error:
        raise unusable(path, error) from error


def previous_owner(path: Path) -> int | None:
    """Return the pid that was noted as owner of `path`, if that very process still runs.

    A pid is used again after a while, so the start time and the boot must agree as well:
    whoever gets a number here may kill it.
    """
    try:
        owner = json.loads((path / OWNER_FILE).read_bytes())
        pid, start_time = int(owner["pid"]), int(owner["start_time"])
        if owner["boot_id"] != current_boot_id():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        # Without a note there is nobody to kill; the epoch fences whoever is left.
        return None
    return pid if start_time and process_start_time(pid) == start_time else None


def process_start_time(pid: int) -> int:
    """Return when a process was started, in clock ticks since the boot; 0 if it is gone.

    A zombie, which holds nothing any more, is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    # The name, in parentheses, may hold anything; state is field 3, starttime 22 (proc(5)).
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def current_boot_id() -> str:
    """Return what tells this boot, and this pid namespace, from every other."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _read(path: Path) -> DataFolder | None:
    """Return the folder that is there, or None if there is none."""
    try:
        content = json.loads((path / FOLDER_FILE).read_bytes())
        version = content["format_version"]
        if version > FOLDER_FORMAT_VERSION:
            raise DataFolderError(
                str(path),
                f"has format {version}, and this version knows {FOLDER_FORMAT_VERSION}; "
                "upgrade raysaga",
            )
        _refuse_network(path)
        return DataFolder(
            path=path,
            uuid=str(uuid.UUID(content["uuid"])),
            shard_count=_shard_count(content["shard_count"]),
            created_at_ms=int(content["created_at_ms"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderError(
            str(path), f"its {FOLDER_FILE} is damaged; put back a copy of that file"
        ) from error


def _shard_count(found: Any) -> int:
    if type(found) is not int or not 1 <= found <= SHARD_COUNT_MAX:
        raise ValueError("shard_count")
    return found


def _make(path: Path, shard_count: int) -> DataFolder:
    make_folder(path)
    _refuse_network(path)
    foreign = [
        p.name
        for p in path.iterdir()
        if p.name not in _NOT_FOREIGN and not p.name.startswith(f".{FOLDER_FILE}.")
    ]
    if foreign:
        # Another engine may have made it since we looked.
        found = _read(path)
        if found is not None:
            return found
        raise DataFolderError(
            str(path), f"holds something else ({min(foreign)!r}); name an empty folder"
        )
    made = DataFolder(
        path=path,
        uuid=str(uuid.uuid4()),
        shard_count=shard_count,
        created_at_ms=time.time_ns() // 1_000_000,
    )
    try:
        write_atomically(path / FOLDER_FILE, made.to_json(), replace=False)
    except FileExistsError:
        found = _read(path)
        assert found is not None
        return found
    return made


def _refuse_network(path: Path) -> None:
    kind = file_system_of(path)
    if kind in NETWORK_FILE_SYSTEMS:
        raise DataFolderError(
            str(path), f"is on a network file system ({kind}); name a folder on a local disk"
        )
