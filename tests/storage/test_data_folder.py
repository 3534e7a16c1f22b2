"""A data folder says what it is, refuses what it must not be, and knows who owns it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from raysaga.storage import data_folder
from raysaga.storage.backup import backup
from raysaga.storage.data_folder import (
    FOLDER_FILE,
    OWNER_FILE,
    DataFolder,
    current_boot_id,
    previous_owner,
    process_start_time,
    record_owner,
)
from raysaga.storage.errors import DataFolderError
from raysaga.storage.file_system import file_system_of, write_atomically

from .conftest import expect_sound
from .disks import fill_up, make_read_only, small_disk
from .stories import prepare

MIB = 1 << 20


def open_folder(path: Path, shard_count: int | None = None, *, create: bool = True) -> DataFolder:
    return DataFolder.open(path, shard_count=shard_count, create=create)


def test_a_folder_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = open_folder(tmp_path / "a" / "data", 2)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    assert [path.name for path in made.path.iterdir()] == [FOLDER_FILE]
    assert made.shard_count == 2
    assert open_folder(made.path) == made
    assert open_folder(made.path, 2, create=False) == made
    assert open_folder(tmp_path / "other").uuid != made.uuid


def test_an_empty_folder_and_a_path_as_text_will_do(tmp_path: Path) -> None:
    folder = DataFolder.open(str(tmp_path), shard_count=None, create=True)
    assert folder.shard_count == data_folder.SHARD_COUNT_DEFAULT
    assert folder.path == tmp_path.resolve()


def test_the_journals_of_a_folder_know_where_they_belong(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data", 2)
    journals = [
        folder.open_journal(shard, map_bytes_max=64 * MIB, reserve_ratio=0.01) for shard in (0, 1)
    ]
    for shard, journal in enumerate(journals):
        assert (journal.identity.uuid, journal.identity.shard) == (folder.uuid, shard)
        prepare(journal)
        expect_sound(journal)
        journal.close()
    (folder.path / "swap").mkdir()
    for name in ("data.mdb", "lock.mdb"):
        (folder.journal_path(0) / name).rename(folder.path / "swap" / name)
        (folder.journal_path(1) / name).rename(folder.journal_path(0) / name)
    with pytest.raises(DataFolderError, match="holds shard 1 of 2"):
        folder.open_journal(0)


def test_paths_keep_inside_the_folder(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "data")
    assert folder.journal_path(0).parent.parent == folder.path
    assert folder.service_path("inventory").parent.parent == folder.path
    assert folder.log_path.parent == folder.path
    for name in ("", "../out", ".", "..", "a/b"):
        with pytest.raises(AssertionError):
            folder.service_path(name)
    with pytest.raises(AssertionError):
        folder.journal_path(1)


def refused(path: Path, shard_count: int | None = None, *, create: bool = True) -> str:
    """Return why a folder is refused, having checked that nothing in it was touched."""
    before = sorted(path.rglob("*")) if path.exists() else None
    with pytest.raises(DataFolderError) as caught:
        open_folder(path, shard_count, create=create)
    assert (sorted(path.rglob("*")) if path.exists() else None) == before
    assert "\n" not in str(caught.value)
    return caught.value.message


def test_each_folder_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    assert "holds no raysaga data" in refused(tmp_path / "missing", create=False)
    (tmp_path / "empty").mkdir()
    assert "holds no raysaga data" in refused(tmp_path / "empty", create=False)
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")
    assert "is not a folder" in refused(tmp_path / "file" / "below")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").touch()
    assert "'thesis.txt'" in refused(tmp_path / "foreign")
    folder = open_folder(tmp_path / "data", 2)
    assert "has 2 shards for ever, not 3" in refused(folder.path, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"format_version": 2}, "upgrade raysaga"),
        ({"uuid": "no uuid"}, "is damaged"),
        ({"shard_count": 0}, "is damaged"),
        ({"shard_count": "1"}, "is damaged"),
        ({"created_at_ms": None}, "is damaged"),
    ],
)
def test_a_newer_or_damaged_folder_file_is_refused(
    tmp_path: Path, content: dict[str, object], words: str
) -> None:
    folder = open_folder(tmp_path / "data")
    path = folder.path / FOLDER_FILE
    path.write_text(json.dumps(json.loads(path.read_bytes()) | content))
    assert words in refused(folder.path)
    path.write_text("{")
    assert "is damaged" in refused(folder.path)


def test_a_folder_that_is_left_half_made_is_made_anew(tmp_path: Path) -> None:
    """What a crash leaves before the file has its name must not count as somebody else's."""
    (tmp_path / f".{FOLDER_FILE}.77.tmp").write_text("{")
    (tmp_path / "lost+found").mkdir()
    assert open_folder(tmp_path).path == tmp_path.resolve()


