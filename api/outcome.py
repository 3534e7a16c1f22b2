"""How a saga ended, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysaga.api.errors import ROLLED_BACK, ParkedError, RolledBackError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a saga, or the reason why it waits for an operator.

    Attributes:
        saga_id: The saga.
        status: `completed`, `compensated` or `parked`.
        code: Why it was undone or parked; empty when it completed.
        message: The same for people.
        step: Name of the step that the reason is about; empty if none.
        results: Name of each step that was done, to the answer of its participant. Empty if
            it would be too large for one message.
        remaining: Steps whose effect stands, or may stand, although the saga did not
            complete; for a completed one, the steps that it did without.
    """

    saga_id: str
    status: str
    code: str
    message: str
    step: str
    results: Mapping[str, Mapping[str, Any]]
    remaining: tuple[str, ...]

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Outcome:
        """Return the outcome that a host has told as plain values."""
        phase = str(data["phase"])
        return cls(
            saga_id=data["saga_id"],
            status="parked" if phase.startswith("parked") else phase,
            code=data["code"],
            message=data["message"],
            step=data["step"],
            results=data["results"],
            remaining=tuple(data["remaining"]),
        )

    @property
    def is_completed(self) -> bool:
        """Whether everything was done."""
        return self.status == "completed"

    def raise_if_not_completed(self) -> Outcome:
        """Return this outcome if it is a success.

        Raises:
            RolledBackError: If the saga was undone; the subclass tells why.
            ParkedError: If it waits for an operator.
        """
        if self.is_completed:
            return self
        if self.status == "parked":
            raise ParkedError(self.saga_id, self.code, self.message, self.step)
        cls = ROLLED_BACK.get(self.code, RolledBackError)
        raise cls(self.saga_id, self.code, self.message, self.step)
