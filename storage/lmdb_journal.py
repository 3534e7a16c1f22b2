"""Keeps one shard's journal in one LMDB environment.

Guarantees: the contract of `Journal`; `commit` checks epoch, scope and sequence
inside the transaction that writes, so two owners never both make progress, be
they in one process or in two.
Refuses: a journal of another data folder or of a newer format.
Costs: one flush a commit, whatever the number of entries; about 15 microseconds
of processor time a saga beside it. Records and births only ever go to the end
of their tables, and the rows that change are small and lie together.

Several processes may write to one journal, a shard and its dedicated sagas:
whatever is counted or numbered is a row that the transaction reads and writes.
Only the places of the caller's own sagas are kept in memory, and only while its
epoch stands: nobody else can have written to them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.tables import TERMINAL, Phase
from raysaga.storage import journal_rows as rows
from raysaga.storage.codec import FORMAT_VERSION
from raysaga.storage.errors import (
    DataFolderError,
    NewerFormatError,
    StaleEpochError,
)
from raysaga.storage.file_system import appearing_folder
from raysaga.storage.journal import (
    Entry,
    Head,
    HeadFilter,
    HeadsFound,
    JournalIdentity,
    KeyRecord,
    Usage,
)
from raysaga.storage.journal_rows import NUMBER, TIME_AND_NUMBER
from raysaga.storage.lmdb_batch import Batch, Place
from raysaga.storage.lmdb_environment import Environment, ReadTransaction, WriteTransaction
from raysaga.storage.lmdb_forgetting import forget_keys, move_to_released, prune
from raysaga.storage.lmdb_index_check import index_flaws
from raysaga.storage.lmdb_lookup import (
    birth_at,
    head_at,
    number_before,
    number_of,
    records_back_from,
    select,
    state_at,
)
from raysaga.storage.outbox import least_bookmark
from raysaga.storage.settings import JournalSettings
from raysaga.storage.verify import VerifyReport, verify_journal

HEADS_A_READ = 256
"""Heads read in one transaction; more would hold up growth, and an event loop, for longer."""

ROWS_A_READ = 4_096
"""Rows passed over in one transaction when few of them are wanted."""

PLACES_MAX = 100_000
"""Sagas whose place is remembered; others cost three look-ups a commit."""

RELEASES_WAITING_MAX = 512
"""Released sagas that wait to be noted with the next commit; more get a commit of their own."""

SAGAS_A_PRUNING = 256
"""Sagas forgotten in one transaction, so that commits need not wait long."""


class LmdbJournal:
    """One shard's memory in a folder. See `Journal` and the head of this module.

    Attributes:
        identity: What the journal is for.
        environment: Where it is kept; its counters are for the bench.
    """

    def __init__(self, environment: Environment, identity: JournalIdentity) -> None:
        self.environment = environment
        self.identity = identity
        self._writing = threading.RLock()
        self._owner: tuple[Scope, Epoch] | None = None
        self._places: dict[SagaId, Place] = {}
        self._known_definitions: set[str] = set()
        self._releases: dict[SagaId, None] = {}

    @classmethod
    def open(
        cls,
        path: Path,
        identity: JournalIdentity | None,
        settings: JournalSettings,
        *,
        read_only: bool = False,
    ) -> LmdbJournal:
        """Open the journal in the folder `path`; make it if there is an `identity` for it.

        Raises:
            DataFolderError: If it cannot be opened, or is not the one that was asked for.
            NewerFormatError: If a later version wrote it.
        """
        environment = Environment.open(
            path,
            tables=rows.TABLES,
            map_bytes_first=settings.map_bytes_first,
            map_bytes_max=settings.map_bytes_max,
            reserve_bytes=settings.reserve_bytes,
            read_only=read_only,
        )
        try:
            found = _identity_in(environment)
            if found is None:
                if identity is None or read_only:
                    raise DataFolderError(str(path), "holds no journal; check the path")
                _write_identity(environment, identity)
                found = identity
            elif identity is not None and found != identity:
                raise DataFolderError(
                    str(path),
                    f"holds shard {found.shard} of {found.shard_count} of folder {found.uuid}, "
                    f"not shard {identity.shard} of {identity.shard_count} of {identity.uuid}",
                )
        except BaseException:
            environment.close()
            raise
        return cls(environment, found)

    def grant_epoch(self, scope: Scope, owner: str, now_ms: int) -> Epoch:
        """See `Journal`."""
        key = scope.encode()

        def body(txn: WriteTransaction) -> Epoch:
            epoch, _, _ = rows.unpack_epoch(key, txn.get(rows.EPOCHS, key))
            granted = Epoch(max(epoch, _epoch_base(txn)) + 1)
            txn.put(rows.EPOCHS, key, rows.pack_epoch(key, granted, owner, now_ms))
            return granted

        with self._writing:
            return self.environment.write(body, from_reserve=True)

    def epoch(self, scope: Scope) -> Epoch:
        """See `Journal`."""
        key = scope.encode()
        with self.environment.read() as view:
            return rows.unpack_epoch(key, view.get(rows.EPOCHS, key))[0]

    def commit(
        self, scope: Scope, epoch: Epoch, entries: Sequence[Entry], *, from_reserve: bool = False
    ) -> None:
        """See `Journal`. Without entries, it only checks the epoch, and costs no flush."""
        with self._writing:
            if self._owner != (scope, epoch):
                # Between two grants of one owner, another may have written.
                self._places.clear()
                self._owner = (scope, epoch)
            hashes = {entry.birth.definition_hash for entry in entries if entry.birth is not None}
            unknown = hashes - self._known_definitions
            releases = list(self._releases)

            def body(txn: WriteTransaction) -> Batch:
                _check_epoch(txn, scope, epoch)
                for content_hash in unknown:
                    assert txn.get(rows.DEFINITIONS, content_hash.encode()) is not None, (
                        "a saga's definition is put before the saga"
                    )
                # First, for a saga that ends only now was not released before.
                move_to_released(txn, releases)
                batch = Batch(txn, scope, epoch, self._places)
                batch.add(entries)
                batch.write()
                return batch

            self._remember(self.environment.write(body, from_reserve=from_reserve))
            self._known_definitions |= unknown
            self._forget_releases(releases)

    def put_definition(self, content_hash: str, data: Mapping[str, Any]) -> None:
        """See `Journal`."""
        if content_hash in self._known_definitions:
            return
        key = content_hash.encode()
        row = rows.pack_data(key, dict(data))

        def body(txn: WriteTransaction) -> None:
            if txn.get(rows.DEFINITIONS, key) is None:
                txn.put(rows.DEFINITIONS, key, row)

        with self._writing:
            self.environment.write(body)
            self._known_definitions.add(content_hash)

    def definitions(self) -> dict[str, Mapping[str, Any]]:
        """See `Journal`."""
        with self.environment.read() as view:
            return {
                key.decode(): rows.unpack_data(rows.DEFINITIONS, key, row)
                for key, row in view.scan(rows.DEFINITIONS)
            }

    def head(self, saga_id: SagaId) -> Head | None:
        """See `Journal`."""
        with self.environment.read() as view:
            number = number_of(view, saga_id)
            return None if number is None else head_at(view, number, saga_id)

    def records(self, saga_id: SagaId) -> list[bytes]:
        """See `Journal`."""
        with self.environment.read() as view:
            number = number_of(view, saga_id)
            if number is None:
                return []
            state = state_at(view, number, saga_id)
            found = [record for _, record in records_back_from(view, saga_id, number, state)]
        found.reverse()
        return found

    def key_record(self, saga_id: SagaId) -> KeyRecord | None:
        """See `Journal`."""
        key = saga_id.encode()
        with self.environment.read() as view:
            row = view.get(rows.IDS, key)
            if row is None:
                return None
            number = rows.number_if_kept(key, row)
            if number is None:
                return rows.unpack_pruned(key, row).key_record
            head = head_at(view, number, saga_id)
        return KeyRecord(saga_id, head.fingerprint, head.phase, head.reason, head.changed_at_ms)

    def active(self) -> Iterator[Head]:
        """See `Journal`."""
        start = b""
        while True:
            with self.environment.read() as view:
                keys = [key for key, _ in islice(view.scan(rows.ACTIVE, start=start), HEADS_A_READ)]
                heads = [head_at(view, NUMBER.unpack(key)[0]) for key in keys]
            yield from heads
            if len(keys) < HEADS_A_READ:
                return
            start = keys[-1] + b"\0"

    def heads(
        self, wanted: HeadFilter, *, limit: int, after: SagaId | None = None, newest: bool = True
    ) -> list[Head]:
        """See `Journal`; sagas accepted in one millisecond come in the order of commit."""
        found: list[Head] = []
        rows_max = min(max(limit, HEADS_A_READ), ROWS_A_READ)
        while len(found) < limit:
            room = limit - len(found)
            page = self.look(wanted, limit=room, rows_max=rows_max, after=after, newest=newest)
            found += page.heads
            if page.last is None:
                break
            after, rows_max = page.last, ROWS_A_READ
        return found

    def look(
        self,
        wanted: HeadFilter,
        *,
        limit: int,
        rows_max: int,
        after: SagaId | None = None,
        newest: bool = True,
    ) -> HeadsFound:
        """See `Journal`; all in one read. Sagas of an age are sought, and not scanned for."""
        start, stop = b"", None
        if after is not None:
            number = self._number_even_if_pruned(after)
            if newest:
                stop = NUMBER.pack(number)
            else:
                start = NUMBER.pack(number + 1)
        open_only = wanted.phases is not None and not wanted.phases & TERMINAL
        table = rows.ACTIVE if open_only else rows.STATES
        found: list[Head] = []
        with self.environment.read() as view:
            if newest and after is None and wanted.accepted_before_ms is not None:
                stop = NUMBER.pack(number_before(view, wanted.accepted_before_ms))
            scan = view.scan(table, start=start, stop=stop, reverse=newest)
            page = [key for key, _ in islice(scan, rows_max)]
            select(view, page, wanted, limit, found)
            if len(found) == limit and found:
                return HeadsFound(found, found[-1].saga_id)
            if len(page) < rows_max:
                return HeadsFound(found, None)
            return HeadsFound(found, birth_at(view, NUMBER.unpack(page[-1])[0]).saga_id)

    def counts(self) -> dict[Phase, int]:
        """See `Journal`; it reads one row."""
        with self.environment.read() as view:
            counts = rows.unpack_counters(view.get(rows.META, rows.COUNTERS)).counts
        return {phase: counts[code - 1] for phase, code in rows.PHASE_CODES.items()}

    def due_before(self, now_ms: int, limit: int) -> list[SagaId]:
        """See `Journal`."""
        stop = TIME_AND_NUMBER.pack(now_ms + 1, 0)
        with self.environment.read() as view:
            keys = [key for key, _ in islice(view.scan(rows.DUE, stop=stop), limit)]
            return [birth_at(view, TIME_AND_NUMBER.unpack(key)[1]).saga_id for key in keys]

    def unreleased(self, limit: int) -> list[Head]:
        """See `Journal`."""
        waiting = self._releases
        found: list[Head] = []
        with self.environment.read() as view:
            for key, _ in view.scan(rows.UNRELEASED):
                if len(found) == limit:
                    break
                head = head_at(view, TIME_AND_NUMBER.unpack(key)[1])
                if head.saga_id not in waiting:
                    found.append(head)
        return found

    def mark_released(self, saga_ids: Sequence[SagaId]) -> None:
        """See `Journal`; it is written with the next commit, or after some thousand."""
        with self._writing:
            self._releases.update(dict.fromkeys(saga_ids))
            if len(self._releases) > RELEASES_WAITING_MAX:
                self._write_releases()

    def prune(self, finished_before_ms: int, limit: int) -> int:
        """See `Journal`; other commits may come in between. What is not told yet is kept."""
        stop = TIME_AND_NUMBER.pack(max(finished_before_ms, 0), 0)
        keep_from = least_bookmark(self.environment.path)
        pruned = 0

        def body(txn: WriteTransaction) -> int:
            room = min(limit - pruned, SAGAS_A_PRUNING)
            keys = [key for key, _ in islice(txn.scan(rows.RELEASED, stop=stop), room)]
            return prune(txn, keys, keep_from)

        with self._writing:
            self._write_releases()
        while pruned < limit:
            with self._writing:
                count = self.environment.write(body, from_reserve=True)
            if not count:
                break
            pruned += count
        return pruned

    def prune_keys(self, finished_before_ms: int, limit: int) -> int:
        """See `Journal`."""
        stop = TIME_AND_NUMBER.pack(max(finished_before_ms, 0), 0)

        def body(txn: WriteTransaction) -> int:
            found = list(islice(txn.scan(rows.PRUNED, stop=stop), limit))
            forget_keys(txn, found)
            return len(found)

        with self._writing:
            return self.environment.write(body, from_reserve=True)

    def restored_at_ms(self) -> int | None:
        """See `Journal`."""
        with self.environment.read() as view:
            row = view.get(rows.META, rows.RESTORED)
        return None if row is None else int(rows.unpack_data(rows.META, rows.RESTORED, row))

    def clear_restored(self) -> None:
        """See `Journal`."""
        with self._writing:
            self.environment.write(
                lambda txn: txn.delete(rows.META, rows.RESTORED), from_reserve=True
            )

    def mark_restored(self, restored_at_ms: int, epoch_jump: int) -> None:
        """Raise every epoch and note the restore; only `backup.restore` does this.

        Epochs granted after the backup was made are unknown here, and their holders may
        still live, or participants remember them: new epochs begin beyond them, those of
        scopes that are not known here as well.
        """

        def body(txn: WriteTransaction) -> None:
            for key, row in list(txn.scan(rows.EPOCHS)):
                epoch, owner, at_ms = rows.unpack_epoch(key, row)
                raised = Epoch(epoch + epoch_jump)
                txn.put(rows.EPOCHS, key, rows.pack_epoch(key, raised, owner, at_ms))
            base = _epoch_base(txn) + epoch_jump
            txn.put(rows.META, rows.EPOCH_BASE, rows.pack_data(rows.EPOCH_BASE, base))
            txn.put(rows.META, rows.RESTORED, rows.pack_data(rows.RESTORED, restored_at_ms))

        with self._writing:
            self.environment.write(body, from_reserve=True)

    def usage(self) -> Usage:
        """See `Journal`."""
        return self.environment.usage()

    def backup(self, target: Path) -> None:
        """See `Journal`."""
        with appearing_folder(target) as folder:
            self.environment.copy_to(folder)
            verify_copy(folder, self.identity)

    def index_flaws(self) -> Iterator[tuple[str, str]]:
        """See `Journal`."""
        return index_flaws(self.environment)

    def close(self) -> None:
        """See `Journal`."""
        with self._writing:
            self.environment.close()

    def _number_even_if_pruned(self, saga_id: SagaId) -> int:
        key = saga_id.encode()
        with self.environment.read() as view:
            row = view.get(rows.IDS, key)
        if row is None:
            raise KeyError(saga_id)
        number = rows.number_if_kept(key, row)
        return rows.unpack_pruned(key, row).number if number is None else number

    def _remember(self, batch: Batch) -> None:
        places = self._places
        for saga_id, place in batch.own_places():
            if place.phase_code in rows.TERMINAL_CODES:
                places.pop(saga_id, None)
            else:
                places[saga_id] = place
        for saga_id in list(islice(places, max(0, len(places) - PLACES_MAX))):
            del places[saga_id]

    def _write_releases(self) -> None:
        releases = list(self._releases)
        if releases:
            self.environment.write(lambda txn: move_to_released(txn, releases), from_reserve=True)
            self._forget_releases(releases)

    def _forget_releases(self, releases: Sequence[SagaId]) -> None:
        for saga_id in releases:
            self._releases.pop(saga_id, None)


def verify_copy(folder: Path, identity: JournalIdentity) -> VerifyReport:
    """Verify the journal that was copied into `folder`, and leave nothing but its data there.

    Raises:
        DataFolderError: If it is another journal, or not sound.
    """
    journal = LmdbJournal.open(folder, identity, JournalSettings(), read_only=True)
    try:
        report = verify_journal(journal)
    finally:
        journal.close()
        # A lock file is of no use to another machine, and must not be trusted there.
        (folder / "lock.mdb").unlink(missing_ok=True)
    if not report.is_sound:
        first = report.problems[0]
        raise DataFolderError(
            str(folder),
            f"{report.problem_count} problems were found in shard {identity.shard}, "
            f"first {first.saga_id}: {first.detail}; verify the original",
        )
    return report


def _identity_in(environment: Environment) -> JournalIdentity | None:
    with environment.read() as view:
        row = view.get(rows.META, rows.IDENTITY)
    if row is None:
        return None
    data = rows.unpack_data(rows.META, rows.IDENTITY, row)
    if data["format_version"] > FORMAT_VERSION:
        raise NewerFormatError(str(environment.path), data["format_version"], FORMAT_VERSION)
    return JournalIdentity(uuid=data["uuid"], shard=data["shard"], shard_count=data["shard_count"])


def _write_identity(environment: Environment, identity: JournalIdentity) -> None:
    data = {
        "format_version": FORMAT_VERSION,
        "uuid": identity.uuid,
        "shard": identity.shard,
        "shard_count": identity.shard_count,
    }
    row = rows.pack_data(rows.IDENTITY, data)
    environment.write(lambda txn: txn.put(rows.META, rows.IDENTITY, row))


def _epoch_base(view: ReadTransaction) -> int:
    row = view.get(rows.META, rows.EPOCH_BASE)
    return 0 if row is None else int(rows.unpack_data(rows.META, rows.EPOCH_BASE, row))


def _check_epoch(txn: ReadTransaction, scope: Scope, epoch: Epoch) -> None:
    key = scope.encode()
    current, _, _ = rows.unpack_epoch(key, txn.get(rows.EPOCHS, key))
    if current != epoch:
        raise StaleEpochError(scope, epoch, current)
