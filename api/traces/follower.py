"""Finds the sagas whose traces are to be sent: those that have ended or were parked.

Guarantees: every saga that ends while it follows, and every one accepted since the instant
it was given, is told once at each rest; one that is parked again after an operator's order
is told again. Which of the sagas that went well are told is drawn by their trace ids, as
OpenTelemetry's own sampler draws; those that did not go well are all told.
Refuses nothing. A saga that is pruned before it is looked at is passed over.
Costs: a look reads an index row of each new and of each open saga, some microseconds each.
It keeps the ids of the open ones, and of those of the last moments.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from raysaga.actors.archive import Archive
from raysaga.actors.trace_ids import trace_id_of
from raysaga.api.traces.spans import Span, spans_of
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase

SLACK_MS = 5_000
"""How much later than it was accepted a saga can come to be on disk, and be seen."""

PAGE_ROWS = 1_000

LOOKS_MAX = 20_000
"""Index rows looked at for one page; as many as for a page of a list over HTTP."""

_DRAWN = 1 << 64
_AT_REST = TERMINAL | PARKED


class Follower:
    """Which sagas of one data folder have come to rest since the last look."""

    def __init__(self, archive: Archive, *, since_ms: int, share: float = 1.0) -> None:
        """Make one that has seen nothing.

        Args:
            archive: The folder; asked by `look` and `trace` only.
            since_ms: Sagas accepted before it are told only if they are open now.
            share: Of the sagas that complete, how many are told: 0 to 1.
        """
        assert 0.0 <= share <= 1.0
        self._archive = archive
        self._uuid = archive.folder.uuid
        self._from_ms = since_ms
        self._bound = round(share * _DRAWN)
        self._seen: dict[str, int] = {}
        self._open: dict[str, Phase] = {}
        is_open = frozenset(Phase) - TERMINAL
        for row in archive.rows(limit=1 << 62, phases=is_open):
            self._seen[row["saga_id"]] = row["accepted_at_ms"]
            # Not yet told where it stands, parked or not.
            self._open[row["saga_id"]] = Phase.RUNNING

    def look(self) -> Iterator[str]:
        """Yield the sagas to tell, each once; those accepted first come last."""
        yield from self._rested()
        yield from self._new()

    def trace(self, saga_id: str) -> list[Span]:
        """Return a saga's spans; none if it cannot be read."""
        try:
            rows = self._archive.timeline(SagaId(saga_id))
        except SagaError:
            # Pruned meanwhile, or not readable, which is told by other means.
            return []
        return spans_of(self._uuid, saga_id, rows)

    def _rested(self) -> Iterator[str]:
        for saga_id, before in list(self._open.items()):
            known = self._archive.known(SagaId(saga_id))
            if known is None or known.phase in TERMINAL:
                del self._open[saga_id]
            else:
                self._open[saga_id] = known.phase
            if known is None or known.phase is before:
                continue
            if self._is_told(saga_id, known.phase):
                yield saga_id

    def _new(self) -> Iterator[str]:
        now_ms = time.time_ns() // 1_000_000
        place = None
        while True:
            page = self._archive.page(
                limit=PAGE_ROWS, looks_max=LOOKS_MAX, after=place, accepted_from_ms=self._from_ms
            )
            for row in page.rows:
                saga_id, phase = row["saga_id"], Phase(row["phase"])
                if saga_id in self._seen:
                    continue
                self._seen[saga_id] = row["accepted_at_ms"]
                if phase not in TERMINAL:
                    self._open[saga_id] = phase
                if self._is_told(saga_id, phase):
                    yield saga_id
            place = page.end
            if place is None:
                break
        self._from_ms = max(self._from_ms, now_ms - SLACK_MS)
        old = [one for one, at_ms in self._seen.items() if at_ms < self._from_ms]
        for saga_id in old:
            del self._seen[saga_id]

    def _is_told(self, saga_id: str, phase: Phase) -> bool:
        if phase is not Phase.COMPLETED:
            return phase in _AT_REST
        return int(trace_id_of(self._uuid, saga_id)[16:], 16) < self._bound
