"""What every actor of one engine is told when it is made: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from raysaga.actors.settings import EngineSettings


class EnginePlan(BaseModel):
    """One engine: where its data is, how many shards, which participants.

    Attributes:
        engine: Prefix of all its actors' names; made from the data folder's uuid.
        namespace: Ray namespace.
        folder: Path of the data folder.
        shard_count: Number of shards.
        settings: Bounds and defaults.
        participants: Name to `module:function`; the function takes the name and the
            participant's settings and returns a `Participant`.
        services: Settings handed to those functions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    namespace: str
    folder: str
    shard_count: int
    settings: EngineSettings
    participants: Mapping[str, str]
    services: Mapping[str, Any]
