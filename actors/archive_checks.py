"""Checks, copies and restores a data folder: what an operator does without an engine.

Guarantees: checking and backing up change nothing, and an engine may go on meanwhile.
Reports are plain data, for people and programs.
Costs: `verify_folder` some 50 microseconds a saga and 10 a page; `audit_folder` some 200
microseconds and a kilobyte of memory a saga; see `backup` for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.services.audit import AuditReport, SagaEnd, audit
from raysaga.actors.services.audit_books import SERVICES, open_ledgers, read_books
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import PARKED, TERMINAL
from raysaga.storage.backup import BackupReport, backup, restore
from raysaga.storage.data_folder import previous_owner
from raysaga.storage.errors import DataFolderError, RecordCorruptError
from raysaga.storage.ledger_reader import LedgerReader
from raysaga.storage.lmdb_environment import structure_flaws
from raysaga.storage.verify import verify_journal

PROBLEMS_MAX = 100
"""Problems named for each part; the rest is counted."""

Told = Callable[[str, int, int], None]
"""Called with the name of a part, how much of it is done, and how much there is."""


def verify_folder(archive: Archive, *, progress: Told | None = None) -> dict[str, Any]:
    """Return what is wrong with the folder's journals and ledgers, part by part.

    `{"is_sound", "parts": [{"name", "is_sound", "checked", "problem_count", "problems",
    "digest"}]}`; a part's digest is the journal's, empty for a ledger.

    Raises:
        NewerFormatError: If a later version wrote some of it.
    """
    parts = [*_verified_shards(archive, progress), *_verified_ledgers(archive, progress)]
    return {"is_sound": all(part["is_sound"] for part in parts), "parts": parts}


def _verified_shards(archive: Archive, progress: Told | None) -> Iterator[dict[str, Any]]:
    # Pages are read as bytes first: to map a damaged file can end the process.
    archive.close()
    for shard in range(archive.folder.shard_count):
        name, path = f"shard {shard}", archive.folder.journal_path(shard)
        if not (path / "data.mdb").exists():
            continue
        flaws = _page_flaws(path)
        if flaws:
            yield _part(name, 0, len(flaws), flaws)
            continue

        def tell(done: int, there_are: int, name: str = name) -> None:
            if progress is not None:
                progress(name, done, there_are)

        journal = archive.folder.open_journal(shard, read_only=True)
        try:
            report = verify_journal(journal, progress=tell)
        finally:
            journal.close()
        problems = [f"{problem.saga_id}: {problem.detail}" for problem in report.problems]
        yield _part(name, report.saga_count, report.problem_count, problems, report.digest)


def _verified_ledgers(archive: Archive, progress: Told | None) -> Iterator[dict[str, Any]]:
    for service in archive.folder.service_names():
        name, path = f"ledger of {service}", archive.folder.service_path(service)
        if progress is not None:
            progress(name, 0, 1)
        flaws = _page_flaws(path)
        if flaws:
            yield _part(name, 0, len(flaws), flaws)
            continue
        ledger = LedgerReader.open(path)
        checked = 0
        try:
            flaws = [str(error) for error in ledger.damaged_rows()]
            for _ in ledger.effects():
                checked += 1
            ledger.epochs()
        except RecordCorruptError as error:
            flaws.append(str(error))
        finally:
            ledger.close()
        yield _part(name, checked, len(flaws), flaws)


def _page_flaws(path: Path) -> list[str]:
    """Return what is wrong with the pages of an environment, if nobody writes to it now."""
    if previous_owner(path) is not None:
        return []
    try:
        return structure_flaws(path)
    except DataFolderError as error:
        return [error.message]


def _part(
    name: str, checked: int, problem_count: int, problems: list[str], digest: str = ""
) -> dict[str, Any]:
    return {
        "name": name,
        "is_sound": problem_count == 0,
        "checked": checked,
        "problem_count": problem_count,
        "problems": problems[:PROBLEMS_MAX],
        "digest": digest,
    }


def audit_folder(archive: Archive, *, progress: Told | None = None) -> AuditReport:
    """Return whether the books of the order saga, and of variants with its steps, are in order.

    Sagas under way make some checks fail, so let them end first.

    Raises:
        DataFolderError: If the folder does not hold the ledgers of the four services.
        RecordCorruptError: If a saga or a ledger cannot be read; `verify_folder` tells more.
    """
    missing = set(SERVICES) - set(archive.folder.service_names())
    if missing:
        raise DataFolderError(
            str(archive.folder.path),
            f"has no ledger of {', '.join(sorted(missing))}; there is nothing to audit yet",
        )
    ends = list(_ends(archive, progress))
    ledgers = open_ledgers({name: archive.folder.service_path(name) for name in SERVICES})
    try:
        books = read_books(ledgers)
    finally:
        for ledger in ledgers.values():
            ledger.close()
    return audit(books, ends)


def _ends(archive: Archive, progress: Told | None) -> Iterator[SagaEnd]:
    there_are = sum(archive.counts().values())
    for done, told in enumerate(archive.sagas(), 1):
        if _calls(told.definition) == _calls(order_saga):
            is_order = {"items", "payment"} <= told.input.keys()
            yield SagaEnd.of(told.status, told.input if is_order else None)
        if progress is not None and done % PROBLEMS_MAX == 0:
            progress("sagas", done, there_are)


def _calls(definition: SagaDefinition) -> list[tuple[str, str]]:
    """Return what tells a variant of the order saga, which the audit can judge as well."""
    return [(step.name, step.participant) for step in definition.steps]


def under_way(counts: Mapping[str, int]) -> int:
    """Return how many of the sagas that `Archive.counts` tells have neither ended nor parked."""
    return sum(count for phase, count in counts.items() if phase not in TERMINAL | PARKED)


def backup_folder(
    archive: Archive, target: Path, *, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Write a verified copy of the folder to `target`, a new or an empty folder.

    Raises:
        DataFolderError: If the target cannot be used, or the copy does not verify.
        StorageFullError: If there is no space for it.
    """
    # One process may open an environment once.
    archive.close()
    return _report(backup(archive.folder, target, progress=progress))


def restore_folder(
    source: Path, target: Path, *, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Make the data folder `target` of the backup `source`; see `restore`.

    Raises:
        DataFolderError: If the source is no sound backup, or the target is not empty.
        StorageFullError: If there is no space for it.
    """
    return _report(restore(source, target, progress=progress))


def _report(report: BackupReport) -> dict[str, Any]:
    return {**asdict(report), "path": str(report.path)}
