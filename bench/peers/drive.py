"""Drives one peer in a closed loop; a program of its own, in the peer's environment.

Told by one JSON object as its argument, it tells by JSON lines: `ready`, `measuring`,
`measured` with the figures, and `checked` with what does not add up. Processor time and
memory are read by who started it, and answers the second and third with an empty line.

Imports nothing of ours but what needs the standard library alone.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any, Protocol

from raysaga.bench.loops import closed_loop, told
from raysaga.bench.peers.participants import problems

WARM_UP_SHARE = 0.3
"""Of the measured time, driven before it."""


class Peer(Protocol):
    """What an adapter gives: one running peer."""

    async def order(self, number: int) -> str:
        """Run the order saga number N to its end; return `completed` or `compensated`."""

    async def counts(self) -> dict[str, int]:
        """Return how often each step and undo took effect at the participants."""

    async def close(self) -> None:
        """End the peer and its processes."""


async def drive(plan: dict[str, Any]) -> None:
    """Drive the peer that `plan` names."""
    adapter = importlib.import_module(f"raysaga.bench.peers.{plan['adapter']}.adapter")
    peer: Peer = await adapter.open_peer(Path(plan["folder"]), plan)
    # What `spare_collections` does for our own callers; it cannot be imported here.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    _tell("ready")
    try:
        numbers = itertools.count()
        level, seconds = plan["in_flight"], plan["seconds"]
        warm_up = await closed_loop(
            peer.order, numbers, in_flight=level, seconds=seconds * WARM_UP_SHARE
        )
        await _tell_and_wait("measuring")
        loop = await closed_loop(peer.order, numbers, in_flight=level, seconds=seconds)
        await _tell_and_wait("measured", **told(loop))
        ends = warm_up.by_end + loop.by_end
        found = problems(await peer.counts(), ends["completed"], ends["compensated"])
        _tell("checked", problems=found)
    finally:
        await peer.close()


async def _tell_and_wait(event: str, **facts: Any) -> None:
    """Tell, and go on once what this process has used until now was read: a line comes in then."""
    _tell(event, **facts)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def _tell(event: str, **facts: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(drive(json.loads(sys.argv[1])))
