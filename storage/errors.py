"""What can go wrong with what is stored, sorted by what a host must do about it."""

from __future__ import annotations

from raysaga.statemachines.errors import SagaError


class StorageError(SagaError):
    """The root of the errors of this folder."""

    code = "STORAGE_ERROR"


class StorageFullError(StorageError):
    """The map is at its cap, or the disk has no space; nothing of the batch was written.

    Definite: the batch is void as a whole. It can succeed later, when space
    was made, or from the head-room that is kept for compensations.

    Attributes:
        path: The folder of the environment.
        detail: What was hit: the cap in bytes, or the operating system's words.
    """

    code = "STORAGE_FULL"
    retryable = True

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path} is full ({self.detail}); free space or raise the cap, then try again"


class StorageFailedError(StorageError):
    """A commit failed in a way that leaves its outcome unknown.

    The process must stop without answering anybody: LMDB does not latch an
    fsync error, and the next commit would succeed as if nothing had happened.

    Attributes:
        path: The folder of the environment.
        detail: The error as the driver told it.
    """

    code = "STORAGE_FAILED"

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(path, detail)
        self.path = path
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.path}: a commit may or may not be on disk ({self.detail}); stopping"


class StaleEpochError(StorageError):
    """The scope has a newer owner; this one has been fenced out.

    Raised before anything is written. The host must stop and forget what it
    held in memory: what it did not commit never happened.

    Attributes:
        scope: What was written to.
        held: The epoch this host presented.
        current: The epoch in force, always greater.
    """

    code = "FENCED"

    def __init__(self, scope: str, held: int, current: int) -> None:
        super().__init__(scope, held, current)
        self.scope = scope
        self.held = held
        self.current = current

    def __str__(self) -> str:
        return f"{self.scope}: epoch {self.held} is stale, {self.current} is in force"


class SequenceError(StorageError):
    """A record does not follow the last one of its saga: a bug, or two writers.

    Attributes:
        saga_id: The saga.
        expected: The sequence number that would follow.
        found: The sequence number presented.
    """

    code = "SEQUENCE_BROKEN"

    def __init__(self, saga_id: str, expected: int, found: int) -> None:
        super().__init__(saga_id, expected, found)
        self.saga_id = saga_id
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.saga_id}: record {self.found} does not follow, {self.expected} would"


class RecordCorruptError(StorageError):
    """A stored record does not carry what was written: bad CRC, chain, version or form.

    Confined to its saga, which is parked; never skipped, never guessed.

    Attributes:
        saga_id: The saga, or the key of a row that is no saga's.
        seq: The record's sequence number, or -1 if it cannot be told.
        detail: Which check failed.
    """

    code = "JOURNAL_CORRUPT"

    def __init__(self, saga_id: str, seq: int, detail: str) -> None:
        super().__init__(saga_id, seq, detail)
        self.saga_id = saga_id
        self.seq = seq
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.saga_id}: record {self.seq} is corrupt ({self.detail})"


class NewerFormatError(StorageError):
    """What is stored was written by a later version; only that version may open it.

    Nothing is wrong with it, and nothing may be skipped: the host does not start.

    Attributes:
        what: The saga, or the folder.
        found: The version or form that was found.
        known: The newest format version that this release reads.
    """

    code = "NEWER_FORMAT"

    def __init__(self, what: str, found: int | str, known: int) -> None:
        super().__init__(what, found, known)
        self.what = what
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.what}: format {self.found} is newer than {self.known}, "
            "which this version reads; upgrade raysaga"
        )


class DataFolderError(StorageError):
    """The data folder cannot be used as asked, and is left untouched.

    Attributes:
        path: The folder.
        message: Why, and what to do, in one sentence.
    """

    code = "DATA_FOLDER_UNUSABLE"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(path, message)
        self.path = path
        self.message = message

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"
