"""A journal on disk keeps its word when processes race, die, or the disk lies."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import Phase
from raysaga.storage import journal_rows as rows
from raysaga.storage.errors import (
    DataFolderError,
    NewerFormatError,
    RecordCorruptError,
    StaleEpochError,
    StorageFullError,
)
from raysaga.storage.journal import HeadFilter, JournalIdentity
from raysaga.storage.journal_rows import NUMBER, TIME_AND_NUMBER
from raysaga.storage.lmdb_environment import WriteTransaction
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.lmdb_lookup import CLOCK_BACK_MS_MAX
from raysaga.storage.settings import JournalSettings
from raysaga.storage.verify import verify_journal

from .children import running_child
from .conftest import expect_sound, open_lmdb
from .disks import fill_up, make_read_only, small_disk
from .stories import IDENTITY, NOW_MS, OTHER_SCOPE, SCOPE, Story, prepare, write_completed

MIB = 1 << 20


def test_a_journal_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a", "b"])
    running = Story("c", epoch=epoch)
    journal.commit(SCOPE, epoch, [running.accepted(due_at_ms=NOW_MS + 5)])
    digest = verify_journal(journal).digest
    journal.close()
    journal = open_lmdb(tmp_path / "j")
    assert verify_journal(journal).digest == digest
    assert journal.epoch(SCOPE) == epoch
    assert [head.saga_id for head in journal.active()] == [running.saga_id]
    assert journal.counts()[Phase.COMPLETED] == 2
    journal.commit(SCOPE, epoch, [running.completed()])
    expect_sound(journal)
    journal.close()


def test_two_processes_that_own_a_scope_in_turn_refuse_each_others_older_epoch(
    tmp_path: Path,
) -> None:
    """Method: two incarnations of one host, each in a process of its own, take turns."""
    journal = open_lmdb(tmp_path / "j")
    ours = prepare(journal)
    story = Story("a", epoch=ours)
    journal.commit(SCOPE, ours, [story.accepted()])
    with running_child(tmp_path / "j", "obey") as child:
        assert child.hear() == "ready"
        assert child.ask("grant") == "2"
        with pytest.raises(StaleEpochError):
            journal.commit(SCOPE, ours, [story.completed()])
        story.entries.pop()
        assert child.ask("begin b") == "ok"
        again = journal.grant_epoch(SCOPE, "third", NOW_MS)
        assert again == 3
        assert child.ask("finish") == "FENCED"
        assert child.ask("begin c") == "FENCED"
        story.epoch = again
        journal.commit(SCOPE, again, [story.completed()])
        # The child's saga is ours now, and we learn of it from the disk.
        assert [head.saga_id for head in journal.active()] == ["order:b"]
    assert journal.key_record(SagaId("order:c")) is None
    expect_sound(journal)
    journal.close()


def test_a_shard_and_a_dedicated_saga_write_to_one_journal_side_by_side(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    journal.commit(SCOPE, epoch, [Story("dedicated", scope=OTHER_SCOPE).accepted()])
    with running_child(tmp_path / "j", "obey") as child:
        assert child.hear() == "ready"
        assert child.ask("own") == "1"
        for i in range(5):
            write_completed(journal, epoch, [f"k{i}"])
            assert child.ask("progress") == "ok"
    assert len(journal.records(SagaId("order:dedicated"))) == 6
    assert journal.counts()[Phase.COMPLETED] == 5
    expect_sound(journal)
    journal.close()


def test_what_another_process_makes_of_the_map_is_followed(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    with running_child(tmp_path / "j", "obey") as child:
        assert child.hear() == "ready"
        assert child.ask("grant") == "2"
        assert child.ask("grow") == "ok"
        assert journal.usage().size > MIB
        assert len(journal.heads(HeadFilter(), limit=1_000)) == 201
        assert child.ask("begin more") == "ok"
        epoch = journal.grant_epoch(SCOPE, "parent", NOW_MS)
        write_completed(journal, epoch, ["b"])
    expect_sound(journal)
    journal.close()


def test_a_process_killed_while_it_writes_loses_nothing_that_it_told(tmp_path: Path) -> None:
    """Method: kill -9 a writer in its loop, four times, and look for all it told of.

    Where the kill falls varies; whatever was told must be there, wherever it fell.
    """
    told: dict[str, str] = {}
    for run in range(4):
        with running_child(tmp_path / "j", f"run{run}") as child:
            assert child.hear() == "ready"
            for _ in range(30 + 7 * run):
                word, *ids = child.hear().split()
                told.update(dict.fromkeys(ids, word))
            child.process.kill()
            rest, _ = child.process.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                word, *ids = line.split()
                told.update(dict.fromkeys(ids, word))
        journal = open_lmdb(tmp_path / "j")
        expect_sound(journal)
        for saga_id, word in told.items():
            head = journal.head(SagaId(saga_id))
            assert head is not None, saga_id
            assert word == "began" or head.phase is Phase.COMPLETED
        journal.close()
    assert len(told) > 200


def test_an_error_of_fsync_stops_the_writer(tmp_path: Path) -> None:
    """LMDB forgets such an error: the next commit would succeed as if nothing had happened.

    Method: make the fourth fdatasync of a child fail with strace.
    """
    open_lmdb(tmp_path / "j").close()
    strace = ["strace", "-f", "-o", str(tmp_path / "trace")]
    inject = ["-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=4+"]
    try:
        subprocess.run([*strace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"system calls cannot be made to fail here: {error}")
    with running_child(tmp_path / "j", "obey", under=[*strace, *inject]) as child:
        assert child.hear() == "ready"
        assert child.ask("grant") == "1"
        answers = [child.ask(f"begin k{i}") for i in range(3)]
    assert answers[-1] == "STORAGE_FAILED", answers
    journal = open_lmdb(tmp_path / "j")
    expect_sound(journal)
    told = [f"order:k{i}" for i, answer in enumerate(answers) if answer == "ok"]
    assert all(journal.head(SagaId(saga_id)) is not None for saga_id in told)
    journal.close()


def test_a_full_disk_refuses_new_sagas_and_lets_those_under_way_end(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        journal = open_lmdb(disk / "j")
        epoch = prepare(journal)
        stories = [Story(f"k{i}", epoch=epoch) for i in range(200)]
        journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
        fill_up(disk / "filler")
        with pytest.raises(StorageFullError):
            journal.commit(SCOPE, epoch, [Story("late", epoch=epoch).accepted()])
        for story in stories:
            journal.commit(SCOPE, epoch, [story.turned_back()], from_reserve=True)
            journal.commit(SCOPE, epoch, [story.compensated()], from_reserve=True)
        assert list(journal.active()) == []
        assert journal.key_record(SagaId("order:late")) is None
        (disk / "filler").unlink()
        write_completed(journal, epoch, ["later"])
        expect_sound(journal)
        journal.close()


def test_a_journal_on_a_read_only_disk_can_be_read_and_verified(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        journal = open_lmdb(disk / "j")
        write_completed(journal, prepare(journal), ["a"])
        journal.close()
        make_read_only(disk)
        with pytest.raises(DataFolderError, match="cannot be written to"):
            open_lmdb(disk / "j")
        reader = open_lmdb(disk / "j", read_only=True)
        expect_sound(reader)
        reader.close()


def test_a_reader_stands_beside_a_writer(tmp_path: Path) -> None:
    with running_child(tmp_path / "j", "busy") as child:
        assert child.hear() == "ready"
        assert child.hear().startswith("began")
        reader = open_lmdb(tmp_path / "j", read_only=True)
        for _ in range(3):
            expect_sound(reader)
            assert child.hear()
        reader.close()


@pytest.mark.parametrize(
    "other",
    [
        JournalIdentity(uuid="another", shard=0, shard_count=1),
        JournalIdentity(uuid=IDENTITY.uuid, shard=1, shard_count=1),
        JournalIdentity(uuid=IDENTITY.uuid, shard=0, shard_count=2),
    ],
)
def test_a_journal_of_something_else_is_refused(tmp_path: Path, other: JournalIdentity) -> None:
    open_lmdb(tmp_path / "j").close()
    with pytest.raises(DataFolderError, match=f"shard 0 of 1 of folder {IDENTITY.uuid}"):
        LmdbJournal.open(tmp_path / "j", other, JournalSettings())
    # Without saying which, it is taken as it is.
    journal = LmdbJournal.open(tmp_path / "j", None, JournalSettings(reserve_ratio=0.0))
    assert journal.identity == IDENTITY
    journal.close()


def test_an_empty_folder_is_no_journal_to_a_reader(tmp_path: Path) -> None:
    (tmp_path / "j").mkdir()
    with pytest.raises(DataFolderError):
        LmdbJournal.open(tmp_path / "j", IDENTITY, JournalSettings(), read_only=True)


def test_a_journal_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    data = {"format_version": 99, "uuid": IDENTITY.uuid, "shard": 0, "shard_count": 1}
    row = rows.pack_data(rows.IDENTITY, data)
    journal.environment.write(lambda txn: txn.put(rows.META, rows.IDENTITY, row))
    journal.close()
    with pytest.raises(NewerFormatError, match="format 99 is newer"):
        open_lmdb(tmp_path / "j")


def flip_a_bit_behind(path: Path, text: bytes) -> int:
    """Flip a bit of the byte after each occurrence of `text`; return how many there were."""
    content = bytearray(path.read_bytes())
    count = 0
    at = content.find(text)
    while at >= 0:
        content[at + len(text)] ^= 1
        count += 1
        at = content.find(text, at + 1)
    path.write_bytes(content)
    return count


def test_a_flipped_bit_in_a_record_is_found_and_confined_to_its_saga(tmp_path: Path) -> None:
    """LMDB returns it without a word, and so does its own verifier."""
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a", "b", "c"])
    journal.close()
    # The key of the map in the acceptance's input: inside the record and nothing else.
    assert flip_a_bit_behind(tmp_path / "j" / "data.mdb", b"\xa8order_id\xa1") >= 1
    journal = open_lmdb(tmp_path / "j")
    report = verify_journal(journal)
    assert {problem.saga_id for problem in report.problems} == {"order:a", "order:b", "order:c"}
    assert all("CRC" in problem.detail for problem in report.problems)
    assert report.saga_count == 3
    journal.close()


@pytest.mark.parametrize("text", [b"order:b\xcf", b"fingerprint-of-b"])
def test_a_flipped_bit_in_an_index_row_is_found(tmp_path: Path, text: bytes) -> None:
    journal = open_lmdb(tmp_path / "j")
    write_completed(journal, prepare(journal), ["a", "b", "c"])
    journal.close()
    assert flip_a_bit_behind(tmp_path / "j" / "data.mdb", text) >= 1
    journal = open_lmdb(tmp_path / "j")
    assert not verify_journal(journal).is_sound
    with pytest.raises(RecordCorruptError):
        journal.head(SagaId("order:b"))
    journal.close()


Break = Callable[[WriteTransaction], object]


def key(number: int) -> bytes:
    return NUMBER.pack(number)


def rewrite(table: str, at: bytes, change: Callable[[bytes], bytes]) -> Break:
    def body(txn: WriteTransaction) -> None:
        row = txn.get(table, at)
        assert row is not None
        txn.put(table, at, change(row))

    return body


def without(table: str, at: bytes) -> Break:
    def body(txn: WriteTransaction) -> None:
        assert txn.delete(table, at)

    return body


def with_row(table: str, at: bytes, row: bytes = b"") -> Break:
    return lambda txn: txn.put(table, at, row)


def state_of(number: int, **changes: object) -> Break:
    def change(row: bytes) -> bytes:
        state = rows.unpack_state(key(number), row)
        return rows.pack_state(key(number), state._replace(**changes))  # type: ignore[arg-type]

    return rewrite(rows.STATES, key(number), change)


BREAKS: dict[str, tuple[Break, str]] = {
    # In what is written below, 1 is completed, 2 is running with a timer, 3 was pruned.
    "a record is missing": (without(rows.RECORDS, key(1)), "it is missing"),
    "a record is cut off": (rewrite(rows.RECORDS, key(1), lambda r: r[:-1]), "CRC"),
    "a record is nearly gone": (rewrite(rows.RECORDS, key(1), lambda r: r[:20]), "4 bytes long"),
    "a record is gone but for its row": (
        rewrite(rows.RECORDS, key(1), lambda r: r[:3]),
        "it is cut off",
    ),
    "a record belongs to another": (
        rewrite(rows.RECORDS, key(1), lambda r: r[:8] + key(9) + r[16:]),
        "another saga's record",
    ),
    "a record is too many": (with_row(rows.RECORDS, key(99), bytes(50)), "records, the sagas"),
    "the last record is not the one noted": (state_of(1, chain=bytes(16)), "not the one"),
    "the phase is another": (state_of(2, phase_code=3), "is noted"),
    "a birth is missing": (without(rows.BIRTHS, key(2)), "is missing"),
    "a state is missing": (without(rows.STATES, key(2)), "is missing"),
    "an id leads nowhere": (without(rows.IDS, b"order:a"), "does not lead"),
    "an id leads to another": (
        with_row(rows.IDS, b"order:a", rows.seal(b"order:a", key(2))),
        "leads to",
    ),
    "an active saga is not listed": (without(rows.ACTIVE, key(2)), "active and terminal"),
    "a terminal saga is listed as active": (with_row(rows.ACTIVE, key(1)), "active"),
    "a timer is missing": (without(rows.DUE, TIME_AND_NUMBER.pack(NOW_MS + 7, 2)), "timer"),
    "a timer is too many": (with_row(rows.DUE, TIME_AND_NUMBER.pack(5, 2)), "timer at 5"),
    "a terminal saga is nowhere listed": (
        without(rows.UNRELEASED, TIME_AND_NUMBER.pack(NOW_MS + 1, 1)),
        "no list of such",
    ),
    "a terminal saga is listed twice": (
        with_row(rows.RELEASED, TIME_AND_NUMBER.pack(NOW_MS + 1, 1)),
        "it is terminal and listed in",
    ),
    "an active saga is listed as ended": (
        with_row(rows.UNRELEASED, TIME_AND_NUMBER.pack(NOW_MS, 2)),
        "and did not",
    ),
    "a pruned saga is not listed so": (
        without(rows.PRUNED, TIME_AND_NUMBER.pack(NOW_MS + 1, 3)),
        "is not listed so",
    ),
    "a saga is listed as pruned": (
        with_row(rows.PRUNED, TIME_AND_NUMBER.pack(NOW_MS, 1), b"order:a"),
        "and was not",
    ),
    "the counters are wrong": (
        with_row(rows.META, rows.COUNTERS, rows.pack_counters(rows.COUNTERS_FIRST)),
        "counted",
    ),
    "the counters are damaged": (with_row(rows.META, rows.COUNTERS, b"1234567890"), "damaged"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_verifier_finds_what_is_broken(tmp_path: Path, name: str) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    journal.commit(SCOPE, epoch, [Story("b", epoch=epoch).accepted(due_at_ms=NOW_MS + 7)])
    write_completed(journal, epoch, ["c"])
    journal.mark_released([SagaId("order:c")])
    assert journal.prune(NOW_MS + 1_000, 1) == 1
    expect_sound(journal)
    break_it, words = BREAKS[name]
    journal.environment.write(break_it)
    report = verify_journal(journal)
    assert not report.is_sound
    assert any(words in problem.detail for problem in report.problems), report.problems
    journal.close()


def test_a_phase_that_only_a_later_version_knows_stops_the_reader(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    write_completed(journal, prepare(journal), ["a"])
    journal.environment.write(state_of(1, phase_code=200))
    with pytest.raises(NewerFormatError, match="phase 200"):
        verify_journal(journal)
    with pytest.raises(NewerFormatError):
        journal.head(SagaId("order:a"))
    journal.close()


def test_a_record_that_moved_to_another_saga_is_refused(tmp_path: Path) -> None:
    """Its own CRC is right; that covers whose it is."""
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted()])
    stranger = Story("b", epoch=epoch).accepted().record
    journal.environment.write(rewrite(rows.RECORDS, key(1), lambda row: row[:16] + stranger))
    (problem,) = verify_journal(journal).problems
    assert "CRC" in problem.detail
    journal.close()


def test_a_backup_of_one_journal_is_verified_and_as_it_was_when_it_was_taken(
    tmp_path: Path,
) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    journal.backup(tmp_path / "backup")
    write_completed(journal, epoch, ["b"])
    journal.close()
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["data.mdb"]
    copy = open_lmdb(tmp_path / "backup")
    assert [head.saga_id for head in copy.heads(HeadFilter(), limit=9)] == ["order:a"]
    expect_sound(copy)
    copy.close()


def test_a_backup_that_does_not_verify_gets_no_name(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    write_completed(journal, prepare(journal), ["a"])
    journal.environment.write(without(rows.RECORDS, key(1)))
    with pytest.raises(DataFolderError, match="problems were found in shard 0"):
        journal.backup(tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(DataFolderError, match="is not empty"):
        journal.backup(tmp_path / "taken")
    journal.close()


def test_an_open_journal_whose_files_are_copied_away_is_not_disturbed(tmp_path: Path) -> None:
    """What a backup program does behind our back must not reach the journal."""
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    shutil.copytree(tmp_path / "j", tmp_path / "copied")
    write_completed(journal, epoch, ["b"])
    expect_sound(journal)
    journal.close()


def test_sagas_of_an_age_are_sought_and_not_scanned_for(tmp_path: Path) -> None:
    """Goal: the oldest of many are found by looking at few, also where others were pruned."""
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    stories = [
        Story(f"k{i:03d}", epoch=epoch, at_ms=NOW_MS + i * CLOCK_BACK_MS_MAX) for i in range(300)
    ]
    journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
    ended = stories[0:100:2]
    journal.commit(SCOPE, epoch, [story.completed() for story in ended])
    journal.mark_released([story.saga_id for story in ended])
    assert journal.prune(stories[100].at_ms, 1_000) == len(ended)
    left = [story for story in stories if story not in ended]
    for place in (1, 20, 49, 60, 249):
        wanted = HeadFilter(
            accepted_before_ms=NOW_MS + stories.index(left[place]) * CLOCK_BACK_MS_MAX
        )
        found = journal.look(wanted, limit=1, rows_max=3)
        assert [head.saga_id for head in found.heads] == [left[place - 1].saga_id]
    assert journal.look(HeadFilter(accepted_before_ms=NOW_MS), limit=1, rows_max=3).heads == []
    expect_sound(journal)
    journal.close()
