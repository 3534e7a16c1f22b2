"""Writes several files as one: whole and in their places, or not at all.

Guarantees: a reader never sees a half-written file; after `commit` returned, contents and
names survive a power cut. The files are moved one after another, in the order in which
they were opened, so that the last one says that all are there.
Refuses: a place that is no plain file, two files in one place, a folder that is missing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from raysaga.api.orders_sources import OrdersFileError


def check_places(places: Sequence[Path], source: Path) -> None:
    """Refuse places that cannot be written, before time is spent on what goes there.

    Raises:
        OrdersFileError: A folder is missing, a place is taken by something that is no
            plain file, or a place is named twice or is the source itself.
    """
    taken = {source.resolve()}
    for place in places:
        if not place.parent.is_dir():
            raise OrdersFileError("its folder does not exist", str(place))
        if place.exists() and not place.is_file():
            raise OrdersFileError("exists and is not a plain file", str(place))
        if place.resolve() in taken:
            raise OrdersFileError("is named twice, or is the file to import", str(place))
        taken.add(place.resolve())


class StagedFiles:
    """Files that are written beside their places and moved there together.

    Use it in a `with` block; what was not committed at its end is removed. Only a killed
    process leaves something behind: hidden files that end in `.tmp`. A place that is a
    symbolic link keeps being one; the file that it leads to is replaced.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[TextIO, Path, Path]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file, staged_path, _ in self._staged:
            try:
                file.close()
            finally:
                staged_path.unlink(missing_ok=True)
        self._staged.clear()

    def open(self, place: Path) -> TextIO:
        """Open a new file that `commit` will move to the place.

        Raises:
            OSError: The folder cannot be written.
        """
        target = place.resolve()
        staged_path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        file = staged_path.open("x", encoding="utf-8", newline="\n")
        self._staged.append((file, staged_path, target))
        return file

    def commit(self) -> None:
        """Move all files to their places; on return they are on disk there.

        Raises:
            OSError: The disk is full or failing. If it is raised while files are being
                moved, some are in their places and whole, the others are as before.
        """
        for file, _, _ in self._staged:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for _, staged_path, target in self._staged:
            staged_path.replace(target)
        for folder in {target.parent for _, _, target in self._staged}:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._staged.clear()
