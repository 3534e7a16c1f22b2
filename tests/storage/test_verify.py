"""The verifier tells what is wrong with a story, whoever wrote it, and how far it got."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysaga.statemachines.events import GoGiven, StepCalled
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import Phase
from raysaga.storage import verify
from raysaga.storage.errors import DataFolderError
from raysaga.storage.journal import Journal
from raysaga.storage.memory_journal import MemoryJournal
from raysaga.storage.verify import verify_journal

from .stories import (
    DEFINITION_HASH,
    IDENTITY,
    NOW_MS,
    SCOPE,
    Story,
    prepare,
    write_completed,
)


@pytest.fixture
def memory() -> MemoryJournal:
    return MemoryJournal(IDENTITY)


def only_problem(journal: Journal) -> str:
    """Return the one thing that is wrong with the order "a"."""
    report = verify_journal(journal)
    assert not report.is_sound
    assert [problem.saga_id for problem in report.problems] == ["order:a"], report.problems
    return report.problems[0].detail


def test_an_empty_journal_is_sound(memory: MemoryJournal) -> None:
    report = verify_journal(memory)
    assert report.is_sound
    assert (report.saga_count, report.digest) == (0, "00" * 32)


def test_a_report_counts_what_was_read_and_progress_is_told(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    write_completed(memory, epoch, [f"k{i}" for i in range(600)])
    told: list[tuple[int, int]] = []
    report = verify_journal(memory, progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600), (600, 600)]
    assert (report.saga_count, report.record_count) == (600, 1_200)
    assert report.event_count == 600 * (2 + 8 + 1)
    assert report.phase_counts[Phase.COMPLETED] == 600


def test_events_that_the_tables_do_not_allow_are_a_problem(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    stranger = StepCalled(99, False, 1, NOW_MS)
    memory.commit(SCOPE, epoch, [story.accepted(), story.tell(Phase.RUNNING, (stranger,))])
    assert "no legal history" in only_problem(memory)


def test_a_phase_that_the_events_do_not_lead_to_is_a_problem(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    batch = [story.accepted(), story.tell(Phase.RUNNING, (GoGiven(NOW_MS),))]
    memory.commit(SCOPE, epoch, batch)
    assert "forward_only, and running is noted" in only_problem(memory)


def test_a_story_that_does_not_begin_with_its_acceptance_is_a_problem(
    memory: MemoryJournal,
) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    birth = story.accepted().birth
    story.entries.clear()
    memory.commit(SCOPE, epoch, [story.tell(Phase.RUNNING, (GoGiven(NOW_MS),), birth=birth)])
    assert "begin with its acceptance" in only_problem(memory)


def test_an_acceptance_that_tells_another_owner_is_a_problem(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    entry = Story("a", epoch=epoch).accepted()
    assert entry.birth is not None
    lie = entry._replace(birth=entry.birth._replace(fingerprint="another"))
    memory.commit(SCOPE, epoch, [lie])
    assert "is noted as" in only_problem(memory)


def test_an_epoch_that_goes_back_is_a_problem(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=5)
    first = story.accepted()
    story.epoch = epoch
    memory.commit(SCOPE, epoch, [first, story.retried()])
    assert "of epoch 1, after epoch 5" in only_problem(memory)


def test_a_record_under_another_number_is_a_problem(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    memory.commit(SCOPE, epoch, [story.accepted()])
    story.entries.append(story.entries[0])
    skipped = story.retried()._replace(seq=1)
    memory.commit(SCOPE, epoch, [skipped])
    assert "record 1 says that it is record 2" in only_problem(memory)


def test_a_record_whose_number_is_damaged_is_told_by_its_place(memory: MemoryJournal) -> None:
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    first, second = story.accepted(), story.retried()
    highest = 4  # where a record's number begins, after "RS", the version and a zero
    damaged = bytearray(second.record)
    damaged[highest] ^= 1
    memory.commit(SCOPE, epoch, [first, second._replace(record=bytes(damaged))])
    assert only_problem(memory) == "record 1: its CRC is wrong"


def test_a_definition_that_is_not_what_its_hash_says_is_a_problem(memory: MemoryJournal) -> None:
    epoch = memory.grant_epoch(SCOPE, "tests", NOW_MS)
    memory.put_definition(DEFINITION_HASH, order_saga.to_data() | {"version": 77})
    memory.put_definition("nonsense", {"name": "order"})
    write_completed(memory, epoch, [])
    details = " ".join(problem.detail for problem in verify_journal(memory).problems)
    assert "it names a definition that is" in details
    assert "a definition cannot be read" in details


def test_only_so_many_problems_are_listed_and_all_are_counted(
    memory: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "PROBLEMS_MAX", 2)
    epoch = prepare(memory)
    for key in "abc":
        entry = Story(key, epoch=epoch).accepted()
        memory.commit(SCOPE, epoch, [entry._replace(chain=bytes(16))])
    report = verify_journal(memory)
    assert (len(report.problems), report.problem_count) == (2, 3)


def test_a_saga_that_moves_while_it_is_looked_at_is_looked_at_again(
    memory: MemoryJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: commit the next record between each reading of the head and of the records."""
    epoch = prepare(memory)
    story = Story("a", epoch=epoch)
    memory.commit(SCOPE, epoch, [story.accepted()])
    next_records = [story.retried() for _ in range(20)]
    records = memory.records

    def commit_first(saga_id: str) -> list[bytes]:
        if next_records:
            memory.commit(SCOPE, epoch, [next_records.pop(0)])
        return records(story.saga_id)

    monkeypatch.setattr(memory, "records", commit_first)
    report = verify_journal(memory)
    assert report.is_sound, report.problems
    assert (report.record_count, report.phase_counts[Phase.RUNNING]) == (21, 1)


def test_a_journal_in_memory_has_no_backup(memory: MemoryJournal, tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="in memory has no backup"):
        memory.backup(tmp_path / "backup")
