"""Tells on which machine, and with which commit and command, a figure was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from typing import Any

import psutil

from raysaga.compiled import is_compiled


def surroundings() -> dict[str, Any]:
    """Return the commit, the machine and the command, for a line of results."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "--short", "HEAD") or "unknown",
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "*.py")),
        "compiled": is_compiled(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "command": "raysaga " + without_passwords(" ".join(sys.argv[1:])),
    }


def without_passwords(command: str) -> str:
    """Return a command as it may be written down: addresses of brokers hold passwords."""
    return re.sub(r"(://[^:/@\s]+):[^@\s]+@", r"\1:***@", command)


def _git(*arguments: str) -> str:
    """Return what git says of the sources; nothing where there is none."""
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - whichever git the user has
            cwd=os.path.dirname(__file__),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
