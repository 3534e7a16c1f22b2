"""Asks the shards of an engine on this machine how they are, over their sockets and without Ray.

Guarantees: nothing is started, nor changed. What is told is the shards' own, of this moment.
Refuses: an engine that does not answer within `ANSWER_S_MAX`, whose shards have no sockets
(`wire="ray"`), or that runs elsewhere (`EngineUnavailableError`).
Costs: a round trip to each shard, some hundred microseconds; to join its Ray takes seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from typing import Any

from raysaga.actors.actor_names import engine_name, shard_actor
from raysaga.actors.errors import EngineUnavailableError
from raysaga.actors.local_wire import LocalWire, socket_path
from raysaga.actors.wire import pack_message, unpack_messages
from raysaga.storage.data_folder import DataFolder

ANSWER_S_MAX = 2.0
"""As long as the HTTP server waits before an engine does not count as ready."""


class ShardLines:
    """One asker's connections to the shards of the engine of a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        """Connect to nobody yet."""
        self._engine = engine_name(folder.uuid)
        self._shards = range(folder.shard_count)
        self._sender = f"{os.getpid()}:{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._wires: dict[int, LocalWire] = {}

    async def stats(self) -> list[dict[str, Any]]:
        """Return what each shard says of itself; see `Sagas.stats`.

        Raises:
            EngineUnavailableError: If one does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return list(await asyncio.gather(*map(self._stats_of, self._shards)))
        except (OSError, TimeoutError) as error:
            self.close()
            raise EngineUnavailableError(type(error).__name__) from error

    async def _stats_of(self, shard: int) -> dict[str, Any]:
        wire = self._wires.get(shard)
        if wire is None:
            path = socket_path(shard_actor(self._engine, shard))
            wire = self._wires[shard] = await LocalWire.connect(str(path))
        number = next(self._numbers)
        asked = pack_message([self._sender, number]) + pack_message([number, "stats", {}])
        while True:
            # First the name of an outbox; before its answer may be one that was given up.
            for which, kind, told in unpack_messages(await wire.exchange(asked))[1:]:
                if which == number:
                    if kind != "ok":
                        raise ConnectionError(str(told))
                    return dict(told)
            asked = pack_message([self._sender, next(self._numbers)])

    def close(self) -> None:
        """Hang up; a later question connects again."""
        for wire in self._wires.values():
            wire.hang_up()
        self._wires.clear()
