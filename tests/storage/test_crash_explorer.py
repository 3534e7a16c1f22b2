"""No power cut loses what was acknowledged; and the explorer sees it where one does."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .crash_explorer import COMMITS, build_recorder, explored, recorded

IMAGES_MIN = 500
"""Fewer would mean that the recorder has missed most of what LMDB does."""


@pytest.fixture(scope="module")
def memory_folder() -> Iterator[Path]:
    """A folder in memory, where waiting for the disk costs nothing."""
    at = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=at if at.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def recorder(memory_folder: Path) -> Path:
    try:
        return build_recorder(memory_folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the recorder needs a C compiler: {error}")


def log_of(recorder: Path, folder: Path, flag: str = "") -> Path:
    folder.mkdir()
    return recorded(recorder, folder, flag)


@pytest.mark.parametrize("seed", range(4))
def test_no_power_cut_loses_what_was_acknowledged(
    recorder: Path, memory_folder: Path, seed: int
) -> None:
    """Every image holds what was acknowledged, or that and the commit under way, and verifies."""
    log = log_of(recorder, memory_folder / f"whole{seed}")
    found = explored(log, memory_folder / f"whole{seed}-image", seed)
    assert not found.died, found.died
    assert found.flaws == []
    assert found.image_count >= IMAGES_MIN
    assert found.ack_count > COMMITS
    # Else no image was cut between the last write of a commit and its acknowledgement.
    assert found.ahead_count > 0


@pytest.mark.parametrize("flag", ["sync", "metasync"])
def test_without_waiting_for_the_disk_it_is_seen_to_lose(
    recorder: Path, memory_folder: Path, flag: str
) -> None:
    """The same journal with one of LMDB's safeguards off, which we never switch off."""
    log = log_of(recorder, memory_folder / flag, flag)
    found = explored(log, memory_folder / f"{flag}-image", 1)
    assert found.flaws or found.died


def test_a_meta_page_that_is_written_first_is_seen_to_lose(
    recorder: Path, memory_folder: Path
) -> None:
    """The same writes in another order."""
    log = log_of(recorder, memory_folder / "turned")
    found = explored(log, memory_folder / "turned-image", 1, turned=True)
    assert found.flaws or found.died
