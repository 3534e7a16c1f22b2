"""Writes down what an audit has found, so that anybody can hold a data folder against it later.

Guarantees: a certificate tells what was counted and checked, by which versions, and the
heads of the journals' hash chains; a folder that has only grown since matches it, one that
was changed, cut short or exchanged does not, and is told how.
Refuses: to certify books that do not balance, or a journal that does not verify.
Costs: an audit, and a verification of the journals: some 250 microseconds a saga.

Its seal is a hash and no signature: it tells accidents. Keep the file where who could change
the folder cannot.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from raysaga.actors.archive import Archive
from raysaga.actors.services.audit import AuditReport
from raysaga.statemachines.errors import ValidationError
from raysaga.storage.errors import DataFolderError
from raysaga.storage.file_system import write_atomically
from raysaga.storage.imprint import Growth, Imprint, chained, growth_since, imprint_of
from raysaga.storage.journal import Journal
from raysaga.storage.verify import verify_journal

FORMAT_VERSION: Final = 1
"""Of certificates; one of another format is refused."""

CERTIFICATE_BYTES_MAX: Final = 64 << 20
"""Of a file that is read: tens of millions of sagas."""

PACKAGES: Final = ("raysaga", "lmdb", "ray", "transitions", "msgpack")
"""Whose versions a certificate tells."""

Told = Callable[[str, int, int], None]


def certify(
    archive: Archive, report: AuditReport, *, seed: int | None = None, progress: Told | None = None
) -> dict[str, Any]:
    """Return the certificate of a folder whose audit has just given `report`.

    Args:
        archive: Of the folder; it is closed meanwhile.
        report: What the audit found.
        seed: Of the run that has filled the folder, if there was one.
        progress: Called with the name of a part, how much of it is done, and how much there is.

    Raises:
        DataFolderError: If a journal does not verify.
    """
    assert report.is_clean, "books that do not balance are not certified"
    certificate = {
        "certificate": FORMAT_VERSION,
        "made_at_ms": time.time_ns() // 1_000_000,
        "folder": {"uuid": archive.folder.uuid, "shard_count": archive.folder.shard_count},
        "versions": {"python": platform.python_version(), **_versions()},
        "seed": seed,
        "counts": dict(report.counts),
        "notes": list(report.notes),
        "checks": [
            {"name": c.name, "question": c.question, "examined_count": c.examined_count}
            for c in report.checks
        ],
        "shards": [_shard(archive, shard, progress) for shard in range(archive.folder.shard_count)],
    }
    return certificate | {"seal": _seal(certificate)}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _shard(archive: Archive, shard: int, progress: Told | None) -> dict[str, Any]:
    with _journal(archive, shard) as journal:
        if journal is None:
            empty = Imprint(saga_count=0, chain_head=chained(()), pages=(), under_way=())
            return {"shard": shard, "record_count": 0, "event_count": 0, **empty.to_data()}

        def tell(done: int, there_are: int) -> None:
            if progress is not None:
                progress(f"shard {shard}", done, there_are)

        verified = verify_journal(journal, progress=tell)
        if not verified.is_sound:
            raise DataFolderError(
                str(archive.folder.path),
                f"is not certified: {verified.problem_count} problems in shard {shard}; "
                "raysaga verify tells them",
            )
        return {
            "shard": shard,
            "record_count": verified.record_count,
            "event_count": verified.event_count,
            **imprint_of(journal).to_data(),
        }


@contextmanager
def _journal(archive: Archive, shard: int) -> Iterator[Journal | None]:
    """Give a shard's journal; None if it was never started. One process may open it once."""
    archive.close()
    if not (archive.folder.journal_path(shard) / "data.mdb").exists():
        yield None
        return
    journal = archive.folder.open_journal(shard, read_only=True)
    try:
        yield journal
    finally:
        journal.close()


def write_certificate(path: Path, certificate: Mapping[str, Any]) -> None:
    """Write a certificate to a new file.

    Raises:
        ValidationError: If there is a file of that name.
        OSError: If it cannot be written.
    """
    text = json.dumps(certificate, indent=1) + "\n"
    try:
        write_atomically(path, text.encode(), replace=False)
    except FileExistsError as error:
        raise ValidationError(f"{path} exists; name a new file", "--certificate") from error


