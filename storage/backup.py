"""Copies a whole data folder in a consistent state, and puts a copy back.

Guarantees: a backup gets its name only after everything in it was verified; a
restored folder gets its own only after the same. What is restored begins at
epochs beyond all that were granted before, and says so, so that a host asks
every participant before it acts.
Refuses: a target that is not empty; a source that does not verify.
Costs: reading and writing everything once, and about 50 microseconds a saga.

The journals are copied first, the participants' environments after them: a
participant that knows more than the journal is asked and answers; one that knew
less would have forgotten effects that the journal counts on.

An engine may run meanwhile, but in other processes: LMDB allows one open
environment a process. A backup holds all data in the clear; keep it as you keep
the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raysaga.storage.data_folder import BACKUP_FILE, FOLDER_FILE, DataFolder
from raysaga.storage.errors import DataFolderError, RecordCorruptError
from raysaga.storage.file_system import appearing_folder, sync_folder, unusable, write_atomically
from raysaga.storage.journal import JournalIdentity
from raysaga.storage.ledger_reader import LedgerReader
from raysaga.storage.lmdb_environment import Environment, structure_flaws
from raysaga.storage.lmdb_journal import LmdbJournal, verify_copy
from raysaga.storage.outbox import bookmarks, write_bookmarks
from raysaga.storage.participants_note import copy_note
from raysaga.storage.settings import JournalSettings
from raysaga.storage.verify import VerifyReport

EPOCH_JUMP: Final = 1_000_000
"""Added to every epoch by a restore: far more owners than a folder has between two backups."""

DATA_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a backup holds, or what was restored from it.

    Attributes:
        path: Where it is.
        made_at_ms: When it was begun, Unix time.
        saga_count: Sagas of all shards.
        digests: By shard, the `VerifyReport.digest` of the copy.
        services: Participants whose environments it holds.
        size_bytes: Length of its files.
    """

    path: Path
    made_at_ms: int
    saga_count: int
    digests: tuple[str, ...]
    services: tuple[str, ...]
    size_bytes: int


def backup(
    folder: DataFolder,
    target: Path,
    *,
    progress: Callable[[str], None] | None = None,
) -> BackupReport:
    """Write a consistent copy of all of `folder` to `target`, a new or an empty folder.

    Args:
        folder: What to copy; its engine may run in other processes.
        target: Gets its name when everything is copied and verified.
        progress: Called with the name of each part before it is copied.

    Raises:
        DataFolderError: If the target cannot be used, or the copy does not verify.
        StorageFullError: If there is no space for it.
    """
    tell = progress or _tell_nobody
    made_at_ms = time.time_ns() // 1_000_000
    reports: list[VerifyReport] = []
    with appearing_folder(target) as temporary:
        copied = DataFolder(
            path=temporary,
            uuid=folder.uuid,
            shard_count=folder.shard_count,
            created_at_ms=folder.created_at_ms,
        )
        for shard in range(folder.shard_count):
            tell(f"shard {shard}")
            # A shard that was never started is an empty one.
            if (folder.journal_path(shard) / DATA_FILE).exists():
                told = bookmarks(folder.journal_path(shard))
                _copy_live(folder.journal_path(shard), copied.journal_path(shard))
                write_bookmarks(copied.journal_path(shard), told)
            else:
                copied.open_journal(shard, reserve_ratio=0.0).close()
            reports.append(_verify_shard(copied, shard))
        services = folder.service_names()
        for name in services:
            tell(f"service {name}")
            _copy_live(folder.service_path(name), copied.service_path(name))
            _check_service(copied.service_path(name))
        notes = {
            "made_at_ms": made_at_ms,
            "digests": [report.digest for report in reports],
            "services": services,
        }
        write_atomically(temporary / BACKUP_FILE, json.dumps(notes, indent=2).encode())
        copy_note(folder.path, temporary)
        write_atomically(temporary / FOLDER_FILE, folder.to_json())
        size_bytes = _size_bytes(temporary)
    return BackupReport(
        path=target,
        made_at_ms=made_at_ms,
        saga_count=sum(report.saga_count for report in reports),
        digests=tuple(report.digest for report in reports),
        services=tuple(services),
        size_bytes=size_bytes,
    )


