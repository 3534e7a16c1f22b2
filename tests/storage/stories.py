"""Sagas with legal histories, cut into journal entries: what the tests here write."""

from __future__ import annotations

from collections.abc import Sequence

from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    CompensationStarted,
    Event,
    GoGiven,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    StepCalled,
    StepRefused,
    StepSucceeded,
    StepUndone,
)
from raysaga.statemachines.ids import Epoch, SagaId, Scope, saga_id_of
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import Phase
from raysaga.storage.codec import encode_record
from raysaga.storage.journal import CHAIN_START, Birth, Entry, Journal, JournalIdentity

UUID = "2f1d0c0e-8a3e-4f37-9a0a-000000000001"
IDENTITY = JournalIdentity(uuid=UUID, shard=0, shard_count=1)
SCOPE = Scope(f"{UUID}/shard-0")
OTHER_SCOPE = Scope(f"{UUID}/order:dedicated")
NOW_MS = 1_700_000_000_000
DEFINITION_HASH = order_saga.content_hash


class Story:
    """One order, told record by record. Each method returns the next entry.

    Attributes:
        saga_id: The order's saga.
        entries: All that was told so far.
    """

    def __init__(
        self,
        key: str,
        *,
        epoch: int = 1,
        scope: Scope = SCOPE,
        at_ms: int = NOW_MS,
        padding: int = 0,
    ) -> None:
        self.key = key
        self.saga_id: SagaId = saga_id_of("order", key)
        self.epoch = Epoch(epoch)
        self.scope = scope
        self.at_ms = at_ms
        self.padding = padding
        self.entries: list[Entry] = []

    @property
    def fingerprint(self) -> str:
        return f"fingerprint-of-{self.key}"

    def tell(
        self,
        phase: Phase,
        events: Sequence[Event],
        *,
        reason: str = "",
        step: str = "",
        due_at_ms: int | None = None,
        birth: Birth | None = None,
    ) -> Entry:
        seq = len(self.entries)
        previous = self.entries[-1].chain if self.entries else CHAIN_START
        record, chain = encode_record(self.saga_id, seq, self.epoch, self.at_ms, previous, events)
        entry = Entry(
            self.saga_id, seq, record, chain, phase, self.at_ms, reason, step, due_at_ms, birth
        )
        self.entries.append(entry)
        self.at_ms += 1
        return entry

    def accepted(self, *, due_at_ms: int | None = None) -> Entry:
        fields = (
            "order",
            DEFINITION_HASH,
            self.key,
            self.fingerprint,
            self.scope,
            {"order_id": self.key, "padding": "x" * self.padding},
            self.at_ms,
            due_at_ms,
        )
        return self.tell(
            Phase.RUNNING,
            (Accepted(*fields), StepCalled(0, False, 1, self.at_ms)),
            due_at_ms=due_at_ms,
            birth=Birth(self.scope, self.key, self.fingerprint, "order", DEFINITION_HASH),
        )

    def progressed(self, *, due_at_ms: int | None = None) -> Entry:
        return self.tell(
            Phase.RUNNING,
            (
                StepSucceeded(0, 1, self.at_ms, {"reservation_id": f"r-{self.key}"}),
                StepCalled(1, False, 1, self.at_ms),
            ),
            due_at_ms=due_at_ms,
        )

    def retried(self) -> Entry:
        attempt = len(self.entries)
        failed = AttemptFailed(0, False, attempt, self.at_ms, "TIMEOUT", "no answer", self.at_ms)
        return self.tell(Phase.RUNNING, (failed, StepCalled(0, False, attempt + 1, self.at_ms)))

    def completed(self) -> Entry:
        at_ms = self.at_ms
        events: list[Event] = []
        for i in range(len(order_saga.steps)):
            events += [StepCalled(i, False, 1, at_ms), StepSucceeded(i, 1, at_ms, None)]
        first = 0 if len(self.entries) == 1 else 2
        return self.tell(Phase.COMPLETED, (*events[first:], SagaCompleted(at_ms)))

    def turned_back(self) -> Entry:
        return self.tell(
            Phase.COMPENSATING,
            (
                StepRefused(0, 1, self.at_ms, "OUT_OF_STOCK", "none left"),
                CompensationStarted(self.at_ms, "OUT_OF_STOCK", "none left", 0, (0,), ""),
                StepCalled(0, True, 1, self.at_ms),
            ),
            reason="OUT_OF_STOCK",
            step="reserve_inventory",
        )

    def compensated(self) -> Entry:
        return self.tell(
            Phase.COMPENSATED,
            (StepUndone(0, 1, self.at_ms, None), SagaCompensated(self.at_ms, ())),
            reason="OUT_OF_STOCK",
            step="reserve_inventory",
        )

    def parked(self) -> Entry:
        return self.tell(
            Phase.PARKED_RUNNING,
            (SagaParked(self.at_ms, "UNKNOWN_OUTCOME", "no answer", 0, (0,)),),
            reason="UNKNOWN_OUTCOME",
            step="reserve_inventory",
        )

    def given_go(self) -> Entry:
        return self.tell(Phase.FORWARD_ONLY, (GoGiven(self.at_ms),))


def prepare(journal: Journal, scope: Scope = SCOPE) -> Epoch:
    """Put the order's definition, and become the owner of `scope`."""
    journal.put_definition(DEFINITION_HASH, order_saga.to_data())
    return journal.grant_epoch(scope, "tests", NOW_MS)


def write_completed(journal: Journal, epoch: Epoch, keys: Sequence[str]) -> list[Story]:
    """Commit whole stories of orders that went well, in one batch."""
    stories = [Story(key, epoch=epoch, at_ms=NOW_MS + i) for i, key in enumerate(keys)]
    entries = [entry for story in stories for entry in (story.accepted(), story.completed())]
    journal.commit(SCOPE, epoch, entries)
    return stories
