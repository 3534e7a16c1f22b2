"""Makes a participant by the function that an engine was told of, as `module:function`.

Guarantees: a name that leads nowhere is told together with the participant it was to make,
and with what to do about it.
Refuses: what cannot be imported, and what is no function there (`ParticipantNotFoundError`).
Costs: the import of the module. What that raises by itself is passed on as it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.errors import ParticipantNotFoundError
from raysaga.actors.participant import Participant

Maker = Callable[[str, Mapping[str, Any]], Participant]


def maker_of(name: str, target: str) -> Maker:
    """Return the function `module:function` that makes the participant `name`.

    Raises:
        ParticipantNotFoundError: If there is none.
    """
    module, _, function = target.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ParticipantNotFoundError(name, target, "that is not of the form MODULE:FUNCTION")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ImportError as error:
        raise ParticipantNotFoundError(name, target, str(error)) from error
    if not callable(found):
        raise ParticipantNotFoundError(name, target, f"{module} has no function {function!r}")
    made: Maker = found
    return made


def make_participant(
    target: str, name: str, folder: Path, settings: Mapping[str, Any]
) -> Participant:
    """Return the participant `name` of the data folder `folder`, made by `module:function`.

    Raises:
        ParticipantNotFoundError: If there is no such function.
    """
    return maker_of(name, target)(name, {**settings, "folder": str(folder)})
