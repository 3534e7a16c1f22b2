"""A log file that starts anew when it is large, and keeps a bounded number of older ones.

Guarantees: a line is in the file before `write` returns, and is never split between two
files. Several processes may write to one path: whoever finds the file large turns it over,
one at a time, and the others follow with their next line but one.
Refuses nothing: what cannot be turned over grows on, and a line that there is no room for is
lost, for a log must not stop its process.
Costs: two system calls a line.

The files are `NAME`, `NAME.1`, `NAME.2`, … from the newest to the oldest.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from pathlib import Path

BYTES_MAX = 64 << 20
"""Of one file: some 300,000 lines, which a reader searches in a tenth of a second."""

FILES_MAX = 5
"""Files of one name, the newest included."""


class LogFile:
    """What a logger writes lines to. See the head of this module."""

    def __init__(
        self, path: Path, *, bytes_max: int = BYTES_MAX, files_max: int = FILES_MAX
    ) -> None:
        """Open `path` to go on where it ends.

        Args:
            path: The newest file.
            bytes_max: Size from which on it is turned over.
            files_max: How many are kept, the newest included; at least 2.

        Raises:
            OSError: If it cannot be opened.
        """
        assert bytes_max >= 1 and files_max >= 2
        self._path = path
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._file = self._opened()
        self._is_torn = False

    def write(self, line: str) -> int:
        """Append a line, which ends with its newline; return its length."""
        text = line.encode("utf-8", "backslashreplace")
        if self._is_torn:
            # Of the line before, only a part found room.
            text = b"\n" + text
        with contextlib.suppress(OSError):
            self._is_torn = self._file.write(text) < len(text)
            # The end of the file, whoever else has written to it.
            if self._file.tell() >= self._bytes_max:
                self._turn_over()
        return len(line)

    def flush(self) -> None:
        """Do nothing: what was written is in the file."""

    def _opened(self) -> io.FileIO:
        return io.FileIO(
            os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o600), "a"
        )

    def _turn_over(self) -> None:
        """Rename the files, unless another process just has, and begin a new one."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if self._is_newest():
                for number in range(self._files_max - 1, 0, -1):
                    with contextlib.suppress(FileNotFoundError):
                        os.replace(self._numbered(number - 1), self._numbered(number))
            newer = self._opened()
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._file.close()
        self._file = newer

    def _is_newest(self) -> bool:
        """Return whether the path still leads to the file that is open here."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
