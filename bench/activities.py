"""Says which activity a stack of frames is: what one pays for, in words of the engine.

The frame that is nearest to the leaf and is known decides; what nobody knows is `other`, so
that the activities of a process always add up to all of its samples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

OTHER: Final = "other"

WAIT: Final = "wait"
"""Not in any stack: the cores stood still."""

_INBOUND = re.compile(r"recei|unpack|read|land|buffer|deliver|take|answered")

_RULES: Final[Sequence[tuple[str, re.Pattern[str]]]] = tuple(
    (activity, re.compile(pattern))
    for activity, pattern in (
        ("transitions", r"statemachines/(machine|tables)\.py|/?transitions/"),
        ("decide", r"statemachines/"),
        ("encode", r"storage/(codec|ledger_row)\.py"),
        ("ledger", r"storage/(ledger|effects|staged_effects)|actors/ledger_writer\.py"),
        ("commit", r"storage/|actors/committer\.py|lmdb/"),
        ("service", r"actors/services/"),
        ("wire", r"actors/(lane|wire|local_wire|gateway)\.py|actors/shells/wires\.py|msgpack/"),
        ("host", r"actors/"),
        ("ray", r"(^|/)ray/|default_worker\.py"),
        ("caller", r"bench/|raysaga/api/|(^|/)json/|hashlib"),
        ("log", r"structlog/|logging/"),
        ("loop", r"asyncio/|uvloop|concurrent/futures|threading\.py|selectors\.py"),
    )
)
"""Activity and the files it is in, the more particular first. `wire` is told as `send` and
`receive`, by the name of the function; `loop` holds the system calls of sockets as well."""

ACTIVITIES: Final = (
    "decide",
    "transitions",
    "host",
    "encode",
    "commit",
    "send",
    "receive",
    "ledger",
    "service",
    "caller",
    "loop",
    "ray",
    "log",
    OTHER,
)
"""In the order in which a table tells them."""


def activity_of(stack: Sequence[str]) -> str:
    """Return the activity of a stack, root first, of frames `function (file)`."""
    for frame in reversed(stack):
        function, _, file = frame.partition(" (")
        for activity, pattern in _RULES:
            if pattern.search(file):
                if activity != "wire":
                    return activity
                return "receive" if _INBOUND.search(function) else "send"
    return OTHER


def shares(stacks: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    """Return the share of each activity in `stacks`; they add up to 1."""
    weights: Counter[str] = Counter()
    for stack, weight in stacks.items():
        weights[activity_of(stack)] += weight  # type: ignore[assignment]
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}
