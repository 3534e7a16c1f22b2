"""Starts a PostgreSQL server of one's own, with its defaults, in a new folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysaga.bench.peers.errors import PeerMissingError

USER = "postgres"
"""Whom the server runs as when we are root, which it refuses."""


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, int]]:
    """Give the address of a fresh database, and the server's process id.

    Its settings are PostgreSQL's own: fsync and synchronous_commit are on.

    Raises:
        PeerMissingError: If no server is installed.
    """
    binaries = _binaries()
    port = _free_port()
    data = folder / "postgres"
    data.mkdir(parents=True)
    user = USER if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(data, user)
        for parent in (folder, folder.parent):
            parent.chmod(0o755)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": data}
    initdb = [binaries / "initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8"]
    subprocess.run(initdb, check=True, user=user, **quiet)  # type: ignore[call-overload]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={data}"
    control = [binaries / "pg_ctl", "-D", data, "-w"]
    subprocess.run([*control, "start", "-o", options], check=True, user=user, **quiet)  # type: ignore[call-overload]
    try:
        create = [binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "bench"]
        subprocess.run(create, check=True, **quiet)  # type: ignore[call-overload]
        pid = int((data / "postmaster.pid").read_text().split()[0])
        yield f"postgresql://bench@127.0.0.1:{port}/bench", pid
    finally:
        subprocess.run([*control, "stop", "-m", "immediate"], check=False, user=user, **quiet)  # type: ignore[call-overload]


def _binaries() -> Path:
    """Return the folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[-3])
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise PeerMissingError("PostgreSQL", "there is no server: apt-get install postgresql")
    return Path(on_path).resolve().parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
