"""Moves the data folder of a stage to a disk of its own that is small, and back.

Guarantees: when the `with` is left, by an error as well, the folder is on its old disk again
with everything in it, and the small disk is gone; the engine runs as before.
Costs: two stops and two starts of the engine, and two copies of the folder, while which the
conductor does nothing else, so that no cancel can leave one half done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.simulation.chaos.machine import flaw_of
from raysaga.simulation.chaos.stage import Stage

BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2))."""


@asynccontextmanager
async def on_a_small_disk(stage: Stage, spare_bytes: int) -> AsyncIterator[None]:
    """Stop the engine, give its folder a disk with `spare_bytes` to spare, and start it there.

    Raises:
        NeverHappenedError: If the disk cannot be mounted, or the engine does not start.
    """
    before, ran = stage.launch, stage.keeper is not None
    await stage.stop()
    try:
        _move_to_small_disk(stage.folder, spare_bytes)
        try:
            await stage.start(before)
            yield
        finally:
            await stage.stop()
            _move_back(stage.folder)
    finally:
        if ran:
            await stage.start(before)


def _kept(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.kept")


def _move_to_small_disk(folder: Path, spare_bytes: int) -> None:
    kept, size = _kept(folder), _bytes_in(folder) + spare_bytes
    folder.rename(kept)
    folder.mkdir(mode=0o700)
    options = f"size={size},mode=700"
    flaw = flaw_of(["mount", "-t", "tmpfs", "-o", options, "raysaga-chaos", str(folder)])
    if flaw:
        folder.rmdir()
        kept.rename(folder)
        raise NeverHappenedError(f"a small disk is mounted: {flaw}", 0.0)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    except OSError as error:
        flaw_of(["umount", "--lazy", str(folder)])
        folder.rmdir()
        kept.rename(folder)
        raise NeverHappenedError(f"the folder is copied: {error}", 0.0) from error


def _move_back(folder: Path) -> None:
    back = folder.with_name(f"{folder.name}.back")
    shutil.copytree(folder, back)
    flaw = flaw_of(["umount", "--lazy", str(folder)])
    if flaw:
        raise NeverHappenedError(f"the small disk is unmounted: {flaw}", 0.0)
    folder.rmdir()
    back.rename(folder)
    shutil.rmtree(_kept(folder))


def _bytes_in(folder: Path) -> int:
    blocks = 0
    for place, folders, names in os.walk(folder):
        blocks += sum((Path(place) / name).stat().st_blocks + 8 for name in (*folders, *names))
    return blocks * BLOCK_BYTES


def fill_up(path: Path) -> None:
    """Write a file that leaves nothing free on its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
