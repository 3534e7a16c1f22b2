"""Sets up a process's log: one event a line, JSON in a file or coloured on a terminal.

Payloads never get here (see `story`). What still looks like a card number is
masked, and control characters are escaped, so that one event stays one line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from raysaga.actors.log_file import BYTES_MAX, FILES_MAX, LogFile
from raysaga.actors.trace_ids import trace_id_of
from raysaga.statemachines.card_numbers import contains_card_number

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

VALUE_CHARS_MAX = 2_000
"""Longest string that is logged whole."""


def configure_log(
    path: Path | None,
    level: str,
    *,
    bytes_max: int = BYTES_MAX,
    files_max: int = FILES_MAX,
    journal_uuid: str = "",
    **context: Any,
) -> None:
    """Send this process's log to `path` (appended, JSON lines), or to standard error.

    Args:
        path: The file; None for standard error, coloured if it is a terminal.
        level: `debug` shows each transition; see `LEVELS`.
        bytes_max: See `LogFile`.
        files_max: See `LogFile`.
        journal_uuid: Of the data folder; lines about a saga then carry its `trace_id`.
        context: Facts that each line carries, such as `shard`.
    """
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    if journal_uuid:
        # Last: a hash that looks like a card number is none.
        processors.append(partial(_add_trace, journal_uuid))
    factory: Any
    if path is None:
        coloured = sys.stderr.isatty()
        factory = structlog.WriteLoggerFactory(file=sys.stderr)
        processors.append(
            structlog.dev.ConsoleRenderer() if coloured else structlog.processors.JSONRenderer()
        )
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: Any = LogFile(path, bytes_max=bytes_max, files_max=files_max)
        factory = structlog.WriteLoggerFactory(file=file)
        processors.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)


def _add_trace(
    journal_uuid: str, _logger: Any, _method: str, facts: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    saga_id = facts.get("saga_id")
    if isinstance(saga_id, str):
        facts["trace_id"] = trace_id_of(journal_uuid, saga_id)
    return facts


def redact(_logger: Any, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask card numbers, escape control characters and cut what is too long."""
    for name, value in facts.items():
        if isinstance(value, str):
            facts[name] = _safe(value)
        elif isinstance(value, list | tuple | dict):
            if contains_card_number(value):
                facts[name] = "[redacted]"
        elif value is not None and not isinstance(value, bool | int | float):
            # As the renderer would, for errors, sets and whatever else gets here.
            facts[name] = _safe(repr(value))
    return facts


def _safe(text: str) -> str:
    if contains_card_number(text):
        return "[redacted]"
    if len(text) > VALUE_CHARS_MAX:
        text = text[:VALUE_CHARS_MAX] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
