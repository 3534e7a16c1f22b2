"""Looks for sagas on behalf of a caller, some rows at a time.

A filter that few sagas meet makes the journal pass over all the others, at some microseconds
each. On a journal of a million that takes seconds, in which a host must go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raysaga.actors.errors import SagaNotFoundError
from raysaga.actors.outcome import head_row
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import SagaId, is_key
from raysaga.statemachines.tables import Phase
from raysaga.storage.journal import Head, HeadFilter, Journal

LIST_MAX = 1_000
"""Rows of one page of a list."""

ROWS_A_TURN = 500
"""Rows looked at before others get the event loop; some three milliseconds."""


class Search:
    """One caller's question for sagas.

    Attributes:
        found: What was found so far.
    """

    def __init__(self, journal: Journal, body: Mapping[str, Any]) -> None:
        """Read the question.

        Raises:
            ValidationError: If a filter is not one.
        """
        phases = body.get("phases")
        after = body.get("after")
        try:
            self._wanted = HeadFilter(
                phases=None if phases is None else frozenset(Phase(p) for p in phases),
                reason=body.get("reason"),
                step=body.get("step"),
                definition=body.get("definition"),
                accepted_before_ms=body.get("accepted_before_ms"),
                accepted_from_ms=body.get("accepted_from_ms"),
            )
        except ValueError as error:
            raise ValidationError(str(error), "phases") from error
        self._journal = journal
        self._limit = min(int(body.get("limit", 100)), LIST_MAX)
        self._newest = bool(body.get("newest", True))
        self._after: SagaId | None = None if after is None else saga_id_given(after)
        self.found: list[Head] = []

    def look(self) -> bool:
        """Look at some more sagas; return whether that was all.

        Raises:
            SagaNotFoundError: If the saga to go on after is unknown.
        """
        try:
            heads, self._after = self._journal.look(
                self._wanted,
                limit=self._limit - len(self.found),
                rows_max=ROWS_A_TURN,
                after=self._after,
                newest=self._newest,
            )
        except KeyError as error:
            raise SagaNotFoundError(str(self._after)) from error
        self.found += heads
        return self._after is None or len(self.found) >= self._limit

    def rows(self) -> list[dict[str, Any]]:
        """Return what was found as plain values."""
        return [head_row(head) for head in self.found]


def saga_id_given(given: object) -> SagaId:
    """Return what a caller gave as the id of a saga.

    Raises:
        ValidationError: If no saga can have it.
    """
    if isinstance(given, str):
        definition, _, key = given.partition(":")
        if is_key(definition) and is_key(key):
            return SagaId(given)
    raise ValidationError("must be definition:key, of [A-Za-z0-9._:-]", "saga_id")
