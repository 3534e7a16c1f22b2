"""Checks a journal from end to end: bytes, chains, indexes and legal histories.

Guarantees: a journal found sound holds for each saga an unbroken chain of
records that decode, whose events are a legal history under the definition that
it was accepted with, and that ends where the indexes say.
Costs: some 50 microseconds a saga. It only reads, so it can look at a journal
that is being written; a saga that moved while it was looked at is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import DefinitionError
from raysaga.statemachines.events import Accepted, Event
from raysaga.statemachines.machine import IllegalMove
from raysaga.statemachines.saga import replay
from raysaga.statemachines.tables import Phase
from raysaga.storage.codec import decode_record
from raysaga.storage.errors import NewerFormatError, RecordCorruptError
from raysaga.storage.journal import CHAIN_START, Head, HeadFilter, Journal

PAGE_SAGAS = 256
"""Sagas listed at once."""

PROBLEMS_MAX = 1_000
"""Problems that are listed; a broken disk would give millions."""

DIGEST_BYTES = 32


class Problem(NamedTuple):
    """What is wrong with one saga, or with one row that is no saga's."""

    saga_id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify_journal` found.

    Attributes:
        saga_count: Sagas looked at.
        record_count: Records that were read and are whole.
        event_count: Events in them.
        phase_counts: Number of sagas by phase, of those that could be read.
        problems: What is wrong; empty for a sound journal.
        problem_count: How many there are, listed or not.
        digest: Sum, modulo 2**256, of BLAKE2b-256 of each saga's id, a zero byte and the
            last chain, as hex. Two journals with the same sagas at the same records have
            the same, whatever the order. It tells accidents; it is no proof against forgers.
    """

    saga_count: int
    record_count: int
    event_count: int
    phase_counts: Mapping[Phase, int]
    problems: tuple[Problem, ...]
    problem_count: int
    digest: str

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0


def verify_journal(
    journal: Journal, *, progress: Callable[[int, int], None] | None = None
) -> VerifyReport:
    """Check everything, and return what was found.

    Args:
        journal: The journal; it may be read-only, and it may be in use.
        progress: Called now and then with the sagas looked at, and those there are.

    Raises:
        NewerFormatError: If a record was written by a later version.
    """
    return _Verifier(journal, progress).run()


class _Verifier:
    def __init__(self, journal: Journal, progress: Callable[[int, int], None] | None) -> None:
        self._journal = journal
        self._progress = progress
        self._definitions: dict[str, SagaDefinition] = {}
        self._problems: list[Problem] = []
        self._problem_count = 0
        self._sagas = self._records = self._events = self._digest = 0
        self._phases = dict.fromkeys(Phase, 0)

    def run(self) -> VerifyReport:
        """Check the definitions, the indexes, then each saga."""
        self._read_definitions()
        for name, detail in self._journal.index_flaws():
            self._add(name, detail)
        try:
            self._check_sagas()
        except RecordCorruptError as error:
            self._add(error.saga_id, f"{error.detail}; the sagas from there on were not looked at")
        return VerifyReport(
            saga_count=self._sagas,
            record_count=self._records,
            event_count=self._events,
            phase_counts=self._phases,
            problems=tuple(self._problems),
            problem_count=self._problem_count,
            digest=self._digest.to_bytes(DIGEST_BYTES, "big").hex(),
        )

    def _add(self, saga_id: str, detail: str) -> None:
        self._problem_count += 1
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(saga_id, detail))

    def _read_definitions(self) -> None:
        try:
            found = self._journal.definitions()
        except RecordCorruptError as error:
            self._add(error.saga_id, error.detail)
            return
        for content_hash, data in found.items():
            try:
                definition = SagaDefinition.from_data(data)
            except DefinitionError as error:
                self._add(content_hash, f"a definition cannot be read: {error}")
                continue
            if definition.content_hash != content_hash:
                self._add(content_hash, f"it names a definition that is {definition.content_hash}")
            self._definitions[content_hash] = definition

    def _check_sagas(self) -> None:
        after = None
        total = sum(self._journal.counts().values())
        while True:
            page = self._journal.heads(HeadFilter(), limit=PAGE_SAGAS, after=after, newest=False)
            for head in page:
                self._check(head)
            if self._progress is not None:
                self._progress(self._sagas, max(total, self._sagas))
            if len(page) < PAGE_SAGAS:
                return
            after = page[-1].saga_id

    def _check(self, head: Head) -> None:
        self._sagas += 1
        while True:
            story = _Story(self._journal, head, self._definitions)
            flaw = story.flaw()
            if flaw is None:
                break
            # Only of one that holds still is it known that head and records belong together.
            again = self._journal.head(head.saga_id)
            if again is None:
                return  # It was pruned meanwhile.
            if again == head:
                break
            head = again
        if flaw is not None:
            self._add(head.saga_id, flaw)
        self._phases[head.phase] += 1
        self._records += story.record_count
        self._events += len(story.events)
        heads = blake2b(f"{head.saga_id}\0".encode() + head.chain, digest_size=DIGEST_BYTES)
        self._digest += int.from_bytes(heads.digest(), "big")
        self._digest %= 1 << (8 * DIGEST_BYTES)


class _Story:
    """One saga's records, compared with its head."""

    def __init__(
        self, journal: Journal, head: Head, definitions: Mapping[str, SagaDefinition]
    ) -> None:
        self._journal = journal
        self._head = head
        self._definitions = definitions
        self.record_count = 0
        self.events: list[Event] = []

    def flaw(self) -> str | None:
        """Return the first thing that is wrong, or None."""
        try:
            return self._flaw_of_records() or self._flaw_of_history() or self._flaw_of_key()
        except RecordCorruptError as error:
            return f"record {error.seq}: {error.detail}"
        except NewerFormatError:
            raise
        except (IllegalMove, IndexError, KeyError, TypeError, ValueError) as error:
            return f"its events are no legal history: {error!r}"

    def _flaw_of_records(self) -> str | None:
        head = self._head
        chain, epoch = CHAIN_START, 1
        for seq, record in enumerate(self._journal.records(head.saga_id)):
            try:
                decoded = decode_record(head.saga_id, record, chain)
            except RecordCorruptError as error:
                return f"record {seq}: {error.detail}"
            if decoded.seq != seq:
                return f"record {seq} says that it is record {decoded.seq}"
            if decoded.epoch < epoch:
                return f"record {seq} is of epoch {decoded.epoch}, after epoch {epoch}"
            chain, epoch = decoded.chain, decoded.epoch
            if seq == 0 and head.scope.endswith(f"/{head.saga_id}"):
                # Born under the epoch of its shard; its own scope begins again at 1.
                epoch = 1
            self.record_count += 1
            self.events.extend(decoded.events)
        if self.record_count != head.seq + 1:
            return f"it has {self.record_count} records, and {head.seq + 1} are noted"
        if chain != head.chain:
            return "its last record is not the one that is noted"
        return None

    def _flaw_of_history(self) -> str | None:
        head = self._head
        definition = self._definitions.get(head.definition_hash)
        if definition is None:
            return f"its definition {head.definition_hash} is missing"
        first = self.events[0] if self.events else None
        if not isinstance(first, Accepted):
            return "its story does not begin with its acceptance"
        told = (first.scope, first.fingerprint, first.definition_name, first.definition_hash)
        noted = (head.scope, head.fingerprint, head.definition_name, head.definition_hash)
        if told != noted:
            return f"it was accepted as {told}, and is noted as {noted}"
        saga = replay(head.saga_id, definition, self.events, taken_over=False)
        if saga.phase is not head.phase:
            return f"its events lead to {saga.phase.value}, and {head.phase.value} is noted"
        return None

    def _flaw_of_key(self) -> str | None:
        head = self._head
        record = self._journal.key_record(head.saga_id)
        if record is None or (record.fingerprint, record.phase) != (head.fingerprint, head.phase):
            return "what is kept for its key does not agree with it"
        return None
