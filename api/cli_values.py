"""Turns what people type into values, and values into what people read.

Instants are shown in UTC, so that they agree with the logs; durations in the largest unit
that leaves two or three digits.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import typer
from rich.text import Text

from raysaga.actors.brokers.address import is_broker_address, parse_address
from raysaga.actors.participant_maker import maker_of
from raysaga.api.cli_terminal import printable
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import is_key
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)")

STATES: Mapping[str, frozenset[Phase]] = {
    **{phase.value: frozenset({phase}) for phase in Phase},
    "open": frozenset(Phase) - TERMINAL,
    "parked": PARKED,
    "ended": TERMINAL,
}
"""What `--state` understands: each phase, and three words for several."""

_COLOURS: Mapping[str, str] = {
    "completed": "green",
    "compensated": "yellow",
    "running": "cyan",
    "forward_only": "cyan",
    "compensating": "magenta",
}


def age_ms(text: str) -> int:
    """Return an age such as `90s`, `5m` or `2d` in milliseconds.

    Raises:
        BadParameter: If it is none.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        sentence = "must be a whole number and ms, s, m, h or d, such as 5m"
        raise typer.BadParameter(sentence, param_hint="--older-than")
    return int(found[1]) * _UNITS_MS[found[2]]


def phases_of(states: list[str]) -> frozenset[Phase] | None:
    """Return the phases that any of `states` stands for; None for all, if there is no state.

    Raises:
        BadParameter: If one is unknown.
    """
    unknown = [state for state in states if state not in STATES]
    if unknown:
        sentence = f"{printable(unknown[0])} is none of {', '.join(STATES)}"
        raise typer.BadParameter(sentence, param_hint="--state")
    return frozenset[Phase]().union(*(STATES[state] for state in states)) if states else None


def told_ms(duration: float | None) -> str:
    """Return a duration for people."""
    if duration is None:
        return ""
    if duration < 1_000:
        return f"{duration:.0f} ms"
    seconds = duration / 1_000
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def told_instant(at_ms: int | None, *, with_ms: bool = False) -> str:
    """Return an instant for people: UTC, seconds or milliseconds."""
    if at_ms is None:
        return ""
    instant = datetime.fromtimestamp(at_ms / 1_000, UTC)
    shown = instant.strftime("%Y-%m-%d %H:%M:%S")
    return f"{shown}.{at_ms % 1_000:03d}Z" if with_ms else f"{shown}Z"


def phase_text(phase: str) -> Text:
    """Return a phase in its colour."""
    return Text(phase, style=_COLOURS.get(phase, "bold red"))


def reason_text(code: str, step: str) -> Text:
    """Return why a saga turned back or waits, and at which step."""
    return Text(printable(f"{code} at {step}" if code and step else code or step))


def facts_text(facts: Mapping[str, Any]) -> str:
    """Return facts in one line, empty ones left out."""
    shown = [
        f"{name}={', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in facts.items()
        if value not in (None, "", [], {})
    ]
    return printable("  ".join(shown))


def load_definition(name: str) -> SagaDefinition:
    """Return the definition that `module:attribute` names; the working folder is looked in.

    Raises:
        ValidationError: If there is none.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ValidationError("must be module:attribute, such as trip:trip_saga", "DEFINITION")
    look_in_working_folder()
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValidationError(f"cannot be loaded: {error}", "DEFINITION") from error
    if not isinstance(found, SagaDefinition):
        raise ValidationError(f"{name} is no saga definition", "DEFINITION")
    return found


def load_participants(given: Iterable[str]) -> dict[str, str]:
    """Return by name what makes, or reaches, each participant that was given.

    That a function can be imported is tried here, so that no engine is started in vain.

    Args:
        given: Each as `NAME=MODULE:FUNCTION`, or `NAME=URL` for one behind a broker.

    Raises:
        ValidationError: If one is not of that form, or is there twice.
        ParticipantNotFoundError: If there is no such function; the working folder is looked in.
        BrokerAddressError: If an address is none.
    """
    found: dict[str, str] = {}
    look_in_working_folder()
    for one in given:
        name, _, target = one.partition("=")
        if not (is_key(name) and target):
            raise ValidationError("must be NAME=MODULE:FUNCTION, or NAME=URL", "--participant")
        if name in found:
            raise ValidationError(f"{name} is named twice", "--participant")
        if is_broker_address(target):
            parse_address(target)
        else:
            maker_of(name, target)
        found[name] = target
    return found


def look_in_working_folder() -> None:
    """Have modules of the working folder found, as `python` does without being asked."""
    if "" not in sys.path:
        sys.path.insert(0, "")