def restore(
    source: Path,
    target: Path,
    *,
    progress: Callable[[str], None] | None = None,
) -> BackupReport:
    """Make the data folder `target` from the backup `source`, which is left as it is.

    The engine that used the original must not come back: stop it for good first.

    Raises:
        DataFolderError: If the source is no sound backup, or the target is not empty.
        StorageFullError: If there is no space for it.
    """
    tell = progress or _tell_nobody
    folder = DataFolder.of_backup(source)
    notes = _read_notes(source, folder.shard_count)
    saga_count = 0
    with appearing_folder(target) as temporary:
        restored = DataFolder(
            path=temporary,
            uuid=folder.uuid,
            shard_count=folder.shard_count,
            created_at_ms=folder.created_at_ms,
        )
        for shard, digest in enumerate(notes["digests"]):
            tell(f"shard {shard}")
            _copy_files(folder.journal_path(shard), restored.journal_path(shard))
            write_bookmarks(restored.journal_path(shard), bookmarks(folder.journal_path(shard)))
            report = _verify_shard(restored, shard)
            if report.digest != digest:
                raise DataFolderError(
                    str(source), f"shard {shard} is not what was backed up; use another backup"
                )
            saga_count += report.saga_count
            _jump(restored, shard)
        for name in notes["services"]:
            tell(f"service {name}")
            _copy_files(folder.service_path(name), restored.service_path(name))
            _check_service(restored.service_path(name))
        copy_note(folder.path, temporary)
        write_atomically(temporary / FOLDER_FILE, restored.to_json())
        size_bytes = _size_bytes(temporary)
    return BackupReport(
        path=target,
        made_at_ms=notes["made_at_ms"],
        saga_count=saga_count,
        digests=tuple(notes["digests"]),
        services=tuple(notes["services"]),
        size_bytes=size_bytes,
    )


def _tell_nobody(_part: str) -> None:
    pass


def _identity(folder: DataFolder, shard: int) -> JournalIdentity:
    return JournalIdentity(uuid=folder.uuid, shard=shard, shard_count=folder.shard_count)


def _verify_shard(folder: DataFolder, shard: int) -> VerifyReport:
    path = folder.journal_path(shard)
    _refuse_flaws(path)
    return verify_copy(path, _identity(folder, shard))


def _refuse_flaws(path: Path) -> None:
    flaws = structure_flaws(path)
    if flaws:
        raise DataFolderError(
            str(path), f"{len(flaws)} flaws in its pages, first {flaws[0]}; verify the original"
        )


def _copy_live(source: Path, target: Path) -> None:
    """Copy the last committed state of an environment that may be in use."""
    target.mkdir(mode=0o700, parents=True)
    settings = JournalSettings()
    # Only its pages matter, whatever its tables.
    environment = Environment.open(
        source,
        tables=(),
        map_bytes_first=settings.map_bytes_first,
        map_bytes_max=settings.map_bytes_max,
        reserve_bytes=0,
        read_only=True,
    )
    try:
        environment.copy_to(target)
    finally:
        environment.close()


def _copy_files(source: Path, target: Path) -> None:
    """Copy the data of an environment that nobody uses, and nothing else of it.

    Its lock file describes another machine's processes, and must not be believed.
    """
    target.mkdir(mode=0o700, parents=True)
    try:
        shutil.copyfile(source / DATA_FILE, target / DATA_FILE)
        (target / DATA_FILE).chmod(0o600)
        with (target / DATA_FILE).open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise unusable(source / DATA_FILE, error) from error
    sync_folder(target)


def _check_service(path: Path) -> None:
    """Check the pages of a participant's environment, and every row of its ledger."""
    _refuse_flaws(path)
    reader = LedgerReader.open(path)
    try:
        damaged = next(reader.damaged_rows(), None)
        if damaged is not None:
            raise DataFolderError(str(path), f"its ledger is damaged: {damaged}")
        for _ in reader.effects():
            pass
        reader.epochs()
    except RecordCorruptError as error:
        raise DataFolderError(str(path), f"its ledger is damaged: {error}") from error
    finally:
        reader.close()
        (path / LOCK_FILE).unlink(missing_ok=True)


def _jump(folder: DataFolder, shard: int) -> None:
    journal = LmdbJournal.open(
        folder.journal_path(shard), _identity(folder, shard), JournalSettings(reserve_ratio=0.0)
    )
    try:
        journal.mark_restored(time.time_ns() // 1_000_000, EPOCH_JUMP)
    finally:
        journal.close()
        (folder.journal_path(shard) / LOCK_FILE).unlink(missing_ok=True)


def _read_notes(source: Path, shard_count: int) -> dict[str, Any]:
    try:
        notes: dict[str, Any] = json.loads((source / BACKUP_FILE).read_bytes())
        digests = [str(digest) for digest in notes["digests"]]
        if len(digests) != shard_count:
            raise ValueError("digests")
        return {
            "made_at_ms": int(notes["made_at_ms"]),
            "digests": digests,
            "services": [str(name) for name in notes["services"]],
        }
    except OSError as error:
        raise unusable(source, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderError(
            str(source), f"its {BACKUP_FILE} is damaged; use another backup"
        ) from error


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
