"""Tells what this machine lacks for a fault, as a sentence for the report.

Costs: each question is answered once; mounting and making a namespace are tried out, for root
in a container may be allowed neither.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache

TRY_S_MAX = 20.0


@cache
def lacks_root() -> str:
    """Return why this process may not do what only root may; empty if it is root."""
    return "" if os.geteuid() == 0 else "it must be run as root"


@cache
def lacks_program(name: str) -> str:
    """Return that a program is not installed; empty if it is."""
    return "" if shutil.which(name) else f"{name} is not installed"


@cache
def lacks_tracing() -> str:
    """Return why no system call of another process can be made to fail."""
    return lacks_root() or lacks_program("strace")


@cache
def lacks_mounts() -> str:
    """Return why no small disk can be mounted."""
    if why := lacks_root() or lacks_program("mount"):
        return why
    with tempfile.TemporaryDirectory() as at:
        flaw = flaw_of(["mount", "-t", "tmpfs", "-o", "size=64k", "raysaga-try", at])
        if not flaw:
            flaw_of(["umount", at])
    return f"nothing can be mounted: {flaw}" if flaw else ""


@cache
def lacks_namespaces() -> str:
    """Return why no network of our own can be made."""
    if why := lacks_root() or lacks_program("ip"):
        return why
    name = f"raysaga-try-{os.getpid()}"
    flaw = flaw_of(["ip", "netns", "add", name])
    if not flaw:
        flaw = flaw_of(
            ["ip", "-n", name, "link", "add", "va", "type", "veth", "peer", "name", "vb"]
        )
        flaw_of(["ip", "netns", "del", name])
    return f"no network namespace can be made: {flaw}" if flaw else ""


def flaw_of(command: Sequence[str]) -> str:
    """Run a command that takes no time; return what went wrong, or nothing."""
    try:
        done = subprocess.run(  # noqa: S603 - commands of this module
            command, capture_output=True, text=True, check=False, timeout=TRY_S_MAX
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stderr.strip() or f"exit {done.returncode}") if done.returncode else ""
