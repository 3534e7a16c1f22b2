"""Every transition of a saga and of a step, as data.

The engine, the diagrams, the docs and the exhaustive tests derive from these
rows. Rule 1: whatever moves a phase or a status is a row here.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a saga stands as a whole."""

    RUNNING = "running"
    """Going forward, and may still turn back."""
    FORWARD_ONLY = "forward_only"
    """Beyond the point of no return; only a stored refusal of the pivot turns it back."""
    COMPENSATING = "compensating"
    """Turned back for good."""
    PARKED_RUNNING = "parked_running"
    """Waits for a person; may go either way."""
    PARKED_FORWARD = "parked_forward"
    """Waits for a person, facing forward only."""
    PARKED_BACKWARD = "parked_backward"
    """Waits for a person, facing backward only."""
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class StepStatus(StrEnum):
    """Where one step of a saga stands."""

    PENDING = "pending"
    CALLING = "calling"
    WAITING = "waiting"
    """An attempt came to nothing; the next is due later."""
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """Attempts are exhausted, and it may have happened."""
    SKIPPED = "skipped"
    UNDOING = "undoing"
    UNDO_WAITING = "undo_waiting"
    UNDO_FAILED = "undo_failed"
    UNDO_SKIPPED = "undo_skipped"
    UNDONE = "undone"


TERMINAL = frozenset({Phase.COMPLETED, Phase.COMPENSATED})
PARKED = frozenset({Phase.PARKED_RUNNING, Phase.PARKED_FORWARD, Phase.PARKED_BACKWARD})
FORWARD = frozenset({Phase.RUNNING, Phase.FORWARD_ONLY})
BACKWARD = frozenset({Phase.COMPENSATING, Phase.PARKED_BACKWARD, Phase.COMPENSATED})

# (trigger, source, destination), in the order of the story.
PHASE_TRANSITIONS: tuple[tuple[str, Phase, Phase], ...] = (
    ("go", Phase.RUNNING, Phase.FORWARD_ONLY),
    ("complete", Phase.RUNNING, Phase.COMPLETED),
    ("complete", Phase.FORWARD_ONLY, Phase.COMPLETED),
    ("turn_back", Phase.RUNNING, Phase.COMPENSATING),
    # Only the stored refusal of a pivot: nothing without an undo has happened then.
    ("pivot_refused", Phase.FORWARD_ONLY, Phase.COMPENSATING),
    ("compensate", Phase.COMPENSATING, Phase.COMPENSATED),
    ("park", Phase.RUNNING, Phase.PARKED_RUNNING),
    ("park", Phase.FORWARD_ONLY, Phase.PARKED_FORWARD),
    ("park", Phase.COMPENSATING, Phase.PARKED_BACKWARD),
    ("resume", Phase.PARKED_RUNNING, Phase.RUNNING),
    ("resume", Phase.PARKED_FORWARD, Phase.FORWARD_ONLY),
    ("resume", Phase.PARKED_BACKWARD, Phase.COMPENSATING),
    # What the ledgers tell of a parked saga after a restore: it learns which way it faces,
    # or what contradicts it, and stays parked.
    ("go", Phase.PARKED_RUNNING, Phase.PARKED_FORWARD),
    ("turn_back", Phase.PARKED_RUNNING, Phase.PARKED_BACKWARD),
    ("pivot_refused", Phase.PARKED_FORWARD, Phase.PARKED_BACKWARD),
    ("park", Phase.PARKED_RUNNING, Phase.PARKED_RUNNING),
    ("park", Phase.PARKED_FORWARD, Phase.PARKED_FORWARD),
    ("park", Phase.PARKED_BACKWARD, Phase.PARKED_BACKWARD),
)

_ACTIVE = (StepStatus.CALLING, StepStatus.WAITING, StepStatus.UNKNOWN)
_UNDOABLE = (
    StepStatus.PENDING,
    StepStatus.CALLING,
    StepStatus.WAITING,
    StepStatus.SUCCEEDED,
    StepStatus.REFUSED,
    StepStatus.UNKNOWN,
    # A best-effort step that was given up, or one that an operator skipped, may have happened.
    StepStatus.SKIPPED,
    StepStatus.UNDO_WAITING,
    StepStatus.UNDO_FAILED,
    # Called again by a new owner, or by an operator.
    StepStatus.UNDOING,
)
_STOPPED_UNDOS = (StepStatus.UNDOING, StepStatus.UNDO_WAITING, StepStatus.UNDO_FAILED)
# PENDING: a ledger knew more than a restored journal, or the step needs a skipped one's result.
_UNSETTLED = (StepStatus.PENDING, *_ACTIVE)

STEP_TRANSITIONS: tuple[tuple[str, StepStatus, StepStatus], ...] = (
    ("call", StepStatus.PENDING, StepStatus.CALLING),
    ("call", StepStatus.WAITING, StepStatus.CALLING),
    ("call", StepStatus.UNKNOWN, StepStatus.CALLING),
    ("call", StepStatus.REFUSED, StepStatus.CALLING),
    # Called again by a new owner of the saga.
    ("call", StepStatus.CALLING, StepStatus.CALLING),
    *(("succeed", source, StepStatus.SUCCEEDED) for source in _UNSETTLED),
    *(("refuse", source, StepStatus.REFUSED) for source in _ACTIVE),
    ("wait", StepStatus.CALLING, StepStatus.WAITING),
    ("give_up", StepStatus.CALLING, StepStatus.UNKNOWN),
    *(("skip", source, StepStatus.SKIPPED) for source in (*_UNSETTLED, StepStatus.REFUSED)),
    *(("undo", source, StepStatus.UNDOING) for source in _UNDOABLE),
    ("undo_wait", StepStatus.UNDOING, StepStatus.UNDO_WAITING),
    ("undo_give_up", StepStatus.UNDOING, StepStatus.UNDO_FAILED),
    ("undone", StepStatus.UNDOING, StepStatus.UNDONE),
    # A late answer to an earlier attempt, while the next one is waited for.
    ("undone", StepStatus.UNDO_WAITING, StepStatus.UNDONE),
    *(("skip_undo", source, StepStatus.UNDO_SKIPPED) for source in _STOPPED_UNDOS),
)
