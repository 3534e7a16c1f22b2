"""One row of a participant's ledger, its key, and the form of both on disk.

Guarantees: a row that decodes is the row that was encoded under that key; its
CRC covers the key as well, so that a row cannot answer for another step.
Refuses: bytes of an unknown version or with a bad CRC (`RecordCorruptError`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from raysaga.statemachines.calls import LedgerStatus
from raysaga.statemachines.ids import StepKey


class LedgerRow(NamedTuple):
    """What a participant remembers of one step.

    Attributes:
        key: Whose row it is.
        status: Where the step stands here.
        operation: The action's name; of a tombstone, the compensation's.
        fingerprint: Hash of the request; every later call must carry the same.
        scope: Scope of the call that made the row.
        epoch: Largest epoch that changed the row.
        created_at_ms: When the row was made, Unix time.
        changed_at_ms: When its status last changed.
        expires_at_ms: Largest expiry of any action seen; 0 if none was seen.
        answer: The action's stored answer.
        refusal_code: Code of the stored refusal; else empty.
        refusal_message: Its sentence.
        undo_answer: The stored answer of the undo.
        released_at_ms: When the saga's end was told and settled; 0 before.
        submitted_at_ms: When the action last went to an outside provider; 0 if never.
        undo_submitted_at_ms: The same for the undo.
    """

    key: StepKey
    status: LedgerStatus
    operation: str
    fingerprint: bytes
    scope: str
    epoch: int
    created_at_ms: int
    changed_at_ms: int
    expires_at_ms: int = 0
    answer: Mapping[str, Any] | None = None
    refusal_code: str = ""
    refusal_message: str = ""
    undo_answer: Mapping[str, Any] | None = None
    released_at_ms: int = 0
    submitted_at_ms: int = 0
    undo_submitted_at_ms: int = 0

    @property
    def is_released(self) -> bool:
        """Whether the saga is over and the row was settled."""
        return self.released_at_ms > 0
