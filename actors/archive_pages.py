"""Cuts a list of sagas into pages, each of which costs no more than it may.

Guarantees: pages follow each other without a gap and without a repeat, whatever is accepted
in between; what was accepted after the first page was asked for is in none of them.
Refuses: nothing; a page may hold fewer rows than asked for, and none, and yet not be the last.
Costs: at most `looks_max` index rows a page, some ten microseconds each; where inputs are
searched, their records, which double that, and `READS_MAX` sagas.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgpack

from raysaga.actors.outcome import head_row
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import TERMINAL
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.journal import Head, HeadFilter, Journal

READS_MAX = 1_000
"""Sagas read for one page; a tenth of a second."""


class Place(NamedTuple):
    """Where a page ended.

    Attributes:
        began_at_ms: When the first page was asked for, Unix time.
        passed: By shard, the last saga that was looked at.
    """

    began_at_ms: int
    passed: Mapping[int, SagaId]


class Page(NamedTuple):
    """Some rows, newest first.

    Attributes:
        rows: As `head_row` makes them.
        looked_count: How many sagas were looked at for them.
        end: Where to go on; None if there are no more.
    """

    rows: list[dict[str, Any]]
    looked_count: int
    end: Place | None


class TextAsked:
    """Tells of sagas whether their inputs hold a string.

    The input is in the first record, and a string is there as its length and its letters. So
    nearly every saga without it is told without decoding anything, at a sixth of the cost.

    Attributes:
        read_count: Sagas that had to be read all the same.
    """

    def __init__(
        self,
        text: str,
        journal_of: Callable[[SagaId], Journal | None],
        input_of: Callable[[SagaId], object],
    ) -> None:
        """Make one.

        Args:
            text: One of the strings, as a whole.
            journal_of: Where a saga is kept.
            input_of: Reads its input; None if that cannot be read.
        """
        self.read_count = 0
        self._text = text
        self._packed: bytes = msgpack.packb(text, unicode_errors="surrogatepass")
        self._journal_of = journal_of
        self._input_of = input_of

    def holds(self, head: Head) -> bool:
        """Return whether the input of a saga does."""
        journal = self._journal_of(head.saga_id)
        try:
            first = journal.records(head.saga_id)[:1] if journal is not None else []
        except RecordCorruptError:
            return False
        if not any(self._packed in record for record in first):
            return False
        self.read_count += 1
        return holds_text(self._input_of(head.saga_id), self._text)


def to_scan(wanted: HeadFilter) -> HeadFilter:
    """Return the part of a filter that an index serves; the rest is compared row by row."""
    open_only = wanted.phases is not None and not wanted.phases & TERMINAL
    return HeadFilter(
        phases=wanted.phases if open_only else None, accepted_before_ms=wanted.accepted_before_ms
    )


def cut(
    runs: Mapping[int, Iterator[Head]],
    wanted: HeadFilter,
    *,
    asked: TextAsked | None,
    limit: int,
    looks_max: int,
    start: Place,
) -> Page:
    """Return the next page of the sagas that meet every condition.

    Args:
        runs: By shard, its sagas after the last one passed, newest first.
        wanted: What the index rows must say.
        asked: What the input must hold, asked last.
        limit: Rows at most.
        looks_max: Sagas to look at, at most.
        start: Where the page before ended.
    """
    passed = dict(start.passed)
    rows: list[dict[str, Any]] = []
    looked_count = 0
    tagged = [_tagged(shard, run) for shard, run in runs.items()]
    for shard, head in heapq.merge(*tagged, key=lambda pair: -pair[1].accepted_at_ms):
        if wanted.accepted_from_ms is not None and head.accepted_at_ms < wanted.accepted_from_ms:
            break
        looked_count += 1
        passed[shard] = head.saga_id
        is_known_to_all_pages = head.accepted_at_ms <= start.began_at_ms
        if is_known_to_all_pages and wanted.accepts(head) and (asked is None or asked.holds(head)):
            rows.append(head_row(head))
        is_tired = asked is not None and asked.read_count >= READS_MAX
        if len(rows) == limit or looked_count == looks_max or is_tired:
            return Page(rows, looked_count, Place(start.began_at_ms, passed))
    return Page(rows, looked_count, None)


def _tagged(shard: int, run: Iterator[Head]) -> Iterator[tuple[int, Head]]:
    return ((shard, head) for head in run)


def holds_text(value: object, text: str) -> bool:
    """Return whether plain data has `text` as one of its strings, at any depth."""
    pending = [value]
    while pending:
        found = pending.pop()
        if isinstance(found, str):
            if found == text:
                return True
        elif isinstance(found, Mapping):
            pending.extend(found.values())
        elif isinstance(found, list | tuple):
            pending.extend(found)
    return False
