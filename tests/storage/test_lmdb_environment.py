"""The environment keeps its word when it is full, shared, grown under readers, or refused."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raysaga.storage.ballast import BALLAST
from raysaga.storage.errors import DataFolderError, StorageFullError
from raysaga.storage.lmdb_environment import Environment, WriteTransaction, structure_flaws

from .disks import fill_up, make_read_only, small_disk

KIB = 1 << 10
MIB = 1 << 20
TABLE = "rows"


def open_at(path: Path, *, read_only: bool = False, **bounds: int) -> Environment:
    sizes = {"map_bytes_first": 64 * KIB, "map_bytes_max": 64 * MIB, "reserve_bytes": 0} | bounds
    return Environment.open(path, tables=[TABLE, "other"], read_only=read_only, **sizes)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    made = open_at(tmp_path / "environment")
    yield made
    made.close()
    assert structure_flaws(made.path) == []


def putting(first: int, count: int, size: int = 1_000) -> Callable[[WriteTransaction], None]:
    """Return a body that appends `count` rows of `size` bytes, numbered from `first`."""

    def body(txn: WriteTransaction) -> None:
        items = [(i.to_bytes(8, "big"), bytes(size)) for i in range(first, first + count)]
        txn.put_many(TABLE, items, append=True)

    return body


def test_a_table_is_scanned_from_start_to_stop_in_either_direction(
    environment: Environment,
) -> None:
    keys = [bytes([i]) for i in (1, 3, 5, 7)]
    environment.write(lambda txn: txn.put_many(TABLE, [(key, key) for key in keys]))
    with environment.read() as view:
        assert [k for k, _ in view.scan(TABLE)] == keys
        assert [k for k, _ in view.scan(TABLE, reverse=True)] == keys[::-1]
        assert [k for k, _ in view.scan(TABLE, start=b"\2", stop=b"\7")] == keys[1:3]
        assert [k for k, _ in view.scan(TABLE, start=b"\3", stop=b"\7", reverse=True)] == [
            b"\5",
            b"\3",
        ]
        assert [k for k, _ in view.scan(TABLE, stop=b"\x63", reverse=True)] == keys[::-1]
        assert [k for k, _ in view.scan(TABLE, stop=b"\1", reverse=True)] == []
        assert [k for k, _ in view.scan(TABLE, start=b"\x63")] == []
        assert [k for k, _ in view.scan("other", reverse=True)] == []
        assert view.last(TABLE) == (b"\7", b"\7")
        assert view.last("other") is None
        assert view.count(TABLE) == 4


def test_what_the_body_raises_undoes_what_it_wrote(environment: Environment) -> None:
    def body(txn: WriteTransaction) -> None:
        txn.put(TABLE, b"key", b"value")
        raise KeyError("no")

    with pytest.raises(KeyError):
        environment.write(body)
    with environment.read() as view:
        assert view.get(TABLE, b"key") is None
    assert environment.commits == 0


def test_a_child_transaction_that_fails_undoes_only_itself(environment: Environment) -> None:
    def body(txn: WriteTransaction) -> None:
        txn.put(TABLE, b"outer", b"1")
        with contextlib.suppress(KeyError), txn.child() as child:
            child.put(TABLE, b"inner", b"1")
            raise KeyError("no")
        with txn.child() as child:
            child.put(TABLE, b"second", b"1")

    environment.write(body)
    with environment.read() as view:
        assert [k for k, _ in view.scan(TABLE)] == [b"outer", b"second"]


def test_rows_that_exist_can_be_kept(environment: Environment) -> None:
    environment.write(lambda txn: txn.put(TABLE, b"a", b"old"))
    added = environment.write(
        lambda txn: txn.put_many(TABLE, [(b"a", b"new"), (b"b", b"new")], overwrite=False)
    )
    assert added == 1
    with environment.read() as view:
        assert view.get(TABLE, b"a") == b"old"


def test_keys_to_append_that_do_not_ascend_are_a_bug(environment: Environment) -> None:
    environment.write(putting(5, 1))
    with pytest.raises(AssertionError):
        environment.write(putting(5, 1))


def test_the_map_grows_by_itself_and_the_body_runs_again(environment: Environment) -> None:
    runs = 0

    def body(txn: WriteTransaction) -> None:
        nonlocal runs
        runs += 1
        putting(0, 2_000)(txn)

    environment.write(body)
    assert runs > 1
    assert environment.commits == 1
    with environment.read() as view:
        assert view.count(TABLE) == 2_000


def test_growing_waits_for_the_readers_of_other_threads(environment: Environment) -> None:
    """The map is moved when it grows; a reader that went on would read where nothing is."""
    environment.write(putting(0, 20))
    entered, leave, grown = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []

    def read() -> None:
        with environment.read() as view:
            entered.set()
            leave.wait(30)
            with environment.read() as nested:
                assert nested.count(TABLE) == 20
            seen.append(sum(len(value) for _, value in view.scan(TABLE)))

    def grow() -> None:
        environment.write(putting(20, 2_000))
        grown.set()

    reader = threading.Thread(target=read)
    writer = threading.Thread(target=grow)
    reader.start()
    assert entered.wait(30)
    writer.start()
    assert not grown.wait(0.05)
    leave.set()
    reader.join()
    writer.join()
    assert grown.is_set()
    assert seen == [20_000]


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns often; each call of the driver gives up the interpreter's lock."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_reading_and_growing_at_once_harms_nobody(environment: Environment) -> None:
    done = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                with environment.read() as view:
                    last, count = view.last(TABLE), view.count(TABLE)
                assert last is None or last[0] == (count - 1).to_bytes(8, "big")
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(20):
        environment.write(putting(i * 4, 4, size=50_000))
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert environment.usage().size > 3 * MIB


def test_a_thread_that_reads_cannot_make_the_map_grow(environment: Environment) -> None:
    """It would wait for itself for ever."""
    with pytest.raises(AssertionError), environment.read():
        environment.write(putting(0, 2_000))


def test_the_cap_is_kept_and_the_reserve_opens_on_request(tmp_path: Path) -> None:
    environment = open_at(tmp_path / "e", map_bytes_max=MIB, reserve_bytes=256 * KIB)
    with pytest.raises(StorageFullError, match="786432 bytes"):
        environment.write(putting(0, 10_000))
    written = 700
    environment.write(putting(0, written))
    with pytest.raises(StorageFullError, match="786432 bytes"):
        environment.write(putting(written, 100))
    environment.write(putting(written, 100), from_reserve=True)
    usage = environment.usage()
    assert usage.cap - usage.reserve < usage.used <= usage.cap
    # The map has grown into the reserve; that opens it to nobody else.
    with pytest.raises(StorageFullError):
        environment.write(putting(written + 100, 1))
    with pytest.raises(StorageFullError):
        environment.write(putting(written + 100, 10_000), from_reserve=True)
    environment.close()


def test_a_reader_that_holds_an_old_state_is_told_of(environment: Environment) -> None:
    environment.write(putting(0, 1))
    with environment.read():
        assert environment.usage().oldest_snapshot is None, "it sees the newest"
        environment.write(putting(1, 1))
        held = environment.usage().oldest_snapshot
        assert held is not None
        environment.write(putting(2, 1))
        assert environment.usage().oldest_snapshot == held
    assert environment.usage().oldest_snapshot is None


def test_deleting_makes_room(tmp_path: Path) -> None:
    environment = open_at(tmp_path / "e", map_bytes_max=MIB, reserve_bytes=256 * KIB)
    environment.write(putting(0, 550))
    with pytest.raises(StorageFullError):
        environment.write(putting(550, 200))
    used = environment.usage().used

    def body(txn: WriteTransaction) -> None:
        for i in range(400):
            assert txn.delete(TABLE, i.to_bytes(8, "big"))
        assert not txn.delete(TABLE, b"none")

    environment.write(body, from_reserve=True)
    assert environment.usage().used < used / 2
    # Pages are free for writing once no snapshot can hold them any more: the commit after next.
    environment.write(lambda txn: txn.put("other", b"key", b""))
    environment.write(putting(550, 200))
    environment.close()


def test_an_environment_is_opened_once_in_a_process(tmp_path: Path) -> None:
    environment = open_at(tmp_path / "e")
    (tmp_path / "link").symlink_to(tmp_path / "e")
    with pytest.raises(DataFolderError, match="open in this process already"):
        open_at(tmp_path / "link")
    environment.close()
    environment.close()
    open_at(tmp_path / "link").close()


def test_an_environment_is_not_carried_across_a_fork(environment: Environment) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            environment.write(putting(0, 1))
        except AssertionError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    environment = open_at(tmp_path / "e", reserve_bytes=64 * KIB)
    assert stat.S_IMODE(environment.path.stat().st_mode) == 0o700
    for path in environment.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    (tmp_path / "copy").mkdir()
    environment.copy_to(tmp_path / "copy")
    assert stat.S_IMODE((tmp_path / "copy" / "data.mdb").stat().st_mode) == 0o600
    environment.close()


def test_a_folder_that_is_none_or_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataFolderError, match="is not a folder"):
        open_at(tmp_path / "file")
    with pytest.raises(DataFolderError, match="does not exist"):
        open_at(tmp_path / "missing", read_only=True)
    assert not (tmp_path / "missing").exists()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "data.mdb").write_bytes(b"no LMDB " * 1_000)
    with pytest.raises(DataFolderError, match="damaged or not ours"):
        open_at(tmp_path / "foreign")
    with pytest.raises(DataFolderError, match="damaged or not ours"):
        structure_flaws(tmp_path / "foreign")
    # A refusal leaves nothing behind that would refuse the next attempt.
    (tmp_path / "foreign" / "data.mdb").unlink()
    open_at(tmp_path / "foreign").close()


def test_an_environment_of_other_tables_is_refused_to_a_reader(tmp_path: Path) -> None:
    open_at(tmp_path / "e").close()
    with pytest.raises(DataFolderError, match="no data of this kind"):
        Environment.open(
            tmp_path / "e",
            tables=["strange"],
            map_bytes_first=64 * KIB,
            map_bytes_max=MIB,
            reserve_bytes=0,
            read_only=True,
        )


def test_a_disk_that_is_mounted_read_only_can_be_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        environment = open_at(disk / "e")
        environment.write(putting(0, 10))
        environment.close()
        make_read_only(disk)
        with pytest.raises(DataFolderError, match="cannot be written to"):
            open_at(disk / "e")
        with pytest.raises(DataFolderError, match="cannot be written to"):
            open_at(disk / "new")
        reader = open_at(disk / "e", read_only=True)
        with reader.read() as view:
            assert view.count(TABLE) == 10
        reader.close()


def test_a_full_disk_refuses_ordinary_writes_and_the_ballast_lets_the_others_through(
    tmp_path: Path,
) -> None:
    """Method: fill a small disk from outside, so that only the ballast can make room."""
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        environment = open_at(disk / "e", reserve_bytes=512 * KIB)
        environment.write(putting(0, 10))
        ballast = disk / "e" / BALLAST
        assert ballast.stat().st_blocks * 512 >= 512 * KIB
        fill_up(disk / "filler")
        with pytest.raises(StorageFullError, match="only the reserve"):
            environment.write(putting(10, 1))
        environment.write(putting(10, 200), from_reserve=True)
        assert not ballast.exists()
        with pytest.raises(StorageFullError):
            environment.write(putting(210, 1))
        with environment.read() as view:
            assert view.count(TABLE) == 210
        (disk / "filler").unlink()
        environment.write(putting(210, 1))
        assert ballast.exists()
        environment.close()


def test_when_the_ballast_is_used_up_nothing_of_a_batch_is_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * MIB) as disk:
        environment = open_at(disk / "e", reserve_bytes=64 * KIB)
        environment.write(putting(0, 10))
        fill_up(disk / "filler")
        with pytest.raises(StorageFullError, match="no space left"):
            environment.write(putting(10, 1_000), from_reserve=True)
        with environment.read() as view:
            assert view.count(TABLE) == 10
        (disk / "filler").unlink()
        environment.write(putting(10, 1_000))
        environment.close()


def test_a_full_disk_is_told_when_an_environment_is_made(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MIB) as disk:
        fill_up(disk / "filler")
        with pytest.raises(DataFolderError, match="the disk is full"):
            open_at(disk / "e")


def test_without_room_for_the_ballast_what_was_begun_can_still_be_finished(
    tmp_path: Path,
) -> None:
    """A restart on a full disk must not keep sagas from going home."""
    with small_disk(tmp_path / "disk", 2 * MIB) as disk:
        open_at(disk / "e").close()
        environment = open_at(disk / "e", reserve_bytes=16 * MIB)
        with pytest.raises(StorageFullError):
            environment.write(putting(0, 1))
        environment.write(putting(0, 100), from_reserve=True)
        environment.close()


def test_a_reader_that_was_killed_does_not_keep_old_pages_for_ever(tmp_path: Path) -> None:
    """Method: pin a snapshot in a child, write until its pages fill the map, and kill it."""
    environment = open_at(tmp_path / "e", map_bytes_max=MIB, reserve_bytes=64 * KIB)
    environment.write(putting(0, 100))
    code = (
        "import sys; from pathlib import Path;"
        "from raysaga.storage.lmdb_environment import Environment;"
        "environment = Environment.open(Path(sys.argv[1]), tables=['rows'], read_only=True,"
        " map_bytes_first=1 << 20, map_bytes_max=1 << 20, reserve_bytes=0);"
        "view = environment.read(); view.__enter__();"
        "print('pinned', flush=True); sys.stdin.read()"
    )

    def rewrite_often() -> None:
        rows = [(i.to_bytes(8, "big"), os.urandom(1_000)) for i in range(100)]
        for _ in range(20):
            environment.write(lambda txn: txn.put_many(TABLE, rows))

    with subprocess.Popen(
        [sys.executable, "-c", code, str(environment.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "pinned\n"
        with pytest.raises(StorageFullError):
            rewrite_often()
        child.kill()
        child.wait()
    rewrite_often()
    environment.close()
