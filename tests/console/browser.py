"""Finds a Chromium, or installs Debian's; says by name what is missing where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""It must not look for anything but the page."""

INSTALLING = (
    ["apt-get", "update", "-qq"],
    ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
)


class NoBrowserError(Exception):
    """There is no Chromium, and none can be had."""


def chromium() -> str:
    """Return the path of a Chromium.

    Raises:
        NoBrowserError: If there is none and it cannot be installed.
    """
    found = _found()
    if found is not None:
        return found
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise NoBrowserError("no Chromium: install Debian's package 'chromium' (needs root)")
    for command in INSTALLING:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        if done.returncode != 0:
            said = done.stderr.strip()[-300:]
            raise NoBrowserError(f"no Chromium: {' '.join(command)} failed: {said}")
    found = _found()
    if found is None:
        raise NoBrowserError("no Chromium: the package 'chromium' brought none")
    return found


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)
