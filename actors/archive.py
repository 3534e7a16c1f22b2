"""Reads a data folder beside its engine, or without one.

Guarantees: it changes nothing and takes nothing over, so that an engine goes on beside it
undisturbed; what it tells is on disk. What happened within the last moments may still be
in the engine's memory: flushes that nobody waits for come within `lazy_flush_ms`.
Refuses: a folder that is not one, or that a newer version wrote.
Costs: neither Ray nor an event loop is started. Opening a shard takes about a millisecond,
and only the shards that are asked about are opened.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from raysaga.actors.archive_pages import Page, Place, TextAsked, cut, to_scan
from raysaga.actors.engine_note import read_note
from raysaga.actors.errors import OperatorRefusedError, SagaNotFoundError
from raysaga.actors.log_lines import lines_about, merged_story
from raysaga.actors.outcome import bare_outcome, head_row, status_of, ways_on
from raysaga.actors.placement import shard_of, shard_scope
from raysaga.actors.recovery import Definitions, read_events
from raysaga.actors.story import history_rows
from raysaga.actors.timeline import timeline_rows
from raysaga.statemachines.commands import Answer
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.events import Event
from raysaga.statemachines.ids import SagaId, is_key, saga_id_of
from raysaga.statemachines.machine import IllegalMove
from raysaga.statemachines.saga import Saga, replay
from raysaga.statemachines.tables import PARKED, Phase
from raysaga.storage.data_folder import DataFolder, previous_owner
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import Head, HeadFilter, Journal, Usage

PAGE_SAGAS = 256
"""Sagas listed at once; a page takes about a millisecond."""

ALL = 1 << 62
"""More sagas than any folder holds."""


class Known(NamedTuple):
    """What is known of a saga without reading its records.

    Attributes:
        phase: Where it stands.
        code: Why it turned back or is parked; else empty.
        step: The step that this is about; empty if none, or if the records were pruned.
        fingerprint: Hash of the request.
    """

    phase: Phase
    code: str
    step: str
    fingerprint: str


class Told(NamedTuple):
    """One saga as a whole: what `Archive.status` gives, its input and its recipe."""

    status: dict[str, Any]
    input: Mapping[str, Any]
    definition: SagaDefinition


class _Loaded(NamedTuple):
    """A saga's history as far as it can be read: `flaw` says why it cannot, or is empty."""

    head: Head
    definition: SagaDefinition | None
    events: list[Event]
    saga: Saga | None
    flaw: str


