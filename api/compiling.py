"""Compiles the modules that every saga passes through, with mypyc.

Guarantees: what was compiled before stays in use until the new is whole.
Refuses: to begin without a C compiler and mypy (the extra `compiled`).
Costs: a minute of a core, and three megabytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from raysaga.compiled import COMPILED_FOLDER, MANIFEST, PACKAGE, source_hash
from raysaga.statemachines.errors import SagaError

MODULES = (
    "statemachines.backward",
    "statemachines.calls",
    "statemachines.card_numbers",
    "statemachines.commands",
    "statemachines.decide",
    "statemachines.folding",
    "statemachines.forward",
    "statemachines.ids",
    "statemachines.inputs",
    "statemachines.restored",
    "statemachines.retry",
    "statemachines.saga",
    "statemachines.tables",
    "storage.codec",
    "storage.effects",
    "storage.journal",
    "storage.journal_rows",
    "storage.ledger",
    "storage.ledger_batch",
    "storage.ledger_row",
    "storage.ledger_table",
    "storage.lmdb_batch",
    "storage.lmdb_journal",
    "storage.lmdb_lookup",
    "storage.lmdb_transaction",
    "storage.staged_effects",
    "actors.breaker",
    "actors.bulk_release",
    "actors.call_stamp",
    "actors.clock",
    "actors.committer",
    "actors.desk",
    "actors.dispatcher",
    "actors.gateway",
    "actors.host",
    "actors.lane",
    "actors.ledger_writer",
    "actors.local_wire",
    "actors.measures",
    "actors.participant_server",
    "actors.questions",
    "actors.releaser",
    "actors.outcome",
    "actors.running",
    "actors.services.requests",
    "actors.story",
    "actors.timers",
    "actors.wire",
    "actors.write_behind",
)
"""What is compiled: where a profile of a loaded engine finds most of the time.

Not among them: values that are read back by the types of their fields (events, calls,
definitions), which mypyc forgets, and the machine of `transitions`, whose library asks
classes for more than compiled ones have; nor LMDB's transactions, for which the simulator
has its own.
"""

GROUP = "raysaga"
"""All modules are one library, so that calls between them are calls in C."""

_CONFIG = """
[mypy]
plugins = pydantic.mypy
ignore_missing_imports = True
follow_imports = silent
"""

_BUILD = f"""
import sys
from mypyc.build import mypycify
from setuptools import setup
build, *sources = sys.argv[1:]
extensions = mypycify(
    ["--config-file", build + "/mypy.ini", *sources],
    opt_level="3", debug_level="0", group_name="{GROUP}", target_dir=build + "/c",
)
where = ["--build-lib", build + "/lib", "--build-temp", build + "/tmp"]
setup(name="compiled", ext_modules=extensions, script_args=["--quiet", "build_ext", *where])
"""


class CannotCompileError(SagaError):
    """The modules could not be compiled here; the engine runs without."""

    code = "CANNOT_COMPILE"
    retryable = False


def compile_modules() -> int:
    """Compile what every saga passes through; return the number of modules.

    Raises:
        CannotCompileError: If there is no C compiler or no mypy, or they fail.
    """
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise CannotCompileError("mypyc is not installed: pip install 'raysaga[compiled]'")
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler.split()[0]) is None:
        raise CannotCompileError(f"there is no C compiler {compiler!r} here")
    hashed = source_hash()
    with tempfile.TemporaryDirectory() as build:
        (Path(build) / "mypy.ini").write_text(_CONFIG)
        sources = [f"raysaga/{name.replace('.', '/')}.py" for name in MODULES]
        run = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", _BUILD, build, *sources],
            cwd=PACKAGE.parent,
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise CannotCompileError("\n".join((run.stdout + run.stderr).splitlines()[-20:]))
        _keep(Path(build) / "lib", hashed)
    return len(MODULES)


def _keep(built: Path, hashed: str) -> None:
    """Put what was built where imports look for it; the manifest comes last."""
    files = {
        ".".join((*path.relative_to(built).parent.parts, path.name.split(".")[0])): path
        for path in built.rglob("*.so")
    }
    COMPILED_FOLDER.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        # Renamed into place: a process that has the old one mapped keeps it.
        fresh = COMPILED_FOLDER / f"{name}.so.new"
        shutil.copyfile(path, fresh)
        fresh.replace(COMPILED_FOLDER / f"{name}.so")
    manifest = {"source_hash": hashed, "files": {name: f"{name}.so" for name in files}}
    fresh = COMPILED_FOLDER / f"{MANIFEST}.new"
    fresh.write_text(json.dumps(manifest, indent=1))
    fresh.replace(COMPILED_FOLDER / MANIFEST)
