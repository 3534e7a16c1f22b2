"""Makes calls that carry a fresh proof that their sender owns its scope.

Guarantees: no call is made later than `epoch_check_ms` after the journal was
seen to hold the sender's epoch, and no action outlives that sight by more than
`action_life_ms`; so what a host sends that was replaced without knowing is dead
after a bounded time (design, rules on zombies and on pruning).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysaga.actors.bulk_release import MANY
from raysaga.actors.clock import Clock
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import ACTION, RELEASE, StepCall
from raysaga.statemachines.definition import Step
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.storage.errors import StaleEpochError
from raysaga.storage.journal import Journal

RELEASE_TIMEOUT_MS = 10_000
"""How long a participant may take to confirm that it forgets."""


class CallStamp:
    """One owner's numbers, and its proof of ownership.

    Attributes:
        checked_at_ms: When the journal was last seen to hold the owner's epoch, Unix time.
    """

    def __init__(
        self, journal: Journal, scope: Scope, epoch: Epoch, clock: Clock, settings: EngineSettings
    ) -> None:
        self._journal = journal
        self._scope = scope
        self._epoch = epoch
        self._clock = clock
        self._settings = settings
        self._call_count = 0
        self.checked_at_ms = clock.now_ms()

    def prove(self, seen_at_ms: int) -> None:
        """See to it that the proof is fresh; `seen_at_ms` is when a commit last compared epochs.

        Raises:
            StaleEpochError: If the scope has a newer owner.
        """
        now_ms = self._clock.now_ms()
        self.checked_at_ms = max(self.checked_at_ms, seen_at_ms)
        # A proof from the future was made before the wall clock was put back.
        if not 0 <= now_ms - self.checked_at_ms <= self._settings.epoch_check_ms:
            current = self._journal.epoch(self._scope)
            if current != self._epoch:
                raise StaleEpochError(self._scope, self._epoch, current)
            self.checked_at_ms = now_ms

    def call(
        self,
        verb: int,
        saga_id: SagaId,
        step: Step,
        operation: str,
        request: Mapping[str, Any],
        attempt: int,
    ) -> StepCall:
        """Return a call with the proof as it stands; no two have the same number."""
        self._call_count += 1
        expires_at_ms = self._expiry_ms(step.timeout_ms) if verb == ACTION else None
        return StepCall(
            self._call_count,
            verb,
            self._journal.identity.uuid,
            saga_id,
            step.name,
            operation,
            request,
            self._scope,
            self._epoch,
            attempt,
            expires_at_ms,
            RELEASE_TIMEOUT_MS if verb == RELEASE else step.timeout_ms,
        )

    def renewed(self, call: StepCall) -> StepCall:
        """Return a call that has waited, on a fresh proof; what waited long must not be dead.

        Raises:
            StaleEpochError: If the scope has a newer owner.
        """
        self.prove(0)
        if call.expires_at_ms is None:
            return call
        expires_at_ms = self._expiry_ms(call.timeout_ms)
        if expires_at_ms == call.expires_at_ms:
            return call
        return call._replace(expires_at_ms=expires_at_ms)

    def _expiry_ms(self, timeout_ms: int) -> int:
        return self.checked_at_ms + max(self._settings.action_life_ms, timeout_ms)

    def bulk_release(self, rows: list[list[str]]) -> StepCall:
        """Return a call that tells a participant of many ended sagas; see `bulk_release`."""
        self._call_count += 1
        return StepCall(
            self._call_count,
            RELEASE,
            self._journal.identity.uuid,
            MANY,
            MANY,
            "release",
            {"rows": rows},
            self._scope,
            self._epoch,
            1,
            None,
            RELEASE_TIMEOUT_MS,
        )
