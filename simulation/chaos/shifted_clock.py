"""Gives a Python process another wall clock, which can be put while it runs.

A copy of this file that is named `sitecustomize.py` and found on PYTHONPATH is imported by every
interpreter as it starts (docs.python.org, `site`); it looks at the file that RAYSAGA_CLOCK names.
The monotonic clock stays as it is, as when an operator sets the time. Ray's own parts in C++ see
the true time; libfaketime, which would shift those as well, breaks the sleeps of Python 3.11
(clock_nanosleep(2) of the monotonic clock with an absolute time).

Imports nothing of ours, for it runs before anything is there.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path

VARIABLE = "RAYSAGA_CLOCK"

_OFFSET = struct.Struct("<q")


def put(clock: Path, offset_s: int) -> None:
    """Put the clock of all who look at the file `clock`, counted from the true time."""
    with clock.open("r+b" if clock.exists() else "w+b") as file:
        file.write(_OFFSET.pack(offset_s))


def shift(clock: Path) -> None:
    """Have this process read the time by the file `clock` from now on."""
    with clock.open("rb") as file:
        seen = mmap.mmap(file.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
    true_s, true_ns = time.time, time.time_ns

    def shifted_s() -> float:
        return true_s() + float(_OFFSET.unpack(seen)[0])

    def shifted_ns() -> int:
        return true_ns() + int(_OFFSET.unpack(seen)[0]) * 1_000_000_000

    vars(time).update(time=shifted_s, time_ns=shifted_ns)


if __name__ == "sitecustomize" and VARIABLE in os.environ:
    shift(Path(os.environ[VARIABLE]))
