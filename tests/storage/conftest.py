"""Journals to write to, each verified after the test that wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raysaga.storage.journal import Journal
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.memory_journal import MemoryJournal
from raysaga.storage.settings import JournalSettings
from raysaga.storage.verify import verify_journal

from .stories import IDENTITY

KIB = 1 << 10
CAP_BYTES = 2_048 * KIB
RESERVE_BYTES = 512 * KIB

MakeJournal = Callable[[], Journal]


def open_lmdb(path: Path, *, cap_bytes: int = 64 << 20, read_only: bool = False) -> LmdbJournal:
    """Open a small journal in `path`."""
    settings = JournalSettings(
        map_bytes_first=64 * KIB, map_bytes_max=cap_bytes, reserve_ratio=RESERVE_BYTES / cap_bytes
    )
    return LmdbJournal.open(path, IDENTITY, settings, read_only=read_only)


def expect_sound(journal: Journal) -> None:
    """Fail unless the journal verifies."""
    report = verify_journal(journal)
    assert report.is_sound, report.problems


@pytest.fixture(params=["memory", "lmdb"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Each kind of journal, large enough never to be full."""
    made: Journal = (
        MemoryJournal(IDENTITY) if request.param == "memory" else open_lmdb(tmp_path / "journal")
    )
    yield made
    expect_sound(made)
    made.close()


@pytest.fixture(params=["memory", "lmdb"])
def small_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Each kind of journal, with a cap of 2 MiB and a quarter of it in reserve."""
    made: Journal = (
        MemoryJournal(IDENTITY, cap_bytes=CAP_BYTES, reserve_bytes=RESERVE_BYTES)
        if request.param == "memory"
        else open_lmdb(tmp_path / "journal", cap_bytes=CAP_BYTES)
    )
    yield made
    expect_sound(made)
    made.close()
