"""Opens an LMDB environment the one way that is safe for us, and grows it when it is full.

Guarantees: when `write` returns, what its body put is on disk (default flags:
every commit waits for the disk); when it raises `StorageFullError`, or what the
body raised, nothing of it is.
Refuses: a second open in one process, use after a fork, an environment that is
no folder, not ours to write, or not LMDB's.
Costs: one flush for each `write` that changed something; 3 microseconds a `read`.
Growing waits for the reads of this process, so keep them short.

Head-room: `reserve_bytes` of the cap open only to writes that say
`from_reserve`, so that what was begun can be finished when nothing new is taken
in. The map alone cannot keep that promise, for the disk may fill up first.
Hence a ballast file beside the data, given up when the disk has no space left;
and no ordinary write while the disk has less free than the ballast's size, lest
a neighbour eat what was given up.

LMDB does not latch an error of fsync: the next commit would succeed as if
nothing had happened. So every error of a commit but "full" becomes
`StorageFailedError`, and whoever gets it must stop the process.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lmdb
from lmdb import verify as lmdb_verify

from raysaga.storage.ballast import Ballast
from raysaga.storage.errors import DataFolderError, StorageFailedError, StorageFullError
from raysaga.storage.file_system import NO_SPACE, free_bytes, make_folder, sync_folder, unusable
from raysaga.storage.journal import Usage
from raysaga.storage.lmdb_transaction import ReadTransaction, WriteTransaction
from raysaga.storage.readers_gate import ReadersGate

__all__ = ["READERS_MAX", "Environment", "ReadTransaction", "WriteTransaction", "structure_flaws"]

T = TypeVar("T")

READERS_MAX = 512
"""Read transactions at once, of all processes; a slot takes 64 bytes of the lock file."""

SHORT_WRITE_BYTES_MAX = 1 << 16
"""Free space below which an error of writing counts as a full disk."""

LOCK_FILE_BYTES = READERS_MAX * 64 + 4_096
"""What LMDB needs for so many readers, and what it keeps beside them."""

BALLAST_BYTES_MAX = 32 << 20
"""Largest ballast, whatever the reserve of the map: it takes its place on the disk at once, and
20,000 sagas in flight need about 1 KiB each to finish."""

FLUSH_QUICK_MS = 10.0
"""A flush below this keeps an event loop less than a thread beside it would (measured)."""

_SMOOTHING = 0.1

_open_paths: set[tuple[int, str]] = set()
_open_paths_lock = threading.Lock()


class _NoSpaceError(Exception):
    """The disk is full, and nothing of the transaction is on it."""


class View:
    """What `Environment.read` gives: a transaction for as long as the `with` lasts.

    A class and not a generator, which would take twice as long as what is mostly read in it.
    """

    __slots__ = ("_environment", "_txn")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __enter__(self) -> ReadTransaction:
        environment = self._environment
        self._txn = environment._begin_read()
        return ReadTransaction(self._txn, environment._tables)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._txn.abort()
        self._environment._gate.leave()
        if isinstance(error, lmdb.Error):
            raise self._environment._failed(error) from error


class Environment:
    """An LMDB environment of this process. See the head of this module.

    Attributes:
        path: Its folder.
        read_only: Whether `write` is out of the question.
        commits: Flushes waited for since it was opened.
        bytes_written: Keys and values put by those commits; not what LMDB made of them,
            which is whole pages.
        flush_ms: How long commits have waited for the disk lately, smoothed.
    """

    def __init__(
        self,
        path: Path,
        env: Any,
        tables: dict[str, Any],
        *,
        map_bytes_max: int,
        reserve_bytes: int,
        read_only: bool,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.commits = 0
        self.bytes_written = 0
        self.flush_ms = 0.0
        self._env = env
        self._tables = tables
        self._cap = map_bytes_max
        self._reserve = reserve_bytes
        self._ballast = None if read_only else Ballast(path, min(reserve_bytes, BALLAST_BYTES_MAX))
        self._pid = os.getpid()
        self._gate = ReadersGate()
        self._writing = threading.Lock()
        self._map_bytes = int(env.info()["map_size"])
        self._page_bytes = int(env.stat()["psize"])
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        tables: Sequence[str],
        map_bytes_first: int,
        map_bytes_max: int,
        reserve_bytes: int,
        read_only: bool = False,
    ) -> Environment:
        """Open the environment in the folder `path`, and make it unless `read_only`.

        Args:
            path: The folder; made with mode 0700, its files with 0600.
            tables: Names of all tables it is to have.
            map_bytes_first: Size of the map to begin with; it costs address space only.
            map_bytes_max: The cap of the map. A file that is larger already stays usable.
            reserve_bytes: Part of the cap kept for writes `from_reserve`.
            read_only: Open what exists, beside its writers.

        Raises:
            DataFolderError: If it cannot be used, with the reason and what to do.
        """
        assert 0 <= reserve_bytes < map_bytes_max and map_bytes_first > 0
        path = Path(os.path.realpath(path))
        identity = (os.getpid(), str(path))
        with _open_paths_lock:
            if identity in _open_paths:
                raise DataFolderError(
                    str(path), "is open in this process already; share the open environment"
                )
            _open_paths.add(identity)
        try:
            made = _prepare_folder(path, read_only=read_only)
            map_bytes = min(map_bytes_first, map_bytes_max - reserve_bytes)
            env, opened = _open_driver(path, tables, map_bytes, read_only=read_only)
            if made:
                sync_folder(path)
                sync_folder(path.parent)
        except BaseException:
            with _open_paths_lock:
                _open_paths.discard(identity)
            raise
        return cls(
            path,
            env,
            opened,
            map_bytes_max=map_bytes_max,
            reserve_bytes=reserve_bytes,
            read_only=read_only,
        )

    def write(self, body: Callable[[WriteTransaction], T], *, from_reserve: bool = False) -> T:
        """Run `body` in a write transaction, commit, and return what it returned.

        The body runs in the calling thread; it runs again from the start after the map has
        grown, so it must have no effect but on the transaction. What it raises undoes all.

        Raises:
            StorageFullError: Nothing was written.
            StorageFailedError: The outcome is unknown, or the environment is damaged; stop.
        """
        assert os.getpid() == self._pid, "an environment must not be carried across a fork"
        ballast = self._ballast
        assert ballast is not None, "a read-only environment has no writer"
        with self._writing:
            if not from_reserve and ballast.is_threatened():
                raise StorageFullError(str(self.path), "the disk has only the reserve left")
            while True:
                try:
                    return self._attempt(body, from_reserve=from_reserve)
                except lmdb.MapFullError:
                    self._grow(from_reserve=from_reserve)
                except lmdb.MapResizedError:
                    self._resize(0)
                except _NoSpaceError as error:
                    if not (from_reserve and ballast.give_up()):
                        raise StorageFullError(str(self.path), "no space left on disk") from error
                except lmdb.Error as error:
                    raise self._failed(error) from error

    @property
    def flushes_quickly(self) -> bool:
        """Whether a commit is over sooner in the caller's thread than in one of its own.

        The driver gives up the interpreter's lock at every row that it reads or deletes. Beside a
        busy loop a commit of 140 records took 20 ms in a thread, and 3 ms in the loop (measured).
        """
        return self.flush_ms < FLUSH_QUICK_MS

    def read(self) -> View:
        """Give a consistent view of what is committed. Keep it short, and never write inside.

        Entering and leaving it raises:
            StorageFailedError: If the driver finds the environment damaged.
        """
        assert os.getpid() == self._pid, "an environment must not be carried across a fork"
        return View(self)

    def usage(self) -> Usage:
        """Return how full it is.

        `used` counts the pages that hold something, so deleting lowers it; pages kept to be
        written again are not used, nor is LMDB's list of them, an eighth of a percent of them.
        `size` is the length of the file, which never shrinks.
        """
        with self.read() as view:
            used = self._live_bytes(view._txn)
            size = (int(self._env.info()["last_pgno"]) + 1) * self._page_bytes
        return Usage(used, size, self._cap, self._reserve, self._oldest_snapshot())

    def _oldest_snapshot(self) -> int | None:
        """Return the oldest transaction whose state a reader, in whatever process, still sees."""
        newest = int(self._env.info()["last_txnid"])
        # A line of LMDB's list is: process id, thread, transaction or a dash for none.
        lines = (line.split() for line in self._env.readers().splitlines())
        seen = [int(line[2]) for line in lines if len(line) == 3 and line[2].isdigit()]
        oldest = min(seen, default=newest)
        return oldest if oldest < newest else None

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy into the empty folder `path`, durable on return.

        Writers go on, but the map cannot grow meanwhile: from another process, it can.

        Raises:
            StorageFullError: If there is no space for the copy.
            StorageFailedError: If the copy cannot be made for another reason.
        """
        self._gate.enter()
        try:
            self._env.copy(str(path))
        except lmdb.Error as error:
            if error.code in NO_SPACE:
                raise StorageFullError(str(path), str(error)) from error
            raise self._failed(error) from error
        finally:
            self._gate.leave()
        data = path / "data.mdb"
        data.chmod(0o600)
        with data.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(path)

    def close(self) -> None:
        """Let go of the files, after the write and the reads under way; may be repeated."""
        with self._writing, self._gate.closed():
            if self._closed:
                return
            self._closed = True
            self._env.close()
        with _open_paths_lock:
            _open_paths.discard((self._pid, str(self.path)))

    def _attempt(self, body: Callable[[WriteTransaction], T], *, from_reserve: bool) -> T:
        txn = self._env.begin(write=True)
        txn_id = txn.id()
        transaction = WriteTransaction(self._env, txn, self._tables)
        try:
            try:
                result = body(transaction)
                if not from_reserve:
                    self._refuse_over_cap(txn)
            except BaseException:
                txn.abort()
                raise
            began_s = time.perf_counter()
            txn.commit()
            self._note_flush(transaction, (time.perf_counter() - began_s) * 1_000)
        except lmdb.Error as error:
            if self._means_no_space(error) and self._is_void(txn_id):
                raise _NoSpaceError from error
            raise
        return result

    def _note_flush(self, transaction: WriteTransaction, taken_ms: float) -> None:
        if transaction.changed:
            self.commits += 1
            self.bytes_written += transaction.bytes_put
            self.flush_ms += (taken_ms - self.flush_ms) * _SMOOTHING

    def _means_no_space(self, error: Any) -> bool:
        """Return whether the disk is full.

        LMDB says EIO when only a part of the pages could be written (mdb.c: "short write,
        filesystem full?"); what could be written has then used up all there was.
        """
        if error.code != errno.EIO:
            return error.code in NO_SPACE
        return free_bytes(self.path) < SHORT_WRITE_BYTES_MAX

    def _is_void(self, txn_id: int) -> bool:
        """Return whether a transaction certainly left nothing: its meta page was not touched."""
        try:
            self._env.begin().abort()
        except lmdb.Error:
            return False
        return int(self._env.info()["last_txnid"]) < txn_id

    def _begin_read(self) -> Any:
        while True:
            self._gate.enter()
            try:
                return self._env.begin()
            except lmdb.MapResizedError:
                self._gate.leave()
                self._resize(0)
            except lmdb.Error as error:
                self._gate.leave()
                raise self._failed(error) from error
            except BaseException:
                self._gate.leave()
                raise

    def _grow(self, *, from_reserve: bool) -> None:
        if self._env.reader_check():
            return  # A reader that was killed had kept old pages from being written again.
        limit = self._cap if from_reserve else self._cap - self._reserve
        if self._map_bytes >= limit:
            raise StorageFullError(str(self.path), f"its cap of {limit} bytes is reached")
        self._resize(min(limit, self._map_bytes * 2))

    def _resize(self, map_bytes: int) -> None:
        """Map `map_bytes`, or with 0 what another process has made of it."""
        with self._gate.closed():
            try:
                self._env.set_mapsize(map_bytes)
            except lmdb.Error as error:
                raise self._failed(error) from error
            self._map_bytes = max(map_bytes, int(self._env.info()["map_size"]))

    def _live_bytes(self, txn: Any) -> int:
        pages = 2
        for stat in (txn.stat(), *(txn.stat(db) for db in self._tables.values())):
            pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages) * self._page_bytes

    def _refuse_over_cap(self, txn: Any) -> None:
        """Refuse what would eat into the reserve, though the map was grown into it before."""
        limit = self._cap - self._reserve
        if self._map_bytes > limit and self._live_bytes(txn) > limit:
            raise StorageFullError(str(self.path), f"its cap of {limit} bytes is reached")

    def _failed(self, error: BaseException) -> StorageFailedError:
        return StorageFailedError(str(self.path), f"{type(error).__name__}: {error}")


