"""One saga in a host's memory, and how its events become a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raysaga.statemachines.calls import StepReply
from raysaga.statemachines.commands import Answer, CallStep, Command
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.events import Event, SagaCompensated, SagaCompleted, SagaParked
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.inputs import Input, Submitted
from raysaga.statemachines.saga import Saga
from raysaga.statemachines.tables import PARKED, TERMINAL, StepStatus
from raysaga.storage.codec import encode_record
from raysaga.storage.journal import CHAIN_START, Birth, Entry

Told = Callable[[Answer], None]
"""Takes the answer to a request about a saga."""

Ended = Callable[[Saga], None]
"""Takes a saga that has ended, or was parked."""


ENDS = frozenset({SagaCompleted, SagaCompensated, SagaParked})
"""Events after which people are told; always the last of a decision."""

AT_REST = TERMINAL | PARKED

LOOKS_OF_A_WAIT = 2
"""Looks in a row after which a saga is taken for one that waits: the second chance of page
replacement (CLOCK; F. J. Corbato, 1968)."""


class Running:
    """One saga in a host's memory.

    Attributes:
        saga: As it stands, ahead of the disk by the events in `held`.
        seq: Number of the next record.
        chain: Hash of the last record handed to the committer.
        held: Events that no record holds yet.
        held_since_ms: When the first of those came that are written behind, by the monotonic clock.
        barrier: Whether a commit is under way that must return before the next input.
        mailbox: Inputs that wait for the barrier.
        watchers: Called when it ends or is parked, once that is durable.
        birth: What its first record adds to the indexes, until that is written.
        asked: Answers to the questions to its participants, while these are asked.
        calls: Number of calls that were sent and not answered.
        writes: Number of records that were handed to the committer and are not on disk yet.
        looks: How often it was found unmoved by `rest`, since it moved last.
    """

    __slots__ = (
        "asked",
        "barrier",
        "birth",
        "calls",
        "chain",
        "held",
        "held_since_ms",
        "looks",
        "mailbox",
        "saga",
        "seq",
        "watchers",
        "writes",
    )

    def __init__(self, saga: Saga, seq: int, chain: bytes) -> None:
        self.saga = saga
        self.seq = seq
        self.chain = chain
        self.held: list[Event] = []
        self.held_since_ms = 0.0
        self.barrier = False
        self.birth: Birth | None = None
        self.mailbox: deque[tuple[Input, Told | None]] | None = None
        self.watchers: list[Ended] | None = None
        self.asked: dict[int, tuple[str, Mapping[str, Any] | None]] | None = None
        self.calls = 0
        self.writes = 0
        self.looks = 0

    @classmethod
    def newborn(cls, saga_id: SagaId, definition: SagaDefinition, given: Submitted) -> Running:
        """Return a saga that is on no disk yet."""
        running = cls(Saga(saga_id, definition), 0, CHAIN_START)
        running.birth = Birth(
            Scope(given.scope),
            given.key,
            given.fingerprint,
            definition.name,
            definition.content_hash,
        )
        return running

    @property
    def is_at_rest(self) -> bool:
        """Whether it is over or parked, with nothing unflushed and nothing under way.

        A saga that left memory before would be taken up again beside itself, and two of it
        would write.
        """
        if self.saga.phase not in AT_REST or self.calls or self.writes:
            return False
        return not (self.held or self.barrier or self.mailbox or self.asked is not None)

    def rest(self) -> None:
        """Fold a saga that has not moved between two looks: it waits, and may for long."""
        self.looks += 1
        if self.looks == LOOKS_OF_A_WAIT:
            self.saga.fold()

    def keep(self, given: Input, told: Told | None) -> None:
        """Keep an input until the barrier is on disk."""
        if self.mailbox is None:
            self.mailbox = deque()
        self.mailbox.append((given, told))

    def watch(self, ended: Ended) -> None:
        """Call `ended` when the saga ends or is parked, once that is durable."""
        if self.watchers is None:
            self.watchers = []
        self.watchers.append(ended)

    def first_calls(self) -> tuple[Command, ...]:
        """Return the calls that its acceptance decided, for the first owner of its own scope."""
        called = [i for i, s in enumerate(self.saga.steps) if s.status is StepStatus.CALLING]
        self.saga.in_flight = sum(1 << i for i in called)
        return tuple(CallStep(i, False, self.saga.steps[i].attempt) for i in called)

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


class TakesAnswers(Protocol):
    """A host, as far as the answer to a call is concerned."""

    def answered(self, running: Running, step: int, undo: bool, reply: StepReply) -> None:
        """Take the one answer to a call."""


class Awaited:
    """Hands the answer to one call over; a closure would be five times as large, and many wait."""

    __slots__ = ("_host", "_running", "_step", "_undo")

    def __init__(self, host: TakesAnswers, running: Running, step: int, undo: bool) -> None:
        self._host = host
        self._running = running
        self._step = step
        self._undo = undo

    def __call__(self, reply: StepReply) -> None:
        """Hand it over."""
        self._host.answered(self._running, self._step, self._undo, reply)
