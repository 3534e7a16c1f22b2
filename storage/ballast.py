"""Keeps a place on the disk for what must still be written when the disk is full.

Guarantees: as long as the ballast is held, giving it up makes room for as many
bytes as it had. File systems that compress or copy on write may not keep this.
Costs: its size on the disk, from the start.
"""

from __future__ import annotations

import os
from pathlib import Path

from raysaga.storage.file_system import free_bytes

BALLAST = "ballast"
"""Name of the file."""


class Ballast:
    """A file of `size_bytes` in `folder` that holds nothing; of 0 bytes, there is no file.

    Attributes:
        is_held: Whether its place is taken.
    """

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self.is_held = self._take()

    def is_threatened(self) -> bool:
        """Return whether the disk has no more to give than the ballast, which is then kept.

        It was given up and cannot be taken again; or so little is free that it may be what
        a neighbour gave up.
        """
        if not self._size_bytes:
            return False
        if not self.is_held:
            self.is_held = self._take()
        return not self.is_held or free_bytes(self._folder) < self._size_bytes

    def give_up(self) -> bool:
        """Free its place; return whether there was anything to free."""
        self.is_held = False
        path = self._folder / BALLAST
        try:
            freed = path.stat().st_size > 0
            path.unlink()
        except OSError:
            return False
        return freed

    def _take(self) -> bool:
        if not self._size_bytes:
            return True
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
        try:
            with open(os.open(self._folder / BALLAST, flags, 0o600), "rb+") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                except OSError:
                    # A part of it is worth more to those who write now.
                    file.truncate(0)
                    return False
                file.truncate(self._size_bytes)
        except OSError:
            return False
        return True
