"""The note of a data folder about its participants: what it keeps, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysaga.storage.errors import DataFolderError
from raysaga.storage.participants_note import (
    NOTE_FILE,
    ParticipantsNote,
    copy_note,
    read_note,
    write_note,
)

PARTICIPANTS = {"shop": "my_shop:serve"}


def test_what_is_noted_is_read_again_and_copied(tmp_path: Path) -> None:
    assert read_note(tmp_path) == ParticipantsNote({}, {})
    note = ParticipantsNote(PARTICIPANTS, {"shop": {"latency_ms": 3}, "seed": 7})
    write_note(tmp_path, note)
    assert read_note(tmp_path) == note
    (tmp_path / "copy").mkdir()
    copy_note(tmp_path, tmp_path / "copy")
    assert read_note(tmp_path / "copy") == note


def test_secrets_are_not_noted_but_where_they_are_kept_is(tmp_path: Path) -> None:
    """Nor is a stock, which is for an inventory without one."""
    settings = {
        "password": "x",
        "api_key": "x",
        "hosts": [{"name": "a", "ClientSecret": "x"}],
        "password_file": "/run/secret",
        "stock": {"default": 3},
    }
    write_note(tmp_path, ParticipantsNote(PARTICIPANTS, {"shop": settings}))
    kept = {"hosts": [{"name": "a"}], "password_file": "/run/secret"}
    assert read_note(tmp_path).services == {"shop": kept}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"participants": 1, "services": {}}'])
def test_a_damaged_note_is_refused_by_name_and_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTE_FILE).write_text(content)
    with pytest.raises(DataFolderError, match=NOTE_FILE):
        read_note(tmp_path)
    write_note(tmp_path, ParticipantsNote(PARTICIPANTS, {}))
    assert read_note(tmp_path).participants == PARTICIPANTS
