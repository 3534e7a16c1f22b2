"""A backup is whole or not there; what is restored begins beyond every epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysaga.statemachines.ids import SagaId, Scope
from raysaga.storage.backup import EPOCH_JUMP, backup, restore
from raysaga.storage.data_folder import BACKUP_FILE, FOLDER_FILE, DataFolder
from raysaga.storage.errors import DataFolderError, StorageFullError
from raysaga.storage.journal import HeadFilter
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.verify import verify_journal

from .children import running_child
from .conftest import expect_sound, open_lmdb
from .disks import small_disk
from .ledger_desk import Desk, make_call
from .stories import IDENTITY, NOW_MS, OTHER_SCOPE, SCOPE, Story, prepare, write_completed

MIB = 1 << 20


def make_folder(path: Path, shard_count: int = 1) -> DataFolder:
    """Return a data folder with the uuid that the stories here are told of."""
    folder = DataFolder(path=path, uuid=IDENTITY.uuid, shard_count=shard_count, created_at_ms=1)
    path.mkdir()
    (path / FOLDER_FILE).write_bytes(folder.to_json())
    return DataFolder.open(path, shard_count=shard_count, create=False)


def open_shard(folder: DataFolder, shard: int = 0, *, read_only: bool = False) -> LmdbJournal:
    return folder.open_journal(
        shard, map_bytes_max=64 * MIB, reserve_ratio=0.001, read_only=read_only
    )


def test_a_backup_is_restored_with_everything_in_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", shard_count=2)
    journal = open_shard(folder)
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a", "b"])
    running = Story("c", epoch=epoch)
    journal.commit(SCOPE, epoch, [running.accepted()])
    digest = verify_journal(journal).digest
    journal.close()
    desk = Desk(folder.service_path("inventory"))
    desk.ask(make_call())
    desk.ledger.close()

    parts: list[str] = []
    made = backup(folder, tmp_path / "backup", progress=parts.append)
    assert parts == ["shard 0", "shard 1", "service inventory"]
    assert (made.saga_count, made.digests[0], made.services) == (3, digest, ("inventory",))
    assert made.size_bytes == sum(
        path.stat().st_size for path in (tmp_path / "backup").rglob("*") if path.is_file()
    )
    told = restore(tmp_path / "backup", tmp_path / "restored")
    assert (told.saga_count, told.digests) == (3, made.digests)

    back = DataFolder.open(tmp_path / "restored", shard_count=2, create=True)
    assert back.uuid == folder.uuid
    journal = open_shard(back)
    assert verify_journal(journal).digest == digest
    assert journal.restored_at_ms() is not None
    journal.clear_restored()
    assert journal.restored_at_ms() is None
    journal.close()
    desk = Desk(back.service_path("inventory"))
    assert desk.ask(make_call()).duplicate
    desk.ledger.close()


def test_a_backup_holds_data_and_no_lock_files_or_ballast(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    open_shard(folder).close()
    backup(folder, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "restored")
    for path, extra in ((tmp_path / "backup", {BACKUP_FILE}), (tmp_path / "restored", set())):
        files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
        assert files == {FOLDER_FILE, "shards/000/data.mdb"} | extra


def test_a_restore_puts_every_epoch_beyond_those_granted_after_the_backup(tmp_path: Path) -> None:
    """A scope that the copy does not know had owners as well, whom participants remember."""
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    journal.close()
    backup(folder, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "first")
    journal = open_shard(DataFolder.open(tmp_path / "first", shard_count=None, create=False))
    assert journal.epoch(SCOPE) == epoch + EPOCH_JUMP
    assert journal.grant_epoch(SCOPE, "after", NOW_MS) == epoch + EPOCH_JUMP + 1
    assert journal.grant_epoch(OTHER_SCOPE, "unknown to the copy", NOW_MS) == EPOCH_JUMP + 1
    assert journal.grant_epoch(OTHER_SCOPE, "again", NOW_MS) == EPOCH_JUMP + 2
    expect_sound(journal)
    journal.close()
    # A backup of what was restored, restored again, goes further still.
    backup(DataFolder.open(tmp_path / "first", shard_count=None, create=False), tmp_path / "b2")
    restore(tmp_path / "b2", tmp_path / "second")
    journal = open_shard(DataFolder.open(tmp_path / "second", shard_count=None, create=False))
    assert journal.grant_epoch(Scope("new"), "again", NOW_MS) == 2 * EPOCH_JUMP + 1
    journal.close()


def test_a_shard_that_was_never_started_is_restored_beyond_the_epochs_too(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", shard_count=2)
    open_shard(folder).close()
    backup(folder, tmp_path / "backup")
    assert not folder.journal_path(1).exists()
    restore(tmp_path / "backup", tmp_path / "restored")
    journal = open_shard(DataFolder.open(tmp_path / "restored", shard_count=2, create=False), 1)
    assert journal.grant_epoch(SCOPE, "first", NOW_MS) == EPOCH_JUMP + 1
    assert journal.restored_at_ms() is not None
    journal.close()


def test_a_backup_is_taken_while_the_journal_is_written(tmp_path: Path) -> None:
    """Method: a child commits two records a saga in two commits, without a pause.

    A copy that mixed two states would hold sagas that do not verify.
    """
    folder = make_folder(tmp_path / "data")
    with running_child(folder.journal_path(0), "busy") as child:
        assert child.hear() == "ready"
        told: list[str] = []
        for i in range(3):
            told += child.hear().split()[1:]
            made = backup(folder, tmp_path / f"backup{i}")
            restore(made.path, tmp_path / f"restored{i}")
            back = DataFolder.open(tmp_path / f"restored{i}", shard_count=1, create=False)
            journal = open_shard(back, read_only=True)
            expect_sound(journal)
            # What was told before the backup began is in it.
            assert all(journal.head(SagaId(saga_id)) is not None for saga_id in told)
            journal.close()


def test_a_target_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    open_shard(folder).close()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(DataFolderError, match="is not empty"):
        backup(folder, tmp_path / "taken")
    backup(folder, tmp_path / "backup")
    with pytest.raises(DataFolderError, match="is not empty"):
        restore(tmp_path / "backup", tmp_path / "taken")
    with pytest.raises(DataFolderError, match="is not empty"):
        restore(tmp_path / "backup", tmp_path / "data")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    restore(tmp_path / "backup", tmp_path / "empty")
    assert (tmp_path / "empty" / FOLDER_FILE).exists()


def test_what_is_no_backup_is_not_restored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    open_shard(folder).close()
    for source in (folder.path, tmp_path / "missing"):
        with pytest.raises(DataFolderError, match="is no backup"):
            restore(source, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


def damage(path: Path, old: bytes, new: bytes) -> None:
    assert len(old) == len(new)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"fingerprint-of-a", b"fingerprint-of-b", "problems were found"),
        (b"records", b"recorts", "flaws in its pages|does not exist"),
    ],
)
def test_a_damaged_backup_is_not_restored(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    write_completed(journal, prepare(journal), ["a", "c"])
    journal.close()
    backup(folder, tmp_path / "backup")
    damage(tmp_path / "backup" / "shards" / "000" / "data.mdb", old, new)
    with pytest.raises(DataFolderError, match=words):
        restore(tmp_path / "backup", tmp_path / "restored")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "backup"}


def test_a_shard_of_another_backup_is_found_out(tmp_path: Path) -> None:
    """Sound as it is, it is not what was copied."""
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    epoch = prepare(journal)
    journal.close()
    old = backup(folder, tmp_path / "old")
    journal = open_shard(folder)
    write_completed(journal, epoch, ["a"])
    journal.close()
    new = backup(folder, tmp_path / "new")
    path = Path("shards") / "000" / "data.mdb"
    (new.path / path).write_bytes((old.path / path).read_bytes())
    with pytest.raises(DataFolderError, match="is not what was backed up"):
        restore(new.path, tmp_path / "restored")


def test_a_damaged_ledger_is_neither_backed_up_nor_restored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    open_shard(folder).close()
    desk = Desk(folder.service_path("inventory"))
    call = make_call()
    desk.ask(call)
    desk.ledger.close()
    backup(folder, tmp_path / "backup")
    data = folder.service_path("inventory") / "data.mdb"
    needle = f"{call.saga_id}/{call.step}".encode()
    damage(data, needle, needle[:-1] + bytes([needle[-1] ^ 1]))
    with pytest.raises(DataFolderError, match="ledger is damaged"):
        backup(folder, tmp_path / "second")
    copied = tmp_path / "backup" / "services" / "inventory" / "data.mdb"
    copied.write_bytes(data.read_bytes())
    with pytest.raises(DataFolderError, match="ledger is damaged"):
        restore(tmp_path / "backup", tmp_path / "restored")


@pytest.mark.parametrize("notes", ["{", "{}", json.dumps({"made_at_ms": 1, "digests": []})])
def test_damaged_notes_are_refused(tmp_path: Path, notes: str) -> None:
    folder = make_folder(tmp_path / "data")
    open_shard(folder).close()
    made = backup(folder, tmp_path / "backup")
    (made.path / BACKUP_FILE).write_text(notes)
    with pytest.raises(DataFolderError, match="is damaged"):
        restore(made.path, tmp_path / "restored")


def test_a_full_disk_leaves_no_half_backup(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    epoch = prepare(journal)
    stories = [Story(f"k{i}", epoch=epoch, padding=2_000) for i in range(500)]
    journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
    journal.close()
    with small_disk(tmp_path / "disk", MIB) as disk:
        with pytest.raises((DataFolderError, StorageFullError), match="full"):
            backup(folder, disk / "backup")
        assert list(disk.iterdir()) == []


def test_the_engines_own_process_cannot_back_up_what_it_has_open(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    journal = open_shard(folder)
    with pytest.raises(DataFolderError, match="open in this process already"):
        backup(folder, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    journal.close()


def test_a_copied_journal_lists_what_the_original_did(tmp_path: Path) -> None:
    journal = open_lmdb(tmp_path / "j")
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a", "b", "c"])
    journal.mark_released([SagaId("order:a")])
    journal.prune(NOW_MS + 1_000, 10)
    journal.backup(tmp_path / "copy")
    before = journal.heads(HeadFilter(), limit=10)
    journal.close()
    copy = open_lmdb(tmp_path / "copy")
    assert copy.heads(HeadFilter(), limit=10) == before
    assert copy.key_record(SagaId("order:a")) is not None
    copy.close()
