"""What the ledger kit needs to know of an outside provider: a bank, a carrier, a mail server.

A provider's effect is not in our transaction. So before it is asked, a row with
status PENDING is committed, and after a crash it is asked by the same key, never
with a new one. What cannot be asked again is not done again: its row becomes
UNKNOWN and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from raysaga.statemachines.calls import StepCall
from raysaga.storage.effects import Operation


class ProviderStatus(StrEnum):
    """What a provider says of one request."""

    SUCCEEDED = "succeeded"
    """It took effect. Final."""
    REFUSED = "refused"
    """It did not and will not take effect. Final, if the code is declared a refusal."""
    CANCELLED = "cancelled"
    """It will never take effect. Final."""
    NOT_FOUND = "not_found"
    """The provider has not seen it; final only after the horizon, for it may be on its way."""
    UNKNOWN = "unknown"
    """No answer, or none to build on."""


class ProviderAnswer(NamedTuple):
    """A provider's answer.

    Attributes:
        status: See `ProviderStatus`.
        result: Of a success; handed to `apply` or `undo` as the context.
        code: Of a refusal.
        message: Of a refusal.
    """

    status: ProviderStatus
    result: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""


class Provider(Protocol):
    """A way to a provider. What a method raises counts as UNKNOWN.

    Attributes:
        horizon_ms: How long after it was marked a request can still take effect. One that
            is not found after that, and after the skew of the clocks, never will.
        is_askable: Whether `ask` and `cancel` can tell anything.
        is_idempotent: Whether a key that is submitted twice takes effect once, so that
            what was not found can be submitted again at once.
    """

    horizon_ms: int
    is_askable: bool
    is_idempotent: bool

    async def submit(
        self, key: str, request: Mapping[str, Any], not_after_ms: int
    ) -> ProviderAnswer:
        """Ask for the effect, under `key`; it must not take effect after `not_after_ms`.

        The instant is to go to the provider with the request if it can be told one. Where it
        cannot, `horizon_ms` must be so long that no pause of ours outlasts it. It means nothing
        for a provider that cannot be asked.
        """

    async def ask(self, key: str) -> ProviderAnswer:
        """Ask what became of `key`, without changing anything."""

    async def cancel(self, key: str) -> ProviderAnswer:
        """Prevent `key` from taking effect, or tell what it has come to.

        CANCELLED may only be answered if the request can never take effect any more,
        though it be still on its way. SUCCEEDED says that it is too late.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderOperation(Operation):
    """An operation whose effect is an outside provider's.

    `apply` runs when the provider has succeeded, with its result as the context, in the
    transaction that stores the answer; it must not refuse. `undo` runs when the provider
    has taken the effect back, with that result as the context.

    Attributes:
        provider: Who has the effect.
        submission: Makes the provider's request of a call. It must be a function of the
            call alone.
        reversal: Makes the request that takes the effect back, of the call and of the
            action's answer (None if the action's outcome is unknown for ever). None: to
            undo, the provider need not be asked, or there is no undo.
    """

    provider: Provider
    submission: Callable[[StepCall], Mapping[str, Any]]
    reversal: Callable[[StepCall, Mapping[str, Any] | None], Mapping[str, Any]] | None = None
