"""The contract of a journal: what one shard remembers of its sagas.

Guarantees: when `commit` returns, all its entries are on disk together; when it
raises `StorageFullError` or `StaleEpochError` none of them is. Any other error
of `commit` leaves the outcome unknown, and the host must stop.
Refuses: a commit under an epoch that is not the newest of its scope, and a
record that does not follow the last one of its saga.

Journals are plain blocking objects; who must not block calls them in a thread.
One suite of contract tests holds every implementation to this page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.tables import Phase

CHAIN_BYTES = 16
"""Length of the hash that ties a record to the one before it."""

CHAIN_START = bytes(CHAIN_BYTES)
"""What the first record of a saga is tied to."""


class Birth(NamedTuple):
    """What the first record of a saga adds to the indexes.

    Attributes:
        scope: The owner for ever; each later commit must be made under it.
        key: The client's key.
        fingerprint: Hash of the request; tells a repeat from a conflict.
        definition_name: Name of the definition.
        definition_hash: Its content hash; must have been given to `put_definition`.
    """

    scope: Scope
    key: str
    fingerprint: str
    definition_name: str
    definition_hash: str


class Entry(NamedTuple):
    """One record of one saga, encoded before it joins a batch.

    Attributes:
        saga_id: Whose record it is.
        seq: 0 for the first, then without a gap.
        record: The bytes to keep; see `codec`.
        chain: Hash of this record, which the next one is tied to.
        phase: Where the saga stands after it.
        at_ms: When it was decided, Unix time.
        reason: Code for people: why it is compensated or parked; else empty.
        step: Name of the step that the reason is about; else empty.
        due_at_ms: When the saga must be looked at again even if nothing arrives; or None.
        birth: With the first record only.
    """

    saga_id: SagaId
    seq: int
    record: bytes
    chain: bytes
    phase: Phase
    at_ms: int
    reason: str
    step: str
    due_at_ms: int | None
    birth: Birth | None


class Head(NamedTuple):
    """What the indexes tell of a saga without reading its records."""

    saga_id: SagaId
    seq: int
    chain: bytes
    phase: Phase
    accepted_at_ms: int
    changed_at_ms: int
    reason: str
    step: str
    due_at_ms: int | None
    scope: Scope
    fingerprint: str
    definition_name: str
    definition_hash: str


class KeyRecord(NamedTuple):
    """What outlives a saga: enough to answer a repeat of its submission."""

    saga_id: SagaId
    fingerprint: str
    phase: Phase
    reason: str
    changed_at_ms: int


class Usage(NamedTuple):
    """How full a journal is, in bytes; `cap` less `reserve` is open to new sagas.

    `oldest_snapshot` names the oldest state that a reader still holds, if that is not the
    newest: what was written over since cannot be used again until the reader lets go.
    """

    used: int
    size: int
    cap: int
    reserve: int
    oldest_snapshot: int | None = None


class HeadsFound(NamedTuple):
    """What one look at some of the sagas has found.

    Attributes:
        heads: Those that were wanted.
        last: The saga looked at last, to go on after; None if there are no more.
    """

    heads: list[Head]
    last: SagaId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalIdentity:
    """What a journal is for, written once when it is made.

    Attributes:
        uuid: Of the data folder; part of each idempotency key.
        shard: Index of the shard.
        shard_count: Number of shards of the data folder; it never changes.
    """

    uuid: str
    shard: int
    shard_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFilter:
    """Which sagas to list; every condition must hold.

    Attributes:
        phases: Any of these; None for all.
        reason: Exactly this code.
        step: Exactly this step.
        definition: Exactly this name.
        accepted_before_ms: Accepted before this instant, Unix time. A journal may seek it: if
            a clock was set back by more than a minute, some from before that can be left out.
        accepted_from_ms: Accepted at or after this instant.
    """

    phases: frozenset[Phase] | None = None
    reason: str | None = None
    step: str | None = None
    definition: str | None = None
    accepted_before_ms: int | None = None
    accepted_from_ms: int | None = None

    def accepts(self, head: Head) -> bool:
        """Return whether `head` meets every condition."""
        return (
            (self.phases is None or head.phase in self.phases)
            and (self.reason is None or head.reason == self.reason)
            and (self.step is None or head.step == self.step)
            and (self.definition is None or head.definition_name == self.definition)
            and (self.accepted_before_ms is None or head.accepted_at_ms < self.accepted_before_ms)
            and (self.accepted_from_ms is None or head.accepted_at_ms >= self.accepted_from_ms)
        )


class Journal(Protocol):
    """One shard's memory. See the head of this module."""

    identity: JournalIdentity

    def grant_epoch(self, scope: Scope, owner: str, now_ms: int) -> Epoch:
        """Make the caller the owner of `scope`; durable on return.

        Raises:
            StorageFullError: If not even the head-room has room.
        """

    def epoch(self, scope: Scope) -> Epoch:
        """Return the newest epoch of `scope`, 0 if there never was an owner."""

    def commit(
        self, scope: Scope, epoch: Epoch, entries: Sequence[Entry], *, from_reserve: bool = False
    ) -> None:
        """Write `entries` together, in order; several may belong to one saga.

        `from_reserve` opens the head-room that is kept for finishing what was begun.
        Without entries it compares the epoch and costs no flush. A record after a terminal
        one is a bug of the caller, and an assertion fails.

        Raises:
            StaleEpochError: If `epoch` is not the one in force in `scope`, or a saga that exists
                belongs to another scope (a birth may name another scope than the writer's).
            SequenceError: If a record does not follow its predecessor.
            StorageFullError: Nothing was written.
            StorageFailedError: The outcome is unknown.
        """

    def put_definition(self, content_hash: str, data: Mapping[str, Any]) -> None:
        """Keep a definition under its content hash; durable on return; a repeat is free.

        Raises:
            StorageFullError: Nothing was written.
        """

    def definitions(self) -> dict[str, Mapping[str, Any]]:
        """Return every definition by content hash."""

    def head(self, saga_id: SagaId) -> Head | None:
        """Return the index row of a saga, None if it is unknown or was pruned."""

    def records(self, saga_id: SagaId) -> list[bytes]:
        """Return a saga's records, oldest first; empty if unknown.

        Raises:
            RecordCorruptError: If a record of the saga is missing.
        """

    def key_record(self, saga_id: SagaId) -> KeyRecord | None:
        """Return what is known of a saga even after it was pruned."""

    def active(self) -> Iterator[Head]:
        """Yield every saga that is not terminal, parked ones included, oldest first."""

    def heads(
        self, wanted: HeadFilter, *, limit: int, after: SagaId | None = None, newest: bool = True
    ) -> list[Head]:
        """Return a page of sagas in the order in which they were committed first.

        `after` is the last id of the page before; it may have been pruned since. A filter
        that few sagas meet passes over the others, at some microseconds each.

        Raises:
            KeyError: If `after` is unknown.
        """

    def look(
        self,
        wanted: HeadFilter,
        *,
        limit: int,
        rows_max: int,
        after: SagaId | None = None,
        newest: bool = True,
    ) -> HeadsFound:
        """Look at `rows_max` sagas at most, as `heads` does; for who must not be held up.

        Raises:
            KeyError: If `after` is unknown.
        """

    def counts(self) -> dict[Phase, int]:
        """Return the number of sagas in each phase, pruned ones not included."""

    def due_before(self, now_ms: int, limit: int) -> list[SagaId]:
        """Return sagas whose timer is due at `now_ms` or was before, earliest first."""

    def unreleased(self, limit: int) -> list[Head]:
        """Return terminal sagas whose participants were not yet all told to forget them."""

    def mark_released(self, saga_ids: Sequence[SagaId]) -> None:
        """Note that every participant has confirmed; may be lost in a crash, at no harm."""

    def prune(self, finished_before_ms: int, limit: int) -> int:
        """Forget records of released terminal sagas that ended before; keep their key records.

        Returns the number of sagas pruned, at most `limit`.
        """

    def prune_keys(self, finished_before_ms: int, limit: int) -> int:
        """Forget key records of pruned sagas that ended before; return how many."""

    def restored_at_ms(self) -> int | None:
        """Return when the journal was restored from a backup and not yet reconciled; or None."""

    def clear_restored(self) -> None:
        """Note that every saga has been reconciled after a restore."""

    def usage(self) -> Usage:
        """Return how full the journal is."""

    def index_flaws(self) -> Iterator[tuple[str, str]]:
        """Yield what contradicts itself in the indexes: a saga's id or a row's name, and why.

        Records are not looked into; that is the verifier's work.
        """

    def backup(self, target: Path) -> None:
        """Write a consistent copy into the empty folder `target`, verified before it is named so.

        Raises:
            DataFolderError: If `target` exists and is not empty, or the copy does not verify.
        """

    def close(self) -> None:
        """Let go of the files; every later call is an error of the caller."""
