"""The participants of a saga, reduced to their ledger: one row for each step.

Behaves as the table of what a ledger answers says, no more: it is what the random
histories are judged by, so it must not share code with what it judges. `effect` is
the truth about the world, which a row may not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raysaga.statemachines.calls import Code, LedgerStatus, Outcome
from raysaga.statemachines.definition import SagaDefinition


class PromiseBrokenError(AssertionError):
    """A promise does not hold in this history."""


class Call(NamedTuple):
    """A message on its way to a participant."""

    step: int
    undo: bool
    attempt: int
    epoch: int
    request: Mapping[str, Any]


class Reply(NamedTuple):
    """A participant's answer, or what the host makes of none."""

    outcome: Outcome
    stored: bool = False
    result: Mapping[str, Any] | None = None
    code: str = ""


@dataclass(slots=True)
class Row:
    """What one participant holds of one step."""

    status: LedgerStatus = LedgerStatus.NOTHING
    result: Mapping[str, Any] | None = None
    request: Mapping[str, Any] | None = None
    effect: bool = False
    effect_count: int = 0
    undo_count: int = 0


def unknown(code: str) -> Reply:
    """Return the answer that tells nothing."""
    return Reply(Outcome.UNKNOWN, code=code)


@dataclass(slots=True)
class ModelLedgers:
    """All participants of one saga."""

    definition: SagaDefinition
    providers: frozenset[int]
    rows: list[Row] = field(default_factory=list)
    fences: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = [Row() for _ in self.definition.steps]

    def standing(self) -> set[int]:
        """Return the steps whose effect stands in the world."""
        return {i for i, row in enumerate(self.rows) if row.effect}

    def deliver(self, call: Call, *, refuse: bool) -> Reply:
        """Let a call arrive; `refuse` is what a participant that still can choose does."""
        if not self._admit(call.step, call.epoch):
            return unknown(Code.FENCED)
        row = self.rows[call.step]
        if row.request is not None and row.request != call.request:
            raise PromiseBrokenError(f"{call} does not ask for what was asked: {row.request}")
        row.request = call.request
        return self._undo(row, refuse) if call.undo else self._act(call.step, row, refuse)

    def _admit(self, step: int, epoch: int) -> bool:
        participant = self.definition.steps[step].participant
        if epoch < self.fences.get(participant, 0):
            return False
        self.fences[participant] = epoch
        return True

    def _act(self, step: int, row: Row, refuse: bool) -> Reply:
        match row.status:
            case LedgerStatus.NOTHING if step in self.providers:
                row.status = LedgerStatus.PENDING
                return unknown("PENDING")
            case LedgerStatus.NOTHING:
                self._settle_row(step, row, refuse)
                return self._act(step, row, refuse)
            case LedgerStatus.APPLIED:
                return Reply(Outcome.SUCCEEDED, True, row.result)
            case LedgerStatus.REFUSED:
                return Reply(Outcome.REFUSED, True, code="NO")
            case LedgerStatus.TOMBSTONE | LedgerStatus.UNDONE:
                return Reply(Outcome.REFUSED, True, code=Code.CANCELLED_BEFORE_START)
            case _:
                return unknown("NOBODY_KNOWS")

    def _settle_row(self, step: int, row: Row, refuse: bool) -> None:
        if refuse:
            row.status = LedgerStatus.REFUSED
            return
        row.status = LedgerStatus.APPLIED
        row.effect = True
        row.effect_count += 1
        row.result = {"value": f"made by {self.definition.steps[step].name}"}

    def _undo(self, row: Row, refuse: bool) -> Reply:
        match row.status:
            case LedgerStatus.NOTHING:
                row.status = LedgerStatus.TOMBSTONE
            case LedgerStatus.PENDING:
                return unknown("PENDING")
            case LedgerStatus.APPLIED | LedgerStatus.UNKNOWN:
                if refuse:
                    return Reply(Outcome.REFUSED, code="CANNOT_UNDO")
                row.status = LedgerStatus.UNDONE
                row.effect = False
                row.undo_count += 1
            case _:
                pass
        return Reply(Outcome.SUCCEEDED, True, {"undone": True})

    def provider_answers(self, step: int, how: int) -> None:
        """End what is pending: applied, refused, or lost for ever to knowledge."""
        row = self.rows[step]
        if row.status is not LedgerStatus.PENDING:
            return
        self._settle_row(step, row, refuse=how == 1)
        if how >= 2:
            row.status = LedgerStatus.UNKNOWN
            row.result = None

    def question(self, step: int, epoch: int) -> tuple[str, Mapping[str, Any] | None]:
        """Tell what is held; a newer owner's question fences out the older one."""
        if not self._admit(step, epoch):
            raise PromiseBrokenError("the newest owner was fenced out")
        row = self.rows[step]
        return row.status.value, row.result
