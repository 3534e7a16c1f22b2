"""Makes a home for each peer: a Python environment with its requirements, made once.

Guarantees: nothing is installed into the environment that raysaga runs in. A home is kept in
the user's cache folder, under a hash of what it was made of.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import raysaga.bench
from raysaga.bench.peers.errors import PeerMissingError

HERE = Path(__file__).parent


def home_of(adapter: str) -> Path:
    """Return the home of a peer, made if it is not there.

    Raises:
        PeerMissingError: If something cannot be installed.
    """
    files = [HERE / adapter / name for name in ("requirements.txt", "package.json")]
    content = b"".join(path.read_bytes() for path in files if path.exists())
    digest = hashlib.blake2b(content + sys.version.encode(), digest_size=6).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "raysaga-bench" / f"{adapter}-{digest}"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _make(adapter, home)
        (home / "complete").touch()
    return home


def _make(adapter: str, home: Path) -> None:
    requirements = HERE / adapter / "requirements.txt"
    _run(adapter, [sys.executable, "-m", "venv", str(home / "venv")], home)
    if requirements.read_text().strip():
        install = ["-m", "pip", "install", "--quiet", "--requirement", str(requirements)]
        _run(adapter, [str(home / "venv/bin/python"), *install], home)
    package = HERE / adapter / "package.json"
    if package.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise PeerMissingError(adapter, "there is no npm: apt-get install npm")
        shutil.copy(package, home / "package.json")
        _run(adapter, [npm, "install", "--silent", "--no-audit", "--no-fund"], home)
    # The adapters import themselves and the loops as `raysaga.bench`, and nothing else of ours.
    (home / "lib/raysaga").mkdir(parents=True)
    (home / "lib/raysaga/bench").symlink_to(Path(raysaga.bench.__path__[0]).resolve())


def _run(adapter: str, command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissingError(adapter, f"{command[0]}: {done.stderr.strip()[-500:]}")
