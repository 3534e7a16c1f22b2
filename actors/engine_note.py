"""Notes in a data folder which local Ray serves it, and which process started that Ray.

Guarantees: the note appears as a whole or not at all. A note whose driver is gone is not
believed: a killed driver may stay as a zombie where nobody reaps it, and Ray waits for
minutes for an address at which nobody listens, so both are looked at.
Costs: to believe it takes one connection on this machine.

There is no note where the engine runs on a cluster that somebody else started.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

import psutil

NOTE_NAME = "cluster.json"
"""In the data folder."""

CONNECT_TIMEOUT_S = 2.0
"""How long the local Ray of a folder may take to accept a connection."""


class EngineNote(NamedTuple):
    """What is noted.

    Attributes:
        address: Of the local Ray.
        pid: Its driver's process id.
        started_at: When that process began, Unix time in seconds; ids are used again.
    """

    address: str
    pid: int
    started_at: float


def write_note(folder: Path, address: str) -> None:
    """Note that this process has started the local Ray at `address` for `folder`."""
    note = EngineNote(address, os.getpid(), psutil.Process().create_time())
    temporary = folder / f"{NOTE_NAME}.{os.getpid()}"
    temporary.write_text(json.dumps(note._asdict()))
    temporary.replace(folder / NOTE_NAME)


def read_note(folder: Path) -> EngineNote | None:
    """Return the note, believed or not; None if there is none that can be read."""
    try:
        found = json.loads((folder / NOTE_NAME).read_bytes())
        return EngineNote(str(found["address"]), int(found["pid"]), float(found["started_at"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remove_note(folder: Path) -> None:
    """Take the note back."""
    (folder / NOTE_NAME).unlink(missing_ok=True)


def served_at(folder: Path) -> str | None:
    """Return the address of the local Ray that serves `folder`, if its driver still lives."""
    note = read_note(folder)
    if note is None:
        return None
    host, _, port = note.address.rpartition(":")
    try:
        process = psutil.Process(note.pid)
        if process.create_time() != note.started_at:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError, OverflowError, psutil.Error):
        return None
    return note.address
