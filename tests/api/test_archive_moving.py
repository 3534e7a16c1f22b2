"""Reading a folder beside an engine that moves on between any two readings."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from raysaga.actors.archive import Archive
from raysaga.statemachines.ids import SagaId
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import Head

ID = SagaId("order:o")


def tell_late(archive: Archive, monkeypatch: pytest.MonkeyPatch, *, looks: int, at: int) -> None:
    """Have the next so many looks at a saga's row tell of it as it was a record earlier."""
    journal = archive._journal_of(ID)
    assert journal is not None
    head, count = journal.head, itertools.count(1)

    def late(saga_id: SagaId) -> Head | None:
        now = head(saga_id)
        number = next(count)
        if now is None or number > looks:
            return now
        return now._replace(seq=now.seq - 1, changed_at_ms=at * number)

    monkeypatch.setattr(journal, "head", late)


def test_a_saga_that_moves_on_is_read_when_it_holds_still(
    keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.tell("o")
    keeper.close()
    with Archive.open(keeper.path) as archive:
        told = archive.status(ID)
        tell_late(archive, monkeypatch, looks=20, at=1)
        assert archive.status(ID) == told


def test_one_that_holds_still_and_does_not_fit_together_is_damaged(
    keeper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.tell("o")
    keeper.close()
    with Archive.open(keeper.path) as archive:
        tell_late(archive, monkeypatch, looks=20, at=0)
        with pytest.raises(RecordCorruptError):
            archive.history(ID)
