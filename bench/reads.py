"""Compares the two ways to read a saga under load: from its owner, and from the disk beside it.

`strong` asks the shard that owns the saga: it knows all that was decided. `eventual` reads
the journal in the reader's own process (`Archive`): what is on disk already. How far the
second lags behind the first is measured by asking both, and then the second until it has
caught up with what the first had said.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raysaga.actors.archive import Archive
from raysaga.actors.errors import SagaNotFoundError
from raysaga.bench.bed import SERVICES, Bed, calm_services, open_bed
from raysaga.bench.judge import judge
from raysaga.bench.latencies import quantiles_ms
from raysaga.bench.loops import closed_loop
from raysaga.bench.workloads import happy
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import TERMINAL

PAUSE_S = 0.005
"""Between two samples, so that reading is no load of its own."""

CATCH_UP_S = 0.001
"""Between two looks at what lags behind."""

SERVICE_MS = 40.0
"""What each participant takes, so that sagas are met under way."""


@dataclass(slots=True)
class _Samples:
    """What was read, and how long it took."""

    strong_s: list[float] = field(default_factory=list)
    eventual_s: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    unknown: int = 0

    async def take(self, bed: Bed, archive: Archive, saga_id: SagaId) -> None:
        """Ask both ways, and the slower one until it has caught up."""
        start = time.perf_counter()
        strong = _settled(await bed.sagas.status(saga_id))
        answered = time.perf_counter()
        eventual = _read(archive, saga_id)
        read = time.perf_counter()
        self.strong_s.append(answered - start)
        self.eventual_s.append(read - answered)
        self.unknown += eventual < 0
        if eventual >= strong:
            self.lag_s.append(0.0)
            return
        while eventual < strong:
            await asyncio.sleep(CATCH_UP_S)
            eventual = _read(archive, saga_id)
        self.lag_s.append(time.perf_counter() - answered)

    def told(self) -> dict[str, Any]:
        """Return the samples as figures."""
        samples = len(self.strong_s)
        return {
            "samples": samples,
            "strong": quantiles_ms(self.strong_s),
            "eventual": quantiles_ms(self.eventual_s),
            "eventual_behind_share": round(sum(lag > 0 for lag in self.lag_s) / samples, 4),
            "eventual_unknown_share": round(self.unknown / samples, 4),
            "eventual_lag": quantiles_ms(self.lag_s),
        }


async def run_reads(folder: Path, in_flight: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return what both ways cost, and how far the eventual one lags behind.

    Raises:
        RunRefusedError: If the books do not balance.
    """
    slow = {"behaviour": {"latency": {"distribution": "constant", "constant_ms": SERVICE_MS}}}
    under_way: dict[SagaId, None] = {}
    workload = happy()
    samples = _Samples()
    chance = random.Random(seed)
    async with open_bed(folder, services=calm_services(**dict.fromkeys(SERVICES, slow))) as bed:

        async def one(number: int) -> str:
            key, request = workload.make(number, "r")
            handle = await bed.sagas.submit(workload.definition, request, key=key)
            under_way[handle.saga_id] = None
            try:
                return (await handle.result()).status
            finally:
                del under_way[handle.saga_id]

        loop = asyncio.ensure_future(
            closed_loop(one, itertools.count(), in_flight=in_flight, seconds=seconds)
        )
        with Archive.open(folder) as archive:
            while not loop.done():
                await asyncio.sleep(PAUSE_S)
                if under_way:
                    await samples.take(bed, archive, chance.choice(list(under_way)))
        done = await loop
        await bed.rest()
    rate = round(len(done.ended) / done.seconds, 1)
    return (
        {"in_flight": in_flight, "service_ms": SERVICE_MS, "sagas_per_s": rate}
        | samples.told()
        | judge(folder, seed=seed)
    )


def _read(archive: Archive, saga_id: SagaId) -> int:
    try:
        return _settled(archive.status(saga_id))
    except SagaNotFoundError:
        return -1


def _settled(status: dict[str, Any]) -> int:
    """Return how far a saga is: steps that have their answer, and one more when it is over."""
    steps = sum(1 for step in status["steps"] if step["status"] == "succeeded")
    return steps + (status["phase"] in TERMINAL)
