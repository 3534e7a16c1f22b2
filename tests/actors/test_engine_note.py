"""Proves when the note about a local Ray is believed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysaga.actors.engine_note import (
    NOTE_NAME,
    read_note,
    remove_note,
    served_at,
    write_note,
)


@pytest.fixture
def address() -> Iterator[str]:
    """Where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        yield f"{host}:{port}"


def changed(folder: Path, **facts: object) -> None:
    note = json.loads((folder / NOTE_NAME).read_bytes())
    (folder / NOTE_NAME).write_text(json.dumps({**note, **facts}))


def test_a_note_of_a_driver_that_lives_is_believed(tmp_path: Path, address: str) -> None:
    write_note(tmp_path, address)
    assert served_at(tmp_path) == address
    note = read_note(tmp_path)
    assert note is not None
    assert (note.address, note.pid) == (address, os.getpid())
    assert [entry.name for entry in tmp_path.iterdir()] == [NOTE_NAME]


@pytest.mark.parametrize(
    "facts",
    [{"started_at": 1.0}, {"pid": 2**22 + 1}, {"address": "nowhere"}, {"address": "127.0.0.1:1"}],
    ids=["another process has its id", "no such process", "no address", "nobody listens"],
)
def test_a_note_of_who_is_gone_is_not_believed(
    tmp_path: Path, address: str, facts: dict[str, object]
) -> None:
    write_note(tmp_path, address)
    changed(tmp_path, **facts)
    assert served_at(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "null", "[]", "{}", '{"address": 1, "pid": "x"}'])
def test_what_cannot_be_read_is_no_note(tmp_path: Path, content: str) -> None:
    (tmp_path / NOTE_NAME).write_text(content)
    assert read_note(tmp_path) is None
    assert served_at(tmp_path) is None


def test_a_note_can_be_taken_back_twice(tmp_path: Path, address: str) -> None:
    write_note(tmp_path, address)
    remove_note(tmp_path)
    remove_note(tmp_path)
    assert read_note(tmp_path) is None
