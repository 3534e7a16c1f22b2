"""What is read of the machine while something is measured."""

from __future__ import annotations

import os
from pathlib import Path

from raysaga.bench.meter import disk_bytes, disk_kib_per_saga


def test_the_disk_counts_what_is_flushed_to_it_and_not_whole_folios(tmp_path: Path) -> None:
    """On a file system without a disk nothing is counted, and no figure is made up."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        before = disk_bytes(tmp_path)
        for page in range(16):
            os.pwrite(file.fileno(), os.urandom(4_096), page * 4_096)
            os.fdatasync(file.fileno())
    after = disk_bytes(tmp_path)
    if before is None or after is None:
        assert before is None and after is None
        assert disk_kib_per_saga(before, after, 1) is None
    else:
        assert after - before >= 16 * 4_096
        assert disk_kib_per_saga(before, after, 16) == round((after - before) / 1_024 / 16, 3)


def test_what_is_on_no_disk_has_no_figure() -> None:
    assert disk_bytes(Path("/proc")) is None
    assert disk_kib_per_saga(None, 5, 1) is None
