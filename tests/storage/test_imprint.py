"""What was accepted, lost, altered or put in since an imprint is told apart."""

from __future__ import annotations

import pytest

from raysaga.storage import imprint
from raysaga.storage.imprint import Growth, Imprint, growth_since, imprint_of
from raysaga.storage.memory_journal import MemoryJournal

from .stories import IDENTITY, NOW_MS, SCOPE, Story, prepare, write_completed

UNCHANGED = Growth(new_count=0, moved_count=0, gone_count=0, differences=())

KEYS = [f"k{i}" for i in range(10)]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imprint, "PAGE_SAGAS", 3)


@pytest.fixture
def kept() -> tuple[MemoryJournal, Story, Imprint]:
    """A journal of ten sagas that have ended and one that has not, and its imprint."""
    journal = MemoryJournal(IDENTITY)
    epoch = prepare(journal)
    write_completed(journal, epoch, KEYS)
    story = Story("open", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted(), story.progressed()])
    return journal, story, imprint_of(journal)


def another(keys: list[str], *, at_ms: int = 0) -> MemoryJournal:
    """Return a journal of the same owner with these sagas, ended."""
    journal = MemoryJournal(IDENTITY)
    epoch = prepare(journal)
    for key in keys:
        story = Story(key, epoch=epoch, at_ms=NOW_MS + at_ms)
        journal.commit(SCOPE, epoch, [story.accepted(), story.completed()])
    return journal


def test_a_journal_equals_its_own_imprint(kept: tuple[MemoryJournal, Story, Imprint]) -> None:
    journal, _, before = kept
    assert growth_since(before, journal) == UNCHANGED
    assert imprint_of(journal) == before
    assert before.saga_count == 11
    assert [page.saga_count for page in before.pages] == [3, 3, 3, 2]
    assert [saga.saga_id for saga in before.under_way] == ["order:open"]


def test_it_survives_being_written_as_plain_data(
    kept: tuple[MemoryJournal, Story, Imprint],
) -> None:
    assert Imprint.from_data(kept[2].to_data()) == kept[2]


def test_what_was_accepted_since_and_what_has_gone_on_is_growth(
    kept: tuple[MemoryJournal, Story, Imprint],
) -> None:
    journal, story, before = kept
    epoch = journal.epoch(SCOPE)
    journal.commit(SCOPE, epoch, [story.parked()])
    write_completed(journal, epoch, ["new-1", "new-2"])
    assert growth_since(before, journal) == Growth(
        new_count=2, moved_count=1, gone_count=0, differences=()
    )


def test_what_was_pruned_since_is_counted(kept: tuple[MemoryJournal, Story, Imprint]) -> None:
    """Whole pages, and the sagas at their ends, may be gone."""
    journal, _, before = kept
    journal.mark_released([head.saga_id for head in journal.unreleased(4)])
    assert journal.prune(NOW_MS * 2, 4) == 4
    assert growth_since(before, journal) == Growth(
        new_count=0, moved_count=0, gone_count=4, differences=()
    )


def test_an_empty_journal_has_lost_everything(
    kept: tuple[MemoryJournal, Story, Imprint],
) -> None:
    found = growth_since(kept[2], another([]))
    assert found.gone_count == 11
    assert any("order:k2 is gone" in what for what in found.differences)


def test_a_saga_that_is_missing_is_gone(kept: tuple[MemoryJournal, Story, Imprint]) -> None:
    before = imprint_of(another(KEYS))
    assert growth_since(before, another([k for k in KEYS if k != "k4"])).gone_count == 1


def test_a_saga_that_was_put_in_is_a_difference() -> None:
    before = imprint_of(another(KEYS))
    [what] = growth_since(before, another([*KEYS[:4], "stranger", *KEYS[4:]])).differences
    assert what == "1 sagas were put in between order:k3 and order:k5"


def test_a_saga_with_another_history_is_a_difference() -> None:
    """Each record of it is sound, and its id is the same."""
    before = imprint_of(another(KEYS))
    found = growth_since(before, another(KEYS, at_ms=1))
    assert len(found.differences) == len(before.pages)
    assert "are not what they were" in found.differences[0]


def test_one_that_was_under_way_and_now_has_another_past_is_a_difference(
    kept: tuple[MemoryJournal, Story, Imprint],
) -> None:
    journal = another(KEYS)
    epoch = journal.epoch(SCOPE)
    story = Story("open", epoch=epoch, at_ms=NOW_MS + 5)
    journal.commit(SCOPE, epoch, [story.accepted(), story.retried(), story.completed()])
    found = growth_since(kept[2], journal)
    assert found.moved_count == 1
    assert any("order:k9" in what and "open" in what for what in found.differences)