def structure_flaws(path: Path) -> list[str]:
    """Return what is wrong with the pages of the environment in `path`, which nobody writes.

    The file is read as bytes and never mapped, so that even a hostile one can do no harm;
    values are not looked into. Costs some 10 microseconds a page.

    Raises:
        DataFolderError: If it is no LMDB file at all.
    """
    verify: Any = lmdb_verify.verify
    try:
        return list(verify(str(path)))
    except lmdb_verify.VerifyError as error:
        raise DataFolderError(
            str(path), f"is damaged or not ours ({error}); use another backup"
        ) from error
    except OSError as error:
        raise unusable(path, error) from error


def _prepare_folder(path: Path, *, read_only: bool) -> bool:
    """Make the folder unless it is there; return whether the environment is new."""
    if not read_only:
        make_folder(path)
    try:
        return not (path / "data.mdb").exists()
    except OSError as error:
        raise unusable(path, error) from error


def _open_driver(
    path: Path, tables: Sequence[str], map_bytes: int, *, read_only: bool
) -> tuple[Any, dict[str, Any]]:
    _allocate_lock_file(path / "lock.mdb", read_only=read_only)
    env = None
    try:
        env = lmdb.open(
            str(path),
            map_size=map_bytes,
            max_dbs=len(tables),
            max_readers=READERS_MAX,
            mode=0o600,
            create=not read_only,
            readonly=read_only,
            sync=True,
            metasync=True,
            writemap=False,
            lock=True,
        )
        if read_only:
            opened = {name: env.open_db(name.encode(), create=False) for name in tables}
        else:
            # Slots of readers that were killed would pin the pages they saw.
            env.reader_check()
            with env.begin(write=True) as txn:
                opened = {name: env.open_db(name.encode(), txn=txn) for name in tables}
    except lmdb.Error as error:
        if env is not None:
            env.close()
        raise _refusal(path, error) from error
    flags = env.flags()
    assert flags["sync"] and flags["metasync"] and flags["lock"]
    assert not flags["writemap"] and not flags["map_async"]
    return env, opened


def _allocate_lock_file(path: Path, *, read_only: bool) -> None:
    """Take the lock file's place on the disk before LMDB maps it.

    LMDB makes it with a hole for content, and a full disk kills who writes to that with
    SIGBUS. A file that others may have mapped must not become longer, though.
    """
    try:
        with open(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600), "rb+") as file:
            size = os.fstat(file.fileno()).st_size or LOCK_FILE_BYTES
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        # LMDB reads without a lock file where nobody can write one.
        if not (read_only and error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT)):
            raise unusable(path.parent, error) from error


def _refusal(path: Path, error: Any) -> DataFolderError:
    if isinstance(error, lmdb.NotFoundError) or error.code == errno.ENOENT:
        message = "does not exist, or holds no data of this kind; check the path"
    elif isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError)):
        message = f"is damaged or not ours ({error}); restore a backup or name another folder"
    elif isinstance(error, lmdb.MapFullError):
        message = "its cap is too small even to make the tables; raise the cap"
    elif error.code > 0:
        return unusable(path, OSError(error.code, str(error)))
    else:
        message = f"cannot be opened ({error})"
    return DataFolderError(str(path), message)