def test_of_two_that_make_a_folder_at_once_both_get_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: let another one make it between our look and our writing."""
    others: list[DataFolder] = []

    def write(path: Path, content: bytes, *, replace: bool = True) -> None:
        if not others:
            others.append(DataFolder(path=path.parent, uuid=FIRST, shard_count=1, created_at_ms=1))
            write_atomically(path, others[0].to_json())
        write_atomically(path, content, replace=replace)

    monkeypatch.setattr(data_folder, "write_atomically", write)
    assert open_folder(tmp_path / "data").uuid == FIRST


FIRST = "11111111-2222-4333-8444-555555555555"


def test_a_full_or_read_only_disk_is_told(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MIB) as disk:
        folder = open_folder(disk / "data")
        (disk / "another").mkdir()
        fill_up(disk / "filler")
        assert "the disk is full" in refused(disk / "another")
        make_read_only(disk)
        assert "cannot be written to" in refused(disk / "third")
        assert "cannot be written to" in refused(folder.path)
        assert open_folder(folder.path, create=False) == folder
        with pytest.raises(DataFolderError, match="cannot be written to"):
            folder.lock_for_engine()
        with pytest.raises(DataFolderError, match="cannot be written to"):
            record_owner(folder.journal_path(0))


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "file_system_of", lambda path: "nfs4")
    with pytest.raises(DataFolderError, match=r"network file system \(nfs4\)"):
        open_folder(tmp_path / "data")


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\n"
        "server:/x /mnt nfs4 rw 0 0\n"
        "tmp /mnt/fast\\040disk tmpfs rw 0 0\n"
        "broken\n"
    )
    assert file_system_of(Path("/srv/data"), mounts) == "ext4"
    assert file_system_of(Path("/mnt/data"), mounts) == "nfs4"
    assert file_system_of(Path("/mntx"), mounts) == "ext4"
    assert file_system_of(Path("/mnt/fast disk/data"), mounts) == "tmpfs"
    assert file_system_of(tmp_path, tmp_path / "missing") == ""
    assert file_system_of(tmp_path) != ""


def test_one_engine_holds_the_lock_and_another_is_told_its_pid(tmp_path: Path) -> None:
    """Method: hold it in a child; a killed child must let go of it."""
    folder = open_folder(tmp_path / "data")
    code = (
        "import sys; from raysaga.storage.data_folder import DataFolder;"
        "folder = DataFolder.open(sys.argv[1], shard_count=None, create=False);"
        "lock = folder.lock_for_engine(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(DataFolderError, match=f"engine in process {child.pid};"):
            folder.lock_for_engine()
        child.kill()
        child.wait()
    with folder.lock_for_engine() as lock:
        with pytest.raises(DataFolderError, match=f"engine in process {os.getpid()};"):
            folder.lock_for_engine()
        lock.close()
        folder.lock_for_engine().close()


def test_an_owner_that_still_runs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shards" / "000"
    assert previous_owner(path) is None
    record_owner(path)
    assert previous_owner(path) == os.getpid()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        record_owner(path, child.pid)
        assert previous_owner(path) == child.pid
        child.kill()
        # Dead but not yet waited for, it is a zombie and holds nothing.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert previous_owner(path) is None
        child.wait()
    assert previous_owner(path) is None


def test_a_pid_that_is_used_again_is_never_named(tmp_path: Path) -> None:
    """Whoever is named may be killed, so that must be the very process that was noted."""
    start_time = process_start_time(os.getpid())
    record_owner(tmp_path, os.getpid(), start_time + 1)
    assert previous_owner(tmp_path) is None
    record_owner(tmp_path, os.getpid(), start_time, "another boot")
    assert previous_owner(tmp_path) is None
    record_owner(tmp_path, os.getpid(), start_time, current_boot_id())
    assert previous_owner(tmp_path) == os.getpid()
    (tmp_path / OWNER_FILE).write_text("{")
    assert previous_owner(tmp_path) is None


def test_a_backup_is_not_used_as_a_data_folder(tmp_path: Path) -> None:
    """An engine on it would start at epochs that were granted before."""
    folder = open_folder(tmp_path / "data")
    backup(folder, tmp_path / "backup")
    assert "is a backup" in refused(tmp_path / "backup")
    assert "is a backup" in refused(tmp_path / "backup", create=False)
