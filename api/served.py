"""Compares the participants that were named for an engine with those that it serves.

Participants count when an engine starts. Who names some for one that runs already would
otherwise find out when a saga waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysaga.actors.brokers.address import without_password
from raysaga.api.errors import ParticipantNotServedError

if TYPE_CHECKING:
    # It brings Ray, which commands that only read do without.
    from raysaga.actors.gateway import Engine


async def served_otherwise(engine: Engine, asked: Mapping[str, str]) -> list[str]:
    """Return a sentence about each participant that the engine, which ran already, has otherwise.

    Args:
        engine: That runs.
        asked: What was named for it, by the participant's name.

    Raises:
        ParticipantNotServedError: If it has not even one of that name.
        EngineUnavailableError: If it does not answer.
    """
    if not asked:
        return []
    served = await engine.participants()
    missing = sorted(asked.keys() - served.keys())
    if missing:
        raise ParticipantNotServedError(missing, sorted(served))
    return [
        f"an engine runs already, whose {name} is {served[name]} and not {wanted}; participants "
        "count when an engine starts"
        for name, target in asked.items()
        if (wanted := without_password(target)) != served[name]
    ]
