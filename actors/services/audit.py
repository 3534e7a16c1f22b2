"""Decides whether the books of the order saga are in order; believes ledgers and ends only.

Guarantees: a report that is clean means: every saga ended as it was told, every effect
happened at most once and none after its undo, a completed order has each of its effects
exactly once, a compensated one none, no piece of stock and no cent is missing or there twice.
Refuses: to call clean what it could not look at: an effect log that was pruned is told.
Costs: see `audit_books`; deciding takes some microseconds for each step.

The invariants are those of the design: I1 atomicity, I2 conservation, I4 at most once, I12 no
action after its undo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from raysaga.actors.services.audit_books import Books
from raysaga.actors.services.audit_checks import Case, Found, SagaEnd
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga

__all__ = ["OFFENDERS_MAX", "AuditReport", "Check", "SagaEnd", "audit"]

OFFENDERS_MAX: Final = 50
"""Offending ids that a report names for each check; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question to the books, and its answer.

    Attributes:
        name: Stable name of the question.
        question: The question, for people.
        examined_count: How many things were looked at.
        offender_count: How many of them offend.
        offenders: The first of those, with what is wrong.
    """

    name: str
    question: str
    examined_count: int
    offender_count: int
    offenders: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing offends."""
        return not self.offender_count

    def to_data(self) -> dict[str, Any]:
        """Return the check as plain data."""
        return {
            "name": self.name,
            "question": self.question,
            "passed": self.passed,
            "examined_count": self.examined_count,
            "offender_count": self.offender_count,
            "offenders": list(self.offenders),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        checks: Every question, in a fixed order.
        counts: What there was: sagas by end, effects by service and kind.
        notes: What could not be looked at.
    """

    checks: tuple[Check, ...]
    counts: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def to_data(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {
            "is_clean": self.is_clean,
            "counts": dict(self.counts),
            "notes": list(self.notes),
            "checks": [check.to_data() for check in self.checks],
        }

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            mark = "ok  " if check.passed else "FAIL"
            lines.append(f"{mark} {check.name}: {check.examined_count} examined")
            lines.extend(f"       {offender}" for offender in check.offenders)
        return "\n".join([*lines, *self.notes])


def audit(
    books: Books, ends: Iterable[SagaEnd], definition: SagaDefinition = order_saga
) -> AuditReport:
    """Return what the books say of sagas that ended so.

    Args:
        books: Of the four services, at rest.
        ends: Of every saga that the services may have heard of.
        definition: Of these sagas; its steps must name the four services.
    """
    case = Case(books, {end.saga_id: end for end in ends}, definition)
    checks = tuple(_check(question, ask(case)) for question, ask in _QUESTIONS.items())
    return AuditReport(checks=checks, counts=case.counts(), notes=tuple(case.notes()))


_QUESTIONS: Final[Mapping[tuple[str, str], Callable[[Case], Found]]] = {
    ("sagas_ended", "Has every saga ended, or is it parked?"): Case.sagas_ended,
    (
        "effects_at_most_once",
        "Did each effect happen at most once for its key?",
    ): Case.effects_at_most_once,
    (
        "no_action_after_undo",
        "Did no action take effect after its undo, its tombstone or its refusal?",
    ): Case.no_action_after_undo,
    (
        "rows_match_effects",
        "Does each ledger row say what the effect log tells?",
    ): Case.rows_match_effects,
    (
        "completed_whole",
        "Has each completed saga exactly one action for each step, and no undo?",
    ): Case.completed_whole,
    (
        "others_undone",
        "Is nothing left of a saga that did not complete, but what it lists?",
    ): Case.others_undone,
    ("no_orphans", "Does every effect that stands belong to a saga?"): Case.no_orphans,
    (
        "stock_conserved",
        "Is each item's initial stock on hand, reserved or sold, and none below zero?",
    ): Case.stock_conserved,
    (
        "stock_matches_effects",
        "Is what is taken from each item what the orders that stand have taken?",
    ): Case.stock_matches_effects,
    (
        "stock_matches_orders",
        "Has each completed order got the pieces that it ordered?",
    ): Case.stock_matches_orders,
    ("money_balanced", "Do the entries add up to zero, and to the totals?"): Case.money_balanced,
    (
        "money_matches_effects",
        "Is each charge captured once, and refunded if and only if it was undone?",
    ): Case.money_matches_effects,
    (
        "money_matches_orders",
        "Is the money that is kept the price of the orders that stand?",
    ): Case.money_matches_orders,
    (
        "shipments_match_effects",
        "Is each shipment where its step is?",
    ): Case.shipments_match_effects,
    (
        "letters_match_effects",
        "Was each letter written once, and taken back if and only if it was undone?",
    ): Case.letters_match_effects,
}
"""Stable name of each question, the question for people, and who answers it."""


def _check(question: tuple[str, str], found: Found) -> Check:
    examined_count, offending = found
    offenders: list[str] = []
    offender_count = 0
    for offender in offending:
        offender_count += 1
        if len(offenders) < OFFENDERS_MAX:
            offenders.append(offender)
    return Check(
        name=question[0],
        question=question[1],
        examined_count=examined_count,
        offender_count=offender_count,
        offenders=tuple(offenders),
    )