def read_certificate(path: Path) -> dict[str, Any]:
    """Return what `write_certificate` wrote.

    Raises:
        ValidationError: If it is no certificate, or was changed since.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(CERTIFICATE_BYTES_MAX + 1)
    try:
        found: dict[str, Any] = json.loads(text)
        is_known = found["certificate"] == FORMAT_VERSION
        seal = found.pop("seal")
        shards = [Imprint.from_data(_imprint(shard)) for shard in found["shards"]]
        is_whole = all(chained(shard.pages) == shard.chain_head for shard in shards)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValidationError(f"{path} is no certificate", "--verify-certificate") from error
    if not is_known:
        raise ValidationError(f"{path} is of another version", "--verify-certificate")
    if seal != _seal(found) or not is_whole:
        raise ValidationError(f"{path} was changed: its seal is broken", "--verify-certificate")
    return {**found, "seal": seal}


def check_certificate(
    archive: Archive, certificate: Mapping[str, Any], *, progress: Told | None = None
) -> dict[str, Any]:
    """Return whether the folder is the certified one, or has grown from it.

    `{"verdict", "holds", "made_at_ms", "certified_count", "new_count", "moved_count",
    "gone_count", "differences"}`; the verdict is `equal`, `grown`, `pruned` (some sagas are
    gone, by retention or not, so that nobody can tell) or `differs`. Only the first two hold.
    """
    differences: list[str] = []
    folder = archive.folder
    growths: list[Growth] = []
    certified_count = sum(shard["saga_count"] for shard in certificate["shards"])
    if certificate["folder"]["uuid"] != folder.uuid:
        differences.append(
            f"it is of another data folder: {certificate['folder']['uuid']}, not {folder.uuid}"
        )
    else:
        for told in certificate["shards"]:
            found = _growth(archive, told["shard"], Imprint.from_data(_imprint(told)), progress)
            growths.append(found)
            differences.extend(f"shard {told['shard']}: {what}" for what in found.differences)
    new_count = sum(growth.new_count for growth in growths)
    moved_count = sum(growth.moved_count for growth in growths)
    gone_count = sum(growth.gone_count for growth in growths)
    if differences:
        verdict = "differs"
    elif gone_count:
        verdict = "pruned"
    else:
        verdict = "grown" if new_count or moved_count else "equal"
    return {
        "verdict": verdict,
        "holds": verdict in ("equal", "grown"),
        "made_at_ms": certificate["made_at_ms"],
        "certified_count": certified_count,
        "new_count": new_count,
        "moved_count": moved_count,
        "gone_count": gone_count,
        "differences": differences,
    }


def _growth(archive: Archive, shard: int, imprint: Imprint, progress: Told | None) -> Growth:
    with _journal(archive, shard) as journal:
        if journal is None:
            lost = [f"its {imprint.saga_count} sagas are gone"] if imprint.saga_count else []
            return Growth(new_count=0, moved_count=0, gone_count=0, differences=tuple(lost))
        if progress is not None:
            progress(f"shard {shard}", 0, imprint.saga_count)
        verified = verify_journal(journal)
        growth = growth_since(imprint, journal)
    if verified.is_sound:
        return growth
    # What the indexes say is believed only if the records say the same.
    what = f"it does not verify: {verified.problem_count} problems"
    return Growth(
        new_count=growth.new_count,
        moved_count=growth.moved_count,
        gone_count=growth.gone_count,
        differences=(what, *growth.differences),
    )


def _imprint(shard: Mapping[str, Any]) -> dict[str, Any]:
    return {key: shard[key] for key in ("saga_count", "chain_head", "pages", "under_way")}


def _seal(certificate: Mapping[str, Any]) -> str:
    canonical = json.dumps(certificate, sort_keys=True, separators=(",", ":"))
    return blake2b(canonical.encode(), digest_size=32).hexdigest()