class Archive:
    """One data folder, open for reading; closed by `with`, or by `close`.

    Attributes:
        folder: What it reads.
    """

    def __init__(self, folder: DataFolder, shared: Mapping[int, Journal] | None = None) -> None:
        """Make an archive.

        Args:
            folder: What to read.
            shared: Journals by shard that this process has open already; one process may
                open each only once. They are not closed here.
        """
        self.folder = folder
        self._shared = dict(shared or {})
        self._journals: dict[int, Journal] = dict(self._shared)
        self._definitions: dict[int, Definitions] = {}

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False) -> Archive:
        """Return the archive of the data folder at `path`; `create` makes it, with one shard.

        Raises:
            DataFolderError: If there is none, or it cannot be used.
        """
        return cls(DataFolder.open(path, shard_count=None, create=create))

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; a later question opens them again."""
        journals = [j for shard, j in self._journals.items() if shard not in self._shared]
        self._journals = dict(self._shared)
        self._definitions.clear()
        for journal in journals:
            journal.close()

    # -- which sagas there are -----------------------------------------------

    def find(self, name: str) -> SagaId:
        """Return the id of the saga that is called `name`: its id, or the key alone.

        Raises:
            ValidationError: If it can be neither, or is the key of several sagas.
            SagaNotFoundError: If there is none.
        """
        definition, colon, key = name.partition(":")
        if not is_key(name) and not (colon and is_key(definition) and is_key(key)):
            raise ValidationError("must be DEFINITION:KEY or KEY, of A-Z a-z 0-9 . _ : -", "id")
        if colon and self.known(SagaId(name)) is not None:
            return SagaId(name)
        names = sorted(
            {
                data["name"]
                for shard in self._shards()
                for data in self._journals[shard].definitions().values()
            }
        )
        candidates = [saga_id_of(other, name) for other in names if is_key(name)]
        found = [saga_id for saga_id in candidates if self.known(saga_id) is not None]
        if len(found) > 1:
            raise ValidationError(f"is the key of {len(found)} sagas: {', '.join(found)}", "id")
        if not found:
            raise SagaNotFoundError(name)
        return found[0]

    def known(self, saga_id: SagaId) -> Known | None:
        """Return what the indexes tell of a saga, even if it was pruned; None if nothing."""
        journal = self._journal_of(saga_id)
        if journal is None:
            return None
        head = journal.head(saga_id)
        if head is not None:
            return Known(head.phase, head.reason, head.step, head.fingerprint)
        record = journal.key_record(saga_id)
        if record is None:
            return None
        return Known(record.phase, record.reason, "", record.fingerprint)

    def rows(
        self,
        *,
        limit: int,
        phases: frozenset[Phase] | None = None,
        reason: str | None = None,
        step: str | None = None,
        definition: str | None = None,
        accepted_before_ms: int | None = None,
        newest: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Yield the index rows of sagas that meet every condition, newest or oldest first.

        Args:
            limit: How many at most.
            phases: Any of these; None for all, like the other conditions.
            reason: Exactly this code.
            step: The reason is about exactly this step.
            definition: Exactly this name.
            accepted_before_ms: Accepted before this instant, Unix time.
            newest: Whether the newest come first, or the oldest.
        """
        wanted = HeadFilter(
            phases=phases,
            reason=reason,
            step=step,
            definition=definition,
            accepted_before_ms=accepted_before_ms,
        )
        pages = [self._heads(s, wanted, limit, newest=newest) for s in self._shards()]
        merged = heapq.merge(*pages, key=lambda head: head.accepted_at_ms, reverse=newest)
        return (head_row(head) for head in islice(merged, limit))

    def page(
        self, *, limit: int, looks_max: int, after: Place | None, text: str = "", **wanted: Any
    ) -> Page:
        """Return some of the sagas that meet every condition, newest first; see `Page`.

        Args:
            limit: Rows at most.
            looks_max: Sagas to look at, at most.
            after: Where the page before ended; None for the first.
            text: A string that the input must hold, at any depth; it costs reading the saga.
            wanted: Fields of a `HeadFilter`.
        """
        conditions = HeadFilter(**wanted)
        start = after or Place(time.time_ns() // 1_000_000, {})
        scanned = to_scan(conditions)
        runs = {
            shard: self._heads(shard, scanned, PAGE_SAGAS, start.passed.get(shard))
            for shard in self._shards()
        }

        def input_of(saga_id: SagaId) -> object:
            saga = getattr(self._load(saga_id), "saga", None)
            return None if saga is None else saga.input

        asked = TextAsked(text, self._journal_of, input_of) if text else None
        return cut(runs, conditions, asked=asked, limit=limit, looks_max=looks_max, start=start)

    def counts(self) -> dict[str, int]:
        """Return the number of sagas in each phase, pruned ones not included."""
        counts = dict.fromkeys((phase.value for phase in Phase), 0)
        for shard in self._shards():
            for phase, count in self._journals[shard].counts().items():
                counts[phase.value] += count
        return counts

    def usages(self) -> list[Usage]:
        """Return how full the journals are; the cap is this reader's, not the engine's."""
        return [self._journals[shard].usage() for shard in self._shards()]

    def parked(self, limit: int) -> Iterator[dict[str, Any]]:
        """Yield the sagas that wait for a person, newest first, each with what can be done.

        A row is what `status` gives, without the results.
        """
        for row in self.rows(limit=limit, phases=PARKED):
            loaded = self._load(SagaId(row["saga_id"]))
            if loaded is not None and loaded.head.phase in PARKED:
                told = {
                    **_status(loaded),
                    "ways_on": ways_on(loaded.saga, time.time_ns() // 1_000_000),
                }
                del told["results"]
                yield told

    def sagas(self) -> Iterator[Told]:
        """Yield every saga that was not pruned, newest first.

        Raises:
            RecordCorruptError: At the first whose history cannot be read.
        """
        for row in self.rows(limit=ALL):
            loaded = self._load(SagaId(row["saga_id"]))
            if loaded is None:
                continue
            if loaded.saga is None:
                raise RecordCorruptError(row["saga_id"], -1, loaded.flaw)
            yield Told(_status(loaded), loaded.saga.input, loaded.saga.definition)

    # -- one saga ------------------------------------------------------------

    def status(self, saga_id: SagaId) -> dict[str, Any]:
        """Return where a saga stands, step by step, and `flaw`, `pruned` and `ways_on`.

        Of a saga whose records were pruned, or cannot be read, it is what the indexes know.

        Raises:
            SagaNotFoundError: If there is none.
        """
        loaded = self._load(saga_id)
        if loaded is not None:
            return {**_status(loaded), "ways_on": ways_on(loaded.saga, time.time_ns() // 1_000_000)}
        known = self.known(saga_id)
        if known is None:
            raise SagaNotFoundError(saga_id)
        return {
            "saga_id": saga_id,
            "phase": known.phase.value,
            "code": known.code,
            "message": "",
            "step": known.step,
            "steps": [],
            "flaw": "",
            "pruned": True,
            "ways_on": [],
        }

    def history(self, saga_id: SagaId, *, payloads: bool = False) -> list[dict[str, Any]]:
        """Return what has happened to a saga, oldest first: `{"event", "at_ms", …}` each.

        Raises:
            SagaNotFoundError: If there is none, or it was pruned.
            RecordCorruptError: If it cannot be read.
        """
        definition, events = self._readable(saga_id)
        return history_rows(definition, events, with_payloads=payloads)

    def timeline(self, saga_id: SagaId, *, payloads: bool = False) -> list[dict[str, Any]]:
        """Return the same by attempts and turning points; see `timeline_rows`.

        Raises:
            SagaNotFoundError: If there is none, or it was pruned.
            RecordCorruptError: If it cannot be read.
        """
        definition, events = self._readable(saga_id)
        return timeline_rows(definition, events, with_payloads=payloads)

    def logs(self, saga_id: SagaId, *, payloads: bool = False) -> list[dict[str, Any]]:
        """Return a saga's history and the log lines about it; see `merged_story`.

        A history that is pruned or cannot be read leaves the log lines.

        Raises:
            SagaNotFoundError: If there is none.
        """
        if self.known(saga_id) is None:
            raise SagaNotFoundError(saga_id)
        try:
            history = self.history(saga_id, payloads=payloads)
        except (SagaNotFoundError, RecordCorruptError):
            history = []
        return merged_story(history, lines_about(self.folder.log_path, saga_id))

    def refuse_order(self, saga_id: SagaId, operation: str) -> None:
        """Refuse an operator's order that cannot be taken any more; pass all others.

        Only what can never change is refused here, so that an engine need not be started
        to be told so.

        Raises:
            OperatorRefusedError: For `retry` and `skip`, if the saga has ended.
        """
        known = self.known(saga_id)
        if known is not None and known.phase in _ENDED and operation in ("retry", "skip"):
            raise OperatorRefusedError(saga_id, Answer.NOT_PARKED.value)

    # -- the engine ----------------------------------------------------------

    def engine(self) -> dict[str, Any]:
        """Return `{"running", "shards", "address", "driver_pid"}` of the folder's engine.

        Shards maps the number of each shard that is housed now to its process; address and
        driver are those of a local Ray that was started for the folder.
        """
        shards = range(self.folder.shard_count)
        owners = {shard: previous_owner(self.folder.journal_path(shard)) for shard in shards}
        housed = {shard: pid for shard, pid in owners.items() if pid is not None}
        note = read_note(self.folder.path) if housed else None
        return {
            "running": bool(housed),
            "shards": housed,
            "address": None if note is None else note.address,
            "driver_pid": None if note is None else note.pid,
        }

    def shards(self) -> list[dict[str, Any]]:
        """Return `{"shard", "pid", "epoch", "map_used"}` of each shard that has a journal.

        The process is None where nobody houses it now; what is used is in bytes.
        """
        housed = self.engine()["shards"]
        return [
            {
                "shard": shard,
                "pid": housed.get(shard),
                "epoch": self._journals[shard].epoch(shard_scope(self.folder.uuid, shard)),
                "map_used": self._journals[shard].usage().used,
            }
            for shard in self._shards()
        ]

    # -- opening and loading -------------------------------------------------

    def _shards(self) -> list[int]:
        """Return the shards that have a journal by now; they are open after it."""
        return [s for s in range(self.folder.shard_count) if self._journal(s) is not None]

    def _journal_of(self, saga_id: SagaId) -> Journal | None:
        return self._journal(shard_of(saga_id, self.folder.shard_count))

    def _journal(self, shard: int) -> Journal | None:
        """Return a shard's journal, None if no engine has made it yet."""
        journal = self._journals.get(shard)
        if journal is None and (self.folder.journal_path(shard) / "data.mdb").exists():
            journal = self._journals[shard] = self.folder.open_journal(shard, read_only=True)
        return journal

    def _definition(self, shard: int, content_hash: str) -> SagaDefinition | None:
        found = self._definitions.get(shard)
        if found is None or found.get(content_hash) is None:
            # An engine may have been given a new one since.
            found = self._definitions[shard] = Definitions(self._journals[shard])
        return found.get(content_hash)

    def _heads(
        self,
        shard: int,
        wanted: HeadFilter,
        limit: int,
        after: SagaId | None = None,
        newest: bool = True,
    ) -> Iterator[Head]:
        page_sagas = min(limit, PAGE_SAGAS)
        while True:
            try:
                journal = self._journals[shard]
                page = journal.heads(wanted, limit=page_sagas, after=after, newest=newest)
            except KeyError:
                # Even its key was forgotten between two pages, and so were all before it.
                return
            yield from page
            if len(page) < page_sagas:
                return
            after = page[-1].saga_id

    def _load(self, saga_id: SagaId) -> _Loaded | None:
        """Read a saga, again if it moves on meanwhile; None if it has no records."""
        journal = self._journal_of(saga_id)
        head = None if journal is None else journal.head(saga_id)
        if journal is None or head is None:
            return None
        shard = shard_of(saga_id, self.folder.shard_count)
        definition = self._definition(shard, head.definition_hash)
        while True:
            loaded = _read(journal, head, definition)
            if not loaded.flaw:
                break
            # Only of one that holds still is it known that head and records belong together.
            again = journal.head(saga_id)
            if again is None:
                return None
            if again == head:
                break
            head = again
        return loaded

    def _readable(self, saga_id: SagaId) -> tuple[SagaDefinition, list[Event]]:
        loaded = self._load(saga_id)
        if loaded is None:
            raise SagaNotFoundError(saga_id)
        if loaded.flaw or loaded.definition is None:
            raise RecordCorruptError(saga_id, -1, loaded.flaw)
        return loaded.definition, loaded.events


_ENDED = frozenset({Phase.COMPLETED, Phase.COMPENSATED})


def _read(journal: Journal, head: Head, definition: SagaDefinition | None) -> _Loaded:
    if definition is None:
        flaw = f"the journal has no usable definition {head.definition_name!r}"
        return _Loaded(head, None, [], None, flaw)
    events: list[Event] = []
    try:
        events = read_events(journal, head)
        saga = replay(head.saga_id, definition, events, taken_over=True)
    except RecordCorruptError as error:
        return _Loaded(head, definition, events, None, f"record {error.seq}: {error.detail}")
    except (IllegalMove, IndexError, KeyError, TypeError, ValueError) as error:
        return _Loaded(head, definition, events, None, f"no legal history: {error!r}")
    return _Loaded(head, definition, events, saga, "")


def _status(loaded: _Loaded) -> dict[str, Any]:
    head = loaded.head
    told: dict[str, Any] = {
        **bare_outcome(head),
        "message": loaded.flaw,
        "definition": head.definition_name,
        "definition_hash": head.definition_hash,
        "accepted_at_ms": head.accepted_at_ms,
        "due_at_ms": head.due_at_ms,
        "steps": [],
    }
    if loaded.saga is not None:
        told.update(status_of(loaded.saga))
    told["changed_at_ms"] = head.changed_at_ms
    told["flaw"], told["pruned"] = loaded.flaw, False
    return told
