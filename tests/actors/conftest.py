"""Fixtures of the tests of what moves: folders on a fast disk, worlds in virtual time."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

MEMORY_DISK = Path("/dev/shm")
"""Where a flush costs nothing, if the machine has it; what is tested here is not the disk."""


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that goes with the test; LMDB in it commits in microseconds."""
    if not MEMORY_DISK.is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="raysaga-", dir=MEMORY_DISK))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def quiet_log() -> Iterator[None]:
    """No log: thousands of sagas would say a great deal."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    yield
    structlog.configure(**before)


@pytest.fixture
def world_folder(fast_folder: Path, quiet_log: None) -> Path:
    """Where a world keeps its journal and its ledgers."""
    return fast_folder
