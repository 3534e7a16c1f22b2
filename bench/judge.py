"""Decides whether a run may have a figure: the books balance, and the journals verify.

Guarantees: what it calls clean was looked at after the engine had stopped, in its ledgers and
journals, by the same audit and the same certificate as `raysaga audit --certificate`.
Refuses: a run with a violation, with what offends (`RunRefusedError`).
Costs: half a millisecond a saga.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raysaga.actors.archive import ALL, Archive
from raysaga.actors.archive_checks import audit_folder, under_way
from raysaga.actors.certificate import certify
from raysaga.actors.services.audit_books import SERVICES
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import Phase
from raysaga.storage.ledger_reader import LedgerReader

EVENTS_SAMPLED = 200
"""Sagas whose histories are counted."""

MOVELESS = frozenset({"accepted"})
"""Events that move neither machine."""


class RunRefusedError(SagaError):
    """A run broke a promise, so it has no figure.

    Attributes:
        message: What offends.
    """

    code = "BENCH_RUN_REFUSED"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"no figure: {self.message}"


def judge(
    folder: Path, *, seed: int, definitions: Sequence[SagaDefinition] = (order_saga,)
) -> dict[str, Any]:
    """Return what was checked, as plain values for a line of results.

    Args:
        folder: Of an engine that has stopped.
        seed: Of the run.
        definitions: Of its sagas. What is no order must have completed, with each step's
            effect exactly once in the ledger of its participant.

    Raises:
        RunRefusedError: If anything is not in order.
    """
    with Archive.open(folder) as archive:
        left = under_way(archive.counts())
        if left:
            raise RunRefusedError(f"{left} sagas have not ended")
        events = {d.name: _events(archive, d.name) for d in definitions}
        report = audit_folder(archive)
        if not report.is_clean:
            offenders = [f"{check.name}: {check.offenders[:3]}" for check in report.failed]
            raise RunRefusedError("; ".join(offenders))
        for name, expected in _expected(archive, definitions).items():
            _check_counts(folder, name, expected)
        certificate = certify(archive, report, seed=seed)
    return {
        "audit": "clean",
        "audit_sagas": sum(shard["saga_count"] for shard in certificate["shards"]),
        "audit_checks": len(report.checks),
        "certificate_seal": certificate["seal"],
        "seed": seed,
        "events_by_definition": events,
    }


def _events(archive: Archive, definition: str) -> dict[str, float]:
    """Return the mean number of events of a saga, and of moves of the two machines."""
    counts: Counter[str] = Counter()
    sagas = 0
    for row in archive.rows(limit=EVENTS_SAMPLED, definition=definition):
        sagas += 1
        counts.update(event["event"] for event in archive.history(row["saga_id"]))
    if not sagas:
        raise RunRefusedError(f"there are no sagas of {definition}")
    moves = sum(count for event, count in counts.items() if event not in MOVELESS)
    return {
        "events_per_saga": round(counts.total() / sagas, 2),
        "transitions_per_saga": round(moves / sagas, 2),
    }


def _expected(archive: Archive, definitions: Sequence[SagaDefinition]) -> Counter[str]:
    """Return the effects that must stand at each participant that the audit does not know."""
    expected: Counter[str] = Counter()
    for definition in definitions:
        others = [s.participant for s in definition.steps if s.participant not in SERVICES]
        if others:
            phases = [row["phase"] for row in archive.rows(limit=ALL, definition=definition.name)]
            if set(phases) != {Phase.COMPLETED}:
                raise RunRefusedError(f"a saga of {definition.name} did not complete")
            for name in others:
                expected[name] += len(phases)
    return expected


def _check_counts(folder: Path, name: str, expected: int) -> None:
    ledger = LedgerReader.open(folder / "services" / name)
    try:
        seen = Counter((effect.key, effect.kind.value) for effect in ledger.effects())
    finally:
        ledger.close()
    twice = [key for key, count in seen.items() if count > 1]
    if twice or len(seen) != expected:
        what = f"{len(seen)} effects for {expected} steps, {len(twice)} of them twice"
        raise RunRefusedError(f"{name}: {what}")
