"""Finds what the engine's processes logged about one saga, and lays it beside its journal.

Guarantees: the rows come in the order of time; a line that tells an event of the journal
is joined to it, so that nothing is told twice.
Refuses nothing: a line that is no JSON, such as the last one of a process that was killed
while it wrote, is passed over.
Costs: one pass over the log files, at about a gigabyte in a second or two.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from raysaga.actors.story import event_name
from raysaga.statemachines.events import EVENT_TYPES

LINE_BYTES_MAX = 1 << 20
"""A longer line is not one of ours; the rest of it is looked at as if it were another."""

ORDERS_BYTES_MAX = 64 << 20
"""How much of each log is searched for orders; it takes some hundredths of a second."""

CHUNK_BYTES = 1 << 18
"""Searched at once; larger ones gained nothing."""

SHARDS = "shard-"
"""How the names of the logs begin that orders are in."""

JOURNAL, LOG, BOTH = "journal", "log", "both"
"""Where a row was found."""

_EVENT_NAMES = frozenset(
    event_name(cls._make([None] * len(cls.__struct_fields__))) for cls in EVENT_TYPES.values()
)
_OF_THE_LINE = frozenset({"event", "timestamp", "level", "saga_id", "trace_id"})
_WHERE = ("level", "shard", "pid", "epoch", "participant")


def lines_about(folder: Path, saga_id: str) -> Iterator[dict[str, Any]]:
    """Yield the log lines in `folder` that carry `saga_id`, as they were written, and "at_ms"."""
    needle = json.dumps(saga_id).encode()
    with opened_logs(folder) as files:
        for file in files:
            while line := file.readline(LINE_BYTES_MAX):
                if needle in line:
                    facts = _facts(line)
                    if facts is not None and facts.get("saga_id") == saga_id:
                        yield facts


def orders_given(folder: Path, limit: int) -> list[dict[str, Any]]:
    """Return what operators have ordered, newest first: who, what, about which saga, and why.

    Only the last `ORDERS_BYTES_MAX` of each file are searched. Whether an order had an effect
    is in the saga's history, which also keeps it when the logs are gone.
    """
    found: list[dict[str, Any]] = []
    with opened_logs(folder, SHARDS) as files:
        for file in files:
            file.seek(max(0, os.fstat(file.fileno()).st_size - ORDERS_BYTES_MAX))
            for line in _lines_with(file, b'"order_given"'):
                facts = _facts(line)
                if facts is not None and facts.get("event") == "order_given":
                    names = ("at_ms", "saga_id", "order", "by", "note")
                    found.append({name: facts.get(name) for name in names})
    found.sort(key=lambda row: int(row["at_ms"]), reverse=True)
    return found[:limit]


def _lines_with(file: BinaryIO, needle: bytes) -> Iterator[bytes]:
    """Yield the lines from here on that hold `needle`; those that do not cost next to nothing."""
    rest = b""
    while chunk := file.read(CHUNK_BYTES):
        whole, _, rest = (rest + chunk).rpartition(b"\n")
        yield from _lines_in(whole, needle)
        # Of a line that is none of ours the end is as good as the whole.
        rest = rest[-LINE_BYTES_MAX:]
    yield from _lines_in(rest, needle)


def _lines_in(text: bytes, needle: bytes) -> Iterator[bytes]:
    at = text.find(needle)
    while at >= 0:
        begin, end = text.rfind(b"\n", 0, at) + 1, text.find(b"\n", at)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        at = text.find(needle, end)


@contextmanager
def opened_logs(folder: Path, names: str = "") -> Iterator[list[BinaryIO]]:
    """Give the log files of `folder`, those that were set aside as well, each once.

    All are opened before the first is read: one that is set aside meanwhile has another name.

    Args:
        folder: Where they are.
        names: How their names begin.
    """
    with ExitStack() as stack:
        files: dict[int, BinaryIO] = {}
        for path in sorted(folder.glob(f"{names}*.jsonl*")):
            with suppress(FileNotFoundError):
                file = stack.enter_context(path.open("rb"))
                files[os.fstat(file.fileno()).st_ino] = file
        yield list(files.values())


def _facts(line: bytes) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
        facts["at_ms"] = int(datetime.fromisoformat(facts["timestamp"]).timestamp() * 1_000)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def merged_story(
    history: Sequence[Mapping[str, Any]], lines: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a saga's history and its log lines as one story, oldest first.

    Each row is `{"at_ms", "source", "event", …}`. The source of an event that only a log
    tells is `log`: its host was killed before it was on disk, so it never happened, or the
    line is not about an event.

    Args:
        history: Rows of `history_rows`.
        lines: What `lines_about` gives.
    """
    rows: list[dict[str, Any]] = [{**row, "source": JOURNAL} for row in history]
    untold: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        untold.setdefault(_identity(row), []).append(row)
    for line in lines:
        twins = untold.get(_identity(line)) if line.get("event") in _EVENT_NAMES else None
        if twins:
            twin = twins.pop(0)
            twin["source"] = BOTH
            twin.update({name: line[name] for name in _WHERE if name in line})
        else:
            rows.append({**_without(line), "source": LOG})
    rows.sort(key=lambda row: int(row["at_ms"]))
    return rows


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("event", "step", "direction", "attempt", "code"))


def _without(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line without what every row says anyway."""
    kept = {name: value for name, value in line.items() if name not in _OF_THE_LINE}
    return {"event": line.get("event", ""), "level": line.get("level", ""), **kept}
