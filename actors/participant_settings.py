"""Bounds of a participant's server, and how its ledger is opened."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path

import structlog

from raysaga.actors.clock import Clock
from raysaga.actors.participant import Participant
from raysaga.statemachines.calls import StepCall
from raysaga.storage.ledger import Ledger, LedgerSettings
from raysaga.storage.ledger_batch import Handlers


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLimits:
    """Bounds of one participant's server.

    Attributes:
        in_flight_max: Calls with a task of their own at once.
        queued_max: Calls waiting beside those.
        homeward_share: Part of both that actions cannot take, so that compensations,
            questions and releases get through when actions pile up.
        batch_items_max: Calls in one transaction; larger ones gained nothing.
        retry_after_ms_min: Least that an overloaded sender is asked to wait.
        retry_after_ms_max: Most.
        conflict_retries_max: Times that an optimistic conflict is tried again in here.
    """

    in_flight_max: int = 1_024
    queued_max: int = 16_384
    homeward_share: float = 0.25
    batch_items_max: int = 256
    retry_after_ms_min: int = 50
    retry_after_ms_max: int = 2_000
    conflict_retries_max: int = 16

    def __post_init__(self) -> None:
        assert self.in_flight_max >= 1
        assert self.queued_max >= 1
        assert self.batch_items_max >= 1
        assert 0.0 <= self.homeward_share < 1.0

    def less_share(self, bound: int) -> int:
        """Return the part of a bound that actions can take; at least 1."""
        return max(bound - ceil(bound * self.homeward_share), 1)


def open_ledger(
    participant: Participant,
    path: Path,
    *,
    clock: Clock,
    settings: LedgerSettings | None = None,
) -> Ledger:
    """Open the ledger of `participant` in the folder `path`, and take it over.

    Raises:
        DataFolderError: If the folder cannot be used.
        StorageFullError: If not even the head-room has room.
    """
    log = structlog.get_logger(__name__).bind(participant=participant.name)

    def on_defect(call: StepCall, error: Exception) -> None:
        log.error(
            "handler_failed",
            saga_id=call.saga_id,
            step=call.step,
            operation=call.operation,
            exc_info=error,
        )

    return Ledger.open_at(
        path,
        handlers=Handlers(
            operations=participant.operations,
            settle=participant.settle,
            codes=participant.codes,
        ),
        tables=participant.tables,
        now_ms=clock.now_ms,
        settings=settings,
        on_defect=on_defect,
    )
