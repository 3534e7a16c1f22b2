"""Small disks to fill up: a tmpfs of its own for a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(at: Path, size_bytes: int) -> Iterator[Path]:
    """Mount an empty file system of `size_bytes` at `at`, or skip where that is not allowed."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "raysaga-test", str(at)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def make_read_only(at: Path) -> None:
    """Mount the disk at `at` again, read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(at)], check=True)


def fill_up(path: Path) -> None:
    """Write a file that leaves nothing free on its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
