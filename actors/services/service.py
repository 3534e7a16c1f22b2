"""What the four services have in common: trouble around them, and refusals by chance.

Guarantees: a refusal by chance goes through the ledger like any other.
Costs: nothing where the behaviour is calm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, TypeVar

from raysaga.actors.participant import Behaviour, CodeKind, Effects, Participant, Refusal
from raysaga.actors.services.behaviour import CALM, SeededBehaviour
from raysaga.statemachines.calls import Code, StepCall
from raysaga.storage.ledger import Ledger
from raysaga.storage.lmdb_environment import WriteTransaction
from raysaga.storage.staged_effects import StagedEffects

T = TypeVar("T")


class Service(Participant):
    """A participant of the order saga.

    Attributes:
        trouble: What its actions ask for refusals by chance.
        refusals: Every code with which it refuses for good; they are not retried.
        refusal_by_chance: Which of them a refusal by chance carries.
    """

    refusals: ClassVar[tuple[str, ...]] = ()
    refusal_by_chance: ClassVar[str]

    def __init__(self, trouble: SeededBehaviour | None = None) -> None:
        self.trouble = trouble or SeededBehaviour(CALM)
        self.codes: Mapping[str, CodeKind] = MappingProxyType(
            {
                Code.INVALID_REQUEST.value: CodeKind.REFUSAL,
                Code.CONFLICT.value: CodeKind.RETRYABLE,
                **dict.fromkeys(self.refusals, CodeKind.REFUSAL),
            }
        )

    @property
    def behaviour(self) -> Behaviour | None:
        """What the server is to wrap around the service; None if there is nothing to play.

        Faults that are scripted later are only met if this was not None: a server without a
        behaviour spares each call a task.
        """
        return None if self.trouble.is_calm else self.trouble

    def refuse_by_chance(self, call: StepCall) -> None:
        """Refuse the action if its trouble says so.

        Raises:
            Refusal: With the code `refusal_by_chance`; the same on every attempt.
        """
        if self.trouble.refuses(call):
            raise Refusal(self.refusal_by_chance, "simulated: the service refuses this order")


def change_tables(ledger: Ledger, now_ms: int, body: Callable[[Effects], T]) -> T:
    """Return what `body` returns; what it changed is durable then, or nothing is if it raised.

    For what is no call: loading stock, dispatching by hand. It leaves no line in the effect
    log, and blocks.

    Raises:
        StorageFullError: Like `StorageFailedError`, as in a ledger's own writes.
    """

    def write(transaction: WriteTransaction) -> T:
        effects = StagedEffects(transaction, ledger.tables, now_ms)
        result = body(effects)
        effects.flush()
        return result

    return ledger.environment.write(write)
