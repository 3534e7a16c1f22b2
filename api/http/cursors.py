"""Writes down where a page of a list ended, for the client to give back.

A cursor is opaque to clients: JSON in base64url. It holds ids that its reader has seen.
"""

from __future__ import annotations

import base64
import json

from raysaga.actors.archive_pages import Place
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import SagaId


def cursor_of(place: Place | None) -> str | None:
    """Return a place as text."""
    if place is None:
        return None
    fields = [place.began_at_ms, {str(shard): saga_id for shard, saga_id in place.passed.items()}]
    content = json.dumps(fields, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def place_of(cursor: str | None) -> Place | None:
    """Return the place that a text stands for.

    Raises:
        ValidationError: If it stands for none.
    """
    if cursor is None:
        return None
    try:
        content = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        began_at_ms, passed = json.loads(content)
        found = {int(shard): SagaId(saga_id) for shard, saga_id in passed.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValidationError("is none that this server gave", "cursor") from error
    if type(began_at_ms) is not int or not all(isinstance(one, str) for one in found.values()):
        raise ValidationError("is none that this server gave", "cursor")
    return Place(began_at_ms, found)
