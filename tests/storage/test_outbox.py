"""What a journal has to tell is found in order, once for each bookmark, and kept until then."""

from __future__ import annotations

from pathlib import Path

from raysaga.statemachines.events import SagaResumed
from raysaga.statemachines.tables import Phase
from raysaga.storage.backup import backup, restore
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.outbox import (
    PLACE_FIRST,
    bookmarks,
    end_place,
    ends_from,
    least_bookmark,
    read_bookmark,
    remove_bookmark,
    write_bookmark,
)

from .conftest import expect_sound, open_lmdb
from .stories import NOW_MS, SCOPE, Story, prepare, write_completed
from .test_backup import make_folder, open_shard
from .test_lmdb_journal import flip_a_bit_behind

LONG_AFTER_MS = NOW_MS + 10**9


def told(journal: LmdbJournal, *, rows_max: int = 1_000) -> list[tuple[str, int]]:
    """Return `(key, number of the record)` of all ends, page by page."""
    found: list[tuple[str, int]] = []
    place = PLACE_FIRST
    while place < end_place(journal.environment):
        page = ends_from(journal.environment, place, rows_max)
        assert page.place > place
        place = page.place
        found += [(end.head.saga_id.partition(":")[2], end.seq) for end in page.ends]
    return found


def parked_and_completed(journal: LmdbJournal, key: str, epoch: int) -> Story:
    story = Story(key, epoch=epoch)
    entries = [story.accepted(), story.parked()]
    entries.append(story.tell(Phase.RUNNING, (SagaResumed(story.at_ms, "ops", ""),)))
    entries.append(story.completed())
    for entry in entries:
        journal.commit(SCOPE, story.epoch, [entry])
    return story


def test_ends_come_in_the_order_of_commit_and_a_parking_before_the_end_after_it(
    tmp_path: Path,
) -> None:
    """Whatever the size of a page: what was told once must not hide what comes later."""
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    parked_and_completed(journal, "b", epoch)
    running = Story("c", epoch=epoch)
    journal.commit(SCOPE, epoch, [running.accepted()])
    write_completed(journal, epoch, ["d"])
    journal.commit(SCOPE, epoch, [running.parked()])
    expected = [("a", 1), ("b", 1), ("b", 3), ("d", 1), ("c", 1)]
    for rows_max in (1, 2, 3, 1_000):
        assert told(journal, rows_max=rows_max) == expected
    assert ends_from(journal.environment, end_place(journal.environment), 10).ends == []
    journal.close()


def test_what_was_not_told_is_not_pruned(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    stories = write_completed(journal, epoch, ["a", "b", "c"])
    journal.mark_released([story.saga_id for story in stories])
    write_bookmark(journal.environment.path, "late", 3)
    write_bookmark(journal.environment.path, "early", 5)
    assert journal.prune(LONG_AFTER_MS, 1_000) == 1
    assert told(journal) == [("b", 1), ("c", 1)]
    assert remove_bookmark(journal.environment.path, "late")
    assert not remove_bookmark(journal.environment.path, "late")
    assert journal.prune(LONG_AFTER_MS, 1_000) == 1
    assert told(journal) == [("c", 1)]
    write_bookmark(journal.environment.path, "early", end_place(journal.environment))
    assert journal.prune(LONG_AFTER_MS, 1_000) == 1
    expect_sound(journal)
    journal.close()


def test_a_bookmark_that_cannot_be_read_stands_at_the_beginning(tmp_path: Path) -> None:
    assert read_bookmark(tmp_path, "x") is None
    assert least_bookmark(tmp_path) is None
    for content in (b"", b"{}", b'{"place": "7"}', b"[]", b'{"place": -1}'):
        write_bookmark(tmp_path, "x", 7)
        assert read_bookmark(tmp_path, "x") == 7
        (path,) = tmp_path.iterdir()
        path.write_bytes(content)
        assert read_bookmark(tmp_path, "x") == least_bookmark(tmp_path) == PLACE_FIRST


def test_a_damaged_record_is_told_from_the_index_if_it_is_its_sagas_last(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    parked_and_completed(journal, "b", epoch)
    parked = Story("c", epoch=epoch)
    journal.commit(SCOPE, epoch, [parked.accepted(), parked.parked()])
    journal.close()
    assert flip_a_bit_behind(tmp_path / "j" / "data.mdb", b"no answer") >= 2
    journal = open_lmdb(tmp_path / "j")
    assert told(journal) == [("a", 1), ("b", 3), ("c", 1)]
    journal.close()


def test_a_backup_takes_its_bookmarks_along(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    write_completed(journal, prepare(journal), ["a", "b"])
    journal.close()
    write_bookmark(folder.journal_path(0), "outcomes", 3)
    backup(folder, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    assert bookmarks(tmp_path / "restored" / "shards" / "000") == {"outcomes": 3}
