"""Finds the compiled form of the modules that a saga's way leads through, where there is one.

`raysaga compile` translates them with mypyc (the compiler that mypy and black are
shipped with) into a folder beside this file. An import of one of them then takes
the compiled form, in every process, Ray's workers included.

Guarantees: compiled modules are taken all together or not at all, and only if they
were made from exactly the sources that are here: an edited source is never hidden by
an old translation.
Refuses: to be used where the environment has RAYSAGA_PURE, and where sources differ;
then Python's own form runs, which does the same more slowly.
Costs: reading and hashing the sources once a process, about five milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).parent

COMPILED_FOLDER = PACKAGE / "compiled_modules" / str(sysconfig.get_config_var("SOABI"))
"""Where they are, apart for each version and kind of Python."""

MANIFEST = "manifest.json"

SOURCE_FOLDERS = ("statemachines", "storage", "actors")
"""What the compiled modules were compiled against: they rely on each other's types."""


def source_hash() -> str:
    """Return the hash of all sources that compiled modules are made from or rely on."""
    digest = hashlib.sha256()
    for folder in SOURCE_FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            content = path.read_bytes()
            name = path.relative_to(PACKAGE).as_posix()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


class CompiledFinder(MetaPathFinder):
    """Gives the import system the compiled modules, before it looks for sources."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        """Serve `files`: the name of a module to its file in `folder`."""
        self._folder = folder
        self._files = files

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the import system's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return where `fullname` is, or None if it is not compiled."""
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, self._folder / file)


def use_compiled() -> None:
    """Have compiled modules imported from now on, if there are any and they may be used."""
    if os.environ.get("RAYSAGA_PURE"):
        return
    try:
        manifest = json.loads((COMPILED_FOLDER / MANIFEST).read_text())
    except FileNotFoundError:
        return
    if manifest["source_hash"] == source_hash():
        sys.meta_path.insert(0, CompiledFinder(COMPILED_FOLDER, manifest["files"]))


def is_compiled() -> bool:
    """Return whether this process runs compiled modules."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
