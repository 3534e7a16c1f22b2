"""What a service implements to take part in sagas; the server does the rest.

A service declares its own tables and its operations. Each operation is a plain
function over `effects`, run in the same transaction as the ledger row of its
call; so it needs to know nothing of keys, duplicates, tombstones or epochs.

Handlers answer in one of four ways: return a mapping (stored success), raise
`Refusal` (stored refusal), raise `TryLater` (nothing happened, nothing is
stored), or raise anything else (a defect: answered unknown, nothing is stored).
What must wait (locks, latency, reads for an optimistic check) goes into `guard`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from raysaga.statemachines.calls import StepCall, StepReply
from raysaga.storage.effects import (
    Apply,
    CodeKind,
    Effects,
    Operation,
    Refusal,
    TryLater,
    Undo,
    View,
)
from raysaga.storage.ledger import Ledger
from raysaga.storage.ledger_row import LedgerRow

__all__ = [
    "Apply",
    "Behaviour",
    "CodeKind",
    "Effects",
    "LedgerRow",
    "Operation",
    "Participant",
    "Refusal",
    "TryLater",
    "Undo",
    "View",
]


class Participant(abc.ABC):
    """Base class of services: tables of its own, and operations on them.

    A subclass sets `name`, `tables` and `operations`; the rest is optional. Its functions run in
    the transaction that also writes the ledger row of their call, so they need know nothing of
    repeats, tombstones or epochs. They must not wait, and must talk to nobody outside: the
    transaction may be run again.

    Attributes:
        name: What steps call it.
        tables: Its own tables; names must not begin with an underscore.
        operations: Action name to operation.
        codes: Kind of each error code. A `Refusal` with a code declared as something
            else is not stored, and answered unknown.
    """

    name: str
    tables: Sequence[str] = ()
    operations: Mapping[str, Operation]
    codes: Mapping[str, CodeKind] = MappingProxyType({})

    unguarded: ClassVar[AbstractAsyncContextManager[None]] = nullcontext()

    @property
    def behaviour(self) -> Behaviour | None:
        """Simulated trouble that a server plays around it; None for none."""
        return None

    def prepare(self, ledger: Ledger) -> None:  # noqa: B027 - optional
        """Do what must be done once the ledger is open and before the first call.

        Raises:
            SagaError: If the service cannot run on what the ledger holds.
        """

    def settle(self, effects: Effects, row: LedgerRow, outcome: str) -> None:  # noqa: B027 - optional
        """Do what the end of the saga calls for; once per row, in the transaction.

        Args:
            effects: As in a handler.
            row: What the ledger holds; its `status` tells applied from undone.
            outcome: `completed` or `compensated`; empty if the host did not say.
        """

    def is_guarded(self, call: StepCall) -> bool:  # noqa: ARG002 - for subclasses
        """Whether `call` needs `guard`; calls that do not are applied without a task each."""
        return type(self).guard is not Participant.guard

    def guard(
        self,
        call: StepCall,  # noqa: ARG002 - for subclasses
        view: View,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[Any]:
        """Return what is entered before the transaction and left after the answer is durable.

        The place for locks, latency and optimistic reads. Its value is handed to
        `apply` or `undo` as `context`. Not entered when the ledger already holds the
        answer. It may raise `TryLater`, and it may be cancelled while it waits. After
        a `TryLater` with code `CONFLICT` from the handler, it is left and entered anew.

        Args:
            call: An action or a compensation.
            view: Reads of the committed state; each read sees the newest.
        """
        return self.unguarded


class Behaviour(Protocol):
    """Simulated trouble around a participant, as configuration; never in the way of correctness."""

    async def before(self, call: StepCall) -> StepReply | None:
        """Delay, hang until cancelled, or answer in the participant's place."""

    async def after(self, call: StepCall, reply: StepReply) -> StepReply | None:
        """Delay or replace the reply; None: do not answer at all, though it was done."""
