"""Notes in a data folder which participants its engine serves, and how they are set.

Guarantees: the note is the old one or the new one, and durable once it is written.
Refuses: to note what looks like a secret by its name, and the stock that a service is given
at first, which its own tables hold from then on.

The note is for who opens the folder without naming participants, such as the command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from raysaga.storage.errors import DataFolderError
from raysaga.storage.file_system import unusable, write_atomically

NOTE_FILE = "participants.json"
"""In the data folder, and in its backups."""

_NOT_NOTED = re.compile(
    r"^stock$|^(?!.*_(?:file|path)$).*(?:passw|secret|token|credential|api_?key)", re.IGNORECASE
)


class ParticipantsNote(NamedTuple):
    """What is noted.

    Attributes:
        participants: Name to `module:function`.
        services: Settings by the name that they have in the engine's plan.
    """

    participants: Mapping[str, str]
    services: Mapping[str, Any]


def read_note(folder: Path) -> ParticipantsNote:
    """Return what is noted in the data folder `folder`; nothing, if there is no note.

    Raises:
        DataFolderError: If the note cannot be read.
    """
    try:
        found = json.loads((folder / NOTE_FILE).read_bytes())
        participants = {str(name): str(path) for name, path in found["participants"].items()}
        return ParticipantsNote(participants, dict(found["services"]))
    except FileNotFoundError:
        return ParticipantsNote({}, {})
    except OSError as error:
        raise unusable(folder, error) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFolderError(
            str(folder), f"its {NOTE_FILE} is damaged; delete it, and name the participants once"
        ) from error


def write_note(folder: Path, note: ParticipantsNote) -> None:
    """Note what is to be known of the participants, unless it is noted already.

    Raises:
        DataFolderError: If it cannot be written.
    """
    noted = ParticipantsNote(dict(note.participants), _to_be_noted(note.services))
    try:
        if read_note(folder) == noted:
            return
    except DataFolderError:
        pass  # A damaged one is replaced.
    try:
        write_atomically(folder / NOTE_FILE, json.dumps(noted._asdict(), indent=2).encode())
    except OSError as error:
        raise unusable(folder, error) from error


def copy_note(source: Path, target: Path) -> None:
    """Copy the note, if there is one, from one folder to another."""
    if (source / NOTE_FILE).exists():
        write_atomically(target / NOTE_FILE, (source / NOTE_FILE).read_bytes())


def _to_be_noted(value: Any) -> Any:
    """Return plain data without what its name forbids to note."""
    if isinstance(value, Mapping):
        return {k: _to_be_noted(v) for k, v in value.items() if not _NOT_NOTED.search(str(k))}
    return [_to_be_noted(v) for v in value] if isinstance(value, list | tuple) else value
