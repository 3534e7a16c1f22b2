"""What every actor of one engine is told when it is made: plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from raysaga.actors.settings import EngineSettings
from raysaga.storage.participants_note import ParticipantsNote


class EnginePlan(BaseModel):
    """One engine: where its data is, how many shards, which participants.

    Attributes:
        engine: Prefix of all its actors' names; made from the data folder's uuid.
        namespace: Ray namespace.
        folder: Path of the data folder.
        shard_count: Number of shards.
        settings: Bounds and defaults.
        participants: Those that the caller names, to `module:function`; the function takes
            the name and the services' settings and returns a `Participant`. Or to the
            address of a broker, behind which somebody else runs it.
        services: Settings handed to those functions.
        usual_participants: Those that are served unless others of these names are named, or
            noted in the folder.
        usual_services: The same for their settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    namespace: str
    folder: str
    shard_count: int
    settings: EngineSettings
    participants: Mapping[str, str]
    services: Mapping[str, Any]
    usual_participants: Mapping[str, str] = {}
    usual_services: Mapping[str, Any] = {}

    def settled(self, note: ParticipantsNote, is_found: Callable[[str], bool]) -> EnginePlan:
        """Return the plan with what the folder notes: who is named comes first, the usual last.

        A noted participant that is not found here is left out, for the usual one of that name
        would be another service on its ledger; sagas that need it wait.

        Args:
            note: Of the folder.
            is_found: Whether `module:function` can be imported here.
        """
        usual = {**self.usual_participants, **note.participants}
        found = {
            name: function
            for name, function in usual.items()
            if name not in note.participants or is_found(function)
        }
        return self.model_copy(
            update={
                "participants": {**found, **self.participants},
                "services": {**self.usual_services, **note.services, **self.services},
            }
        )
