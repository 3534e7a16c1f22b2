"""Moves the data folder of a stage to a disk of its own that is small, and back.

Guarantees: when the `with` is left, by an error as well, the folder is on its old disk again
with everything in it, and the small disk is gone; the engine runs as before.
Costs: two stops and two starts of the engine, and two copies of the folder.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.simulation.chaos.stage import Stage

BLOCK_BYTES = 512
"""The unit of `st_blocks` (stat(2))."""


@asynccontextmanager
async def on_a_small_disk(stage: Stage, spare_bytes: int) -> AsyncIterator[None]:
    """Stop the engine, give its folder a disk with `spare_bytes` to spare, and start it there.

    Raises:
        NeverHappenedError: If the disk cannot be mounted, or the engine does not start.
    """
    before = stage.launch
    await stage.stop()
    try:
        async with _moved(stage.folder, spare_bytes):
            try:
                await stage.start(before)
                yield
            finally:
                await stage.stop()
    finally:
        await stage.start(before)


@asynccontextmanager
async def _moved(folder: Path, spare_bytes: int) -> AsyncIterator[None]:
    kept = folder.with_name(f"{folder.name}.kept")
    disk = folder.with_name(f"{folder.name}.disk")
    size = await asyncio.to_thread(_bytes_in, folder) + spare_bytes
    disk.mkdir()
    await command("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "raysaga-chaos", str(disk))
    try:
        await asyncio.to_thread(shutil.copytree, folder, disk, dirs_exist_ok=True)
        folder.rename(kept)
        await command("mount", "--move", str(disk), str(_made(folder)))
        try:
            yield
        finally:
            await command("mount", "--move", str(folder), str(disk))
            folder.rmdir()
            await asyncio.to_thread(shutil.copytree, disk, folder)
            await asyncio.to_thread(shutil.rmtree, kept)
    finally:
        await command("umount", "--lazy", str(disk))
        disk.rmdir()


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _bytes_in(folder: Path) -> int:
    found = folder.stat().st_blocks
    for place, _, names in os.walk(folder):
        found += sum((Path(place) / name).stat().st_blocks for name in names)
    return found * BLOCK_BYTES


async def command(*words: str) -> None:
    """Run a command that takes no time.

    Raises:
        NeverHappenedError: If it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *words, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise NeverHappenedError(f"{' '.join(words)}: {said.decode().strip()}", 0.0)


def fill_up(path: Path) -> None:
    """Write a file that leaves nothing free on its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
