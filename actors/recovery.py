"""From records back to sagas, and what to do with those that cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import DefinitionError
from raysaga.statemachines.events import Event, SagaParked
from raysaga.statemachines.ids import Epoch, SagaId
from raysaga.statemachines.machine import IllegalMove
from raysaga.statemachines.saga import Saga, replay
from raysaga.statemachines.tables import Phase
from raysaga.storage.codec import decode_record, encode_record
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import CHAIN_START, Entry, Head, Journal


class Unreadable(NamedTuple):
    """Why a saga cannot be taken up: a code to park it with, and one sentence."""

    code: str
    detail: str


class Definitions:
    """The recipes that one journal knows, by content hash, each checked when read."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: dict[str, SagaDefinition] = {}
        self._flaws: dict[str, str] = {}
        for content_hash, data in journal.definitions().items():
            self._read(content_hash, data)

    def _read(self, content_hash: str, data: Mapping[str, object]) -> None:
        try:
            definition = SagaDefinition.from_data(data)
        except DefinitionError as error:
            self._flaws[content_hash] = str(error)
            return
        if definition.content_hash != content_hash:
            self._flaws[content_hash] = "its content does not have the hash it is kept under"
            return
        self._known[content_hash] = definition

    def get(self, content_hash: str) -> SagaDefinition | None:
        """Return the recipe with this hash, None if the journal has none that can be used."""
        return self._known.get(content_hash)

    def flaw(self, content_hash: str) -> str:
        """Return why `get` gives None."""
        return self._flaws.get(content_hash, "the journal does not hold it")

    def add(self, definition: SagaDefinition) -> None:
        """Keep a recipe; durable on return.

        Raises:
            StorageFullError: Nothing was written.
        """
        if definition.content_hash not in self._known:
            self._journal.put_definition(definition.content_hash, definition.to_data())
            self._known[definition.content_hash] = definition


def read_events(journal: Journal, head: Head) -> list[Event]:
    """Return everything that has happened to a saga, checked record by record.

    Raises:
        RecordCorruptError: If a record is not what was written, or one is missing.
    """
    records = journal.records(head.saga_id)
    events, chain = events_in(head.saga_id, records)
    if len(records) != head.seq + 1 or chain != head.chain:
        raise RecordCorruptError(head.saga_id, len(records), "the history does not end as noted")
    return events


def events_in(saga_id: SagaId, records: Sequence[bytes]) -> tuple[list[Event], bytes]:
    """Return what a saga's first records tell, and the chain of the last of them.

    Raises:
        RecordCorruptError: If one is not what was written, or does not follow.
    """
    events: list[Event] = []
    chain = CHAIN_START
    for seq, record in enumerate(records):
        try:
            decoded = decode_record(saga_id, record, chain)
        except RecordCorruptError as error:
            # By its place: what it says of its own number may be the damage.
            raise RecordCorruptError(saga_id, seq, error.detail) from error
        if decoded.seq != seq:
            raise RecordCorruptError(saga_id, seq, f"it says it is record {decoded.seq}")
        chain = decoded.chain
        events.extend(decoded.events)
    return events, chain


def load(
    journal: Journal, definitions: Definitions, head: Head, *, taken_over: bool
) -> Saga | Unreadable:
    """Return the saga as its journal has it, or why that cannot be."""
    definition = definitions.get(head.definition_hash)
    if definition is None:
        detail = f"definition {head.definition_name!r}: {definitions.flaw(head.definition_hash)}"
        return Unreadable("UNKNOWN_DEFINITION", detail)
    try:
        events = read_events(journal, head)
        return replay(head.saga_id, definition, events, taken_over=taken_over)
    except RecordCorruptError as error:
        return Unreadable("JOURNAL_CORRUPT", str(error))
    except (IllegalMove, IndexError, KeyError, TypeError, ValueError) as error:
        return Unreadable("JOURNAL_CORRUPT", f"{head.saga_id}: no legal history ({error})")


_PARKED_FROM = {
    Phase.RUNNING: Phase.PARKED_RUNNING,
    Phase.FORWARD_ONLY: Phase.PARKED_FORWARD,
    Phase.COMPENSATING: Phase.PARKED_BACKWARD,
}


def park_unreadable(head: Head, epoch: Epoch, now_ms: int, why: Unreadable) -> Entry:
    """Return the entry that parks a saga whose history cannot be replayed.

    It is tied to the chain that the index remembers, so nothing is hidden:
    reading the saga again finds the same flaw.
    """
    parked = SagaParked(now_ms, why.code, why.detail, None, ())
    record, chain = encode_record(head.saga_id, head.seq + 1, epoch, now_ms, head.chain, [parked])
    return Entry(
        head.saga_id,
        head.seq + 1,
        record,
        chain,
        _PARKED_FROM[head.phase],
        now_ms,
        why.code,
        "",
        None,
        None,
    )
