"""What the four services have in common: trouble around them, and refusals by chance."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from raysaga.actors.participant import CodeKind, Participant, Refusal
from raysaga.actors.services.behaviour import CALM, SeededBehaviour
from raysaga.statemachines.calls import Code, StepCall


class Service(Participant):
    """A participant of the order saga.

    Attributes:
        trouble: What the server wraps around it, and what its actions ask for refusals.
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

    def refuse_by_chance(self, call: StepCall) -> None:
        """Refuse the action if its trouble says so.

        Raises:
            Refusal: With the code `refusal_by_chance`; the same on every attempt.
        """
        if self.trouble.refuses(call):
            raise Refusal(self.refusal_by_chance, "simulated: the service refuses this order")
