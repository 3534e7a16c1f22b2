"""Saga id to shard: the same on every machine, for as long as the data folder lives."""

from __future__ import annotations

import zlib

from raysaga.statemachines.ids import SagaId, Scope


def shard_of(saga_id: SagaId, shard_count: int) -> int:
    """Return the index of the shard that houses `saga_id`, in `range(shard_count)`."""
    assert shard_count >= 1
    return zlib.crc32(saga_id.encode()) % shard_count


def shard_scope(journal_uuid: str, shard: int) -> Scope:
    """Return the scope of all sagas that a shard houses itself."""
    return Scope(f"{journal_uuid}/shard-{shard}")


def saga_scope(journal_uuid: str, saga_id: SagaId) -> Scope:
    """Return the scope of a saga that has an actor of its own."""
    return Scope(f"{journal_uuid}/{saga_id}")
