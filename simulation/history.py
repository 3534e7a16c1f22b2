"""What was seen from outside in one history: the only thing that the checker believes.

Each line is written by who plays the history and never by the engine: what callers asked
and were told, what left a host, what a participant's disk held after a commit,
what was broken. Of a simulation the same seed gives the same lines, byte for byte. Of real
processes (`raysaga chaos`) lines are put in order by the machine's clock, a call is noted where
it arrives, and what is on the disks is read when all is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from raysaga.statemachines.definition import SagaDefinition

EFFECT_ACTION, EFFECT_UNDO, EFFECT_TOMBSTONE, EFFECT_REFUSED = (
    "action",
    "compensation",
    "tombstone",
    "refused",
)
"""Kinds of effects, as a ledger's log has them."""


class Asked(NamedTuple):
    """A caller asked something of a shard; `saga_id` is empty if it is about no one saga."""

    at_ms: int
    caller: str
    operation: str
    saga_id: str
    facts: Mapping[str, Any]


class Told(NamedTuple):
    """A caller was told something: `ok`, `error`, `ended`, or `lost` if he will never know."""

    at_ms: int
    caller: str
    operation: str
    saga_id: str
    kind: str
    facts: Mapping[str, Any]


class Sent(NamedTuple):
    """A call left a host."""

    at_ms: int
    host: str
    participant: str
    verb: int
    saga_id: str
    step: str
    scope: str
    epoch: int
    attempt: int


class Replied(NamedTuple):
    """A participant answered a call; what it says is on its disk."""

    at_ms: int
    participant: str
    verb: int
    saga_id: str
    step: str
    epoch: int
    attempt: int
    outcome: int
    code: str
    stored: bool
    duplicate: bool


class Effect(NamedTuple):
    """A line of a participant's effect log is on its disk."""

    at_ms: int
    participant: str
    seq: int
    kind: str
    saga_id: str
    step: str
    scope: str
    epoch: int
    summary: Any


class Granted(NamedTuple):
    """A journal's disk holds a new epoch."""

    at_ms: int
    host: str
    scope: str
    epoch: int


class Committed(NamedTuple):
    """A journal's disk holds new records: `rows` are saga, sequence number and phase."""

    at_ms: int
    host: str
    scope: str
    epoch: int
    rows: tuple[tuple[str, int, str], ...]


class Trouble(NamedTuple):
    """Something was broken, or mended."""

    at_ms: int
    what: str
    target: str


Line = Asked | Told | Sent | Replied | Effect | Granted | Committed | Trouble


class Reading(NamedTuple):
    """A caller's last reading of one saga.

    Attributes:
        phase: Where it stands.
        code: Why it was undone or is parked.
        remaining: What it completed without, or what stands though it did not complete.
        is_whole: Whether its records were still there; of a pruned saga only the phase is told.
    """

    phase: str
    code: str
    remaining: tuple[str, ...]
    is_whole: bool


@dataclass(slots=True, kw_only=True)
class Observation:
    """One history with its end, as the checker gets it.

    Attributes:
        definitions: By name; what the callers asked for.
        lines: In the order of what happened.
        readings: What a caller was told last, by saga; None: the engine does not know it.
        listed: The sagas that the shards list at the end, with their phases.
        counted: What the shards count at the end, by phase.
        late: Sagas that had not come to rest in time after all was mended.
        unserved: Submissions after the mending that were not accepted in time.
        stock: What each participant had at the beginning, and has at the end.
        left_over: What is left in the memory of an engine that has nothing to do.
        flaws: What the verifier says of the journals.
        defects: Errors that nobody should ever see: assertions, unheard exceptions.
        poison: Sagas that kill whoever drives them.
        healed_at_ms: When all was mended.
        ended_at_ms: When it was over.
        struck: How often each fault struck.
        books: What an audit of the participants' own tables finds wrong.
        secrets: Where something was found that should be told nowhere.
        is_read_later: Whether grants and commits were read from the disks in the end, so that
            some grants may be missing, and how one saga's records lie to another's is unknown.
    """

    definitions: Mapping[str, SagaDefinition] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    readings: dict[str, Reading | None] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    stock: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_over: list[str] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    poison: frozenset[str] = frozenset()
    healed_at_ms: int = 0
    ended_at_ms: int = 0
    struck: dict[str, int] = field(default_factory=dict)
    books: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    is_read_later: bool = False

    def text(self) -> str:
        """Return all of it as JSON lines."""
        return "\n".join(_texts(self))


def _texts(seen: Observation) -> Iterable[str]:
    for line in seen.lines:
        yield json.dumps([type(line).__name__, *line], sort_keys=True)
    for saga_id, reading in seen.readings.items():
        yield json.dumps(["Reading", saga_id, reading])
    for name in (
        "listed",
        "counted",
        "late",
        "unserved",
        "stock",
        "left_over",
        "flaws",
        "defects",
        "struck",
    ):
        yield json.dumps([name, getattr(seen, name)])
