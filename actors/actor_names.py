"""Names an engine's actors: the same in each incarnation, for whoever looks for them."""

from __future__ import annotations


def engine_name(journal_uuid: str) -> str:
    """Return the name of the engine of a data folder, with which those of its actors begin."""
    return f"raysaga-{journal_uuid[:8]}"


def participant_actor(engine: str, participant: str) -> str:
    """Return the name of the actor that a participant is."""
    return f"{engine}/participant/{participant}"


def shard_actor(engine: str, shard: int) -> str:
    """Return the name of the actor that houses a shard."""
    return f"{engine}/shard/{shard}"


def seats_of(engine: str, shard: int) -> str:
    """Return what the names of the actors begin with in which a shard's dedicated sagas run."""
    return f"{engine}/seat/{shard}/"


def seat_actor(engine: str, shard: int, seat: str) -> str:
    """Return the name of one of these actors."""
    return seats_of(engine, shard) + seat


def supervisor_actor(engine: str) -> str:
    """Return the name of the actor that watches the others."""
    return f"{engine}/supervisor"
