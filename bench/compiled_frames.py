"""Gives the frames of compiled modules the names that they have as sources.

A function that mypyc has compiled makes no frame of Python's; py-spy sees a symbol of the
shared library, which names the module and the function, and says from which library it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from raysaga.compiled import COMPILED_FOLDER, MANIFEST

_LIBRARY = "(raysaga__mypyc.so"
_SYMBOL = re.compile(r"CPyDef_(?P<module>\w+?)___(?P<function>\w+)")
_NATIVE = re.compile(r"\.so(\.|\)|:|$)|^0x|\(\[")


def compiled_sources() -> dict[str, str]:
    """Return the last name of each compiled module to the path of its source."""
    manifest = json.loads((COMPILED_FOLDER / MANIFEST).read_text())
    names = [name for name in manifest["files"] if "." in name]
    return {name.rpartition(".")[2]: name.replace(".", "/") + ".py" for name in names}


def as_sources(stack: Iterable[str], sources: Mapping[str, str]) -> tuple[str, ...]:
    """Return a stack of frames without native ones, compiled functions named as in Python.

    Args:
        stack: Root first, as py-spy tells it with `--native`.
        sources: From `compiled_sources`.
    """
    found: list[str] = []
    for frame in stack:
        if not _NATIVE.search(frame):
            found.append(frame)
            continue
        symbol = _SYMBOL.match(frame) if _LIBRARY in frame else None
        path = sources.get(symbol["module"]) if symbol is not None else None
        if symbol is not None and path is not None:
            found.append(f"{symbol['function']} ({path})")
    return tuple(found)
