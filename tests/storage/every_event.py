"""One of each event, as the fixtures of the codec hold them. Never change one; add."""

from __future__ import annotations

from raysaga.statemachines.events import (
    Accepted,
    AttemptFailed,
    CompensationStarted,
    Event,
    GoGiven,
    LedgersAsked,
    Recovered,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    SagaResumed,
    StepCalled,
    StepRefused,
    StepSkipped,
    StepSucceeded,
    StepUndone,
)

SAGA_ID = "order:größe-1"
SEQ, EPOCH, AT_MS = 7, 1_000_002, 1_763_884_800_123

INPUT = {
    "order_id": "größe-1",
    "items": [{"sku": "A-1", "quantity": 2}, {"sku": "B-2", "quantity": 1}],
    "ratio": 0.25,
    "big": 2**63,
    "negative": -(2**63),
    "nothing": None,
    "yes": True,
    "raw": b"\x00\xff",
    "empty": {},
}

EVENTS_V1: tuple[Event, ...] = (
    Accepted("order", "d" * 64, "größe-1", "f" * 64, "uuid/shard-0", INPUT, AT_MS, AT_MS + 1),
    Accepted("order", "d" * 64, "k", "f" * 64, "uuid/order:k", {}, AT_MS, None),
    StepCalled(0, False, 1, AT_MS),
    StepSucceeded(0, 1, AT_MS, {"reservation_id": "r-1"}),
    StepSucceeded(1, 1, AT_MS, None),
    StepRefused(1, 2, AT_MS, "CARD_DECLINED", "the bank said no"),
    AttemptFailed(2, False, 3, AT_MS, "TIMEOUT", "no answer", AT_MS + 250),
    AttemptFailed(2, True, 4, AT_MS, "TIMEOUT", "no answer", None),
    StepUndone(1, 1, AT_MS, {"refund_id": "f-1"}),
    StepSkipped(3, True, AT_MS, "ada", "told the customer"),
    GoGiven(AT_MS),
    CompensationStarted(AT_MS, "CARD_DECLINED", "the bank said no", 1, (0, 1), ""),
    CompensationStarted(AT_MS, "CANCELLED", "", None, (), "ada"),
    SagaCompleted(AT_MS),
    SagaCompensated(AT_MS, (3,)),
    SagaParked(AT_MS, "UNDO_FAILED", "shipping is closed", 2, (0, 1, 2)),
    SagaResumed(AT_MS, "ada", "they opened again"),
    Recovered(AT_MS, 12, 2),
    LedgersAsked(AT_MS, ("applied", "nothing"), ({"reservation_id": "r-1"}, None)),
)
