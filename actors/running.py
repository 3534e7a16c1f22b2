"""One saga in a host's memory, and how its events become a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from raysaga.statemachines.commands import Answer
from raysaga.statemachines.events import Event
from raysaga.statemachines.ids import Epoch
from raysaga.statemachines.inputs import Input
from raysaga.statemachines.saga import Saga
from raysaga.storage.codec import encode_record
from raysaga.storage.journal import Birth, Entry

Told = Callable[[Answer], None]
"""Takes the answer to a request about a saga."""

Ended = Callable[[Saga], None]
"""Takes a saga that has ended, or was parked."""


class Running:
    """One saga in a host's memory.

    Attributes:
        saga: As it stands, ahead of the disk by the events in `held`.
        seq: Number of the next record.
        chain: Hash of the last record handed to the committer.
        held: Events that no record holds yet.
        barrier: Whether a commit is under way that must return before the next input.
        mailbox: Inputs that wait for the barrier.
        watchers: Called when it ends or is parked, once that is durable.
        birth: What its first record adds to the indexes, until that is written.
        asked: Answers to the questions to its participants, while these are asked.
    """

    __slots__ = ("asked", "barrier", "birth", "chain", "held", "mailbox", "saga", "seq", "watchers")

    def __init__(self, saga: Saga, seq: int, chain: bytes) -> None:
        self.saga = saga
        self.seq = seq
        self.chain = chain
        self.held: list[Event] = []
        self.barrier = False
        self.birth: Birth | None = None
        self.mailbox: deque[tuple[Input, Told | None]] | None = None
        self.watchers: list[Ended] | None = None
        self.asked: dict[int, tuple[str, Mapping[str, Any] | None]] | None = None

    def take_entry(self, epoch: Epoch, now_ms: int) -> Entry:
        """Turn the held events into the saga's next record, with its row for the indexes."""
        assert self.held
        saga = self.saga
        record, chain = encode_record(saga.saga_id, self.seq, epoch, now_ms, self.chain, self.held)
        reason = saga.reason
        step = None if reason is None else reason.step
        entry = Entry(
            saga.saga_id,
            self.seq,
            record,
            chain,
            saga.phase,
            now_ms,
            "" if reason is None else reason.code,
            "" if step is None else saga.definition.steps[step].name,
            saga.due_at_ms(),
            self.birth,
        )
        self.birth = None
        self.seq += 1
        self.chain = chain
        self.held = []
        return entry
