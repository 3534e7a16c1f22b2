"""What storage asks of the file system, and the reasons for refusing, in one sentence each.

Guarantees: `write_atomically` leaves the old file or the new one, and the new
one is on disk when it returns; `appearing_folder` the same of a whole folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from raysaga.storage.errors import DataFolderError

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"}
)
"""LMDB maps its file and locks with a mutex in shared memory (lmdb.h, "Restrictions/caveats":
"Do not use LMDB databases on remote filesystems")."""


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; fsync of a file does not (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(path: Path) -> int:
    """Return what can still be written to the disk that `path` is on."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def make_folder(path: Path) -> None:
    """Make a folder that only its owner can enter, with those above it; it may exist.

    Raises:
        DataFolderError: If that is not possible.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, error) from error


def write_atomically(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file of mode 0600 in one step; durable on return.

    Raises:
        FileExistsError: If it exists and `replace` is false; it is left as it is.
        OSError: If it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def appearing_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill that gets the name `target` at the end, complete or not at all.

    Raises:
        DataFolderError: If `target` exists and is not an empty folder, or cannot be made.
    """
    target = Path(os.path.realpath(target))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataFolderError(str(target), "is not empty; name a new or an empty folder")
        make_folder(target.parent)
        # A process with our pid may have been killed here before.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700)
    except OSError as error:
        raise unusable(target, error) from error
    try:
        yield temporary
        sync_folder(temporary)
        # An empty folder of that name is replaced (rename(2)).
        temporary.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise unusable(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of file system that `path` is on; empty if it cannot be told."""
    found, longest = "", -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Spaces in a name are written as \040 (proc(5)).
        point = fields[1].encode().decode("unicode_escape", errors="replace")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= longest:
            found, longest = fields[2], len(point)
    return found


def unusable(path: Path, error: OSError) -> DataFolderError:
    """Return the error that says why the operating system does not let us use `path`."""
    if error.errno in NO_SPACE:
        message = "the disk is full; free space, then start again"
    elif error.errno in NOT_WRITABLE:
        message = "cannot be written to; check its owner, its mode and how the disk is mounted"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        message = "is not a folder; name a folder to keep data in"
    elif error.errno == errno.ENOENT:
        message = "does not exist and cannot be made; check the path"
    else:
        message = f"cannot be used ({error.strerror}); check the path and the disk"
    return DataFolderError(str(path), message)
