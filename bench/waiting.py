"""Lets many sagas wait for one slow participant, and asks what that costs them and others."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from raysaga.bench.bed import COUNTING_PARTICIPANTS, Bed, calm_services, open_bed
from raysaga.bench.judge import RunRefusedError, judge
from raysaga.bench.latencies import quantiles_ms
from raysaga.bench.loops import closed_loop
from raysaga.bench.measure import one_saga
from raysaga.bench.orders import ordinary
from raysaga.bench.toy_services import GATED, gate_of
from raysaga.bench.workloads import Workload, counting_saga, happy
from raysaga.statemachines.order import order_saga

BYSTANDERS = 16
"""Callers whose orders have nothing to do with the slow participant."""

STEPS = 4
"""Of each waiting saga: as many as an order's."""

SUBMITTED_AT_ONCE = 2_000
"""Submissions under way while the waiting sagas are made."""

WAITED_S = 10.0
"""How long they have waited when memory is read: a host keeps less of a saga that waits."""

TIMEOUT_MS = 20 * 60_000
"""Longer than anything here waits, so that no attempt ends before the gate is opened."""


def waiting_settings(count: int) -> dict[str, Any]:
    """Return settings of an engine that admits so many waiting sagas, and some more."""
    room = count + 10_000
    return {"sagas_in_flight_max": room, "participant_queued_max": room, "inputs_queued_max": room}


async def run_waiting(folder: Path, count: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return what `count` waiting sagas cost in memory, and do to the latency of bystanders.

    Raises:
        RunRefusedError: If one is lost, or the books do not balance.
    """
    waiting = Workload(
        name="waiting",
        make=_order_and_its_name,
        definition=counting_saga("waiting", STEPS, GATED, TIMEOUT_MS),
    )
    async with open_bed(
        folder,
        services=calm_services(),
        participants=COUNTING_PARTICIPANTS,
        settings=waiting_settings(count),
    ) as bed:
        numbers = itertools.count()
        alone = await _bystanders(bed, numbers, seconds, "alone")
        await bed.rest()
        before, own_before = bed.meter.memory_mib(), bed.meter.own_bytes("shard/0")
        handles = await _submitted(bed, waiting, count)
        await asyncio.sleep(WAITED_S)
        after, own_after = bed.meter.memory_mib(), bed.meter.own_bytes("shard/0")
        beside = await _bystanders(bed, numbers, seconds, "beside")
        gate_of(folder).touch()
        opened_at = asyncio.get_running_loop().time()
        ends = [(await handle.result()).status for handle in handles]
        drained_s = asyncio.get_running_loop().time() - opened_at
        if set(ends) != {"completed"}:
            raise RunRefusedError("a saga that waited did not complete")
        await bed.rest()
    shard = after["shard/0"] - before["shard/0"]
    return {
        "waiting": count,
        "host_bytes_per_waiting_saga": round((own_after - own_before) / count),
        "host_bytes_per_waiting_saga_with_mapped_files": round(shard * (1 << 20) / count),
        "memory_mib_before": before,
        "memory_mib_after": after,
        "bystanders": BYSTANDERS,
        "bystanders_alone": alone,
        "bystanders_beside": beside,
        "drained_sagas_per_s": round(count / drained_s, 1),
    } | judge(folder, seed=seed, definitions=(order_saga, waiting.definition))


def _order_and_its_name(number: int, run: str) -> tuple[str, dict[str, Any]]:
    """Return the input of an order, so that a waiting saga is as large as one."""
    key, order = ordinary(number, run)
    return key, {**order, "order": key}


async def _submitted(bed: Bed, workload: Workload, count: int) -> list[Any]:
    numbers = iter(range(count))
    handles: list[Any] = []

    async def submit() -> None:
        for number in numbers:
            key, request = workload.make(number, "w")
            handles.append(await bed.sagas.submit(workload.definition, request, key=key))

    await asyncio.gather(*(submit() for _ in range(min(SUBMITTED_AT_ONCE, count))))
    return handles


async def _bystanders(
    bed: Bed, numbers: itertools.count[int], seconds: float, run: str
) -> dict[str, Any]:
    one = one_saga(bed, happy(), run, dedicated=False, sheds=False)
    await closed_loop(one, numbers, in_flight=BYSTANDERS, seconds=seconds * 0.2)
    loop = await closed_loop(one, numbers, in_flight=BYSTANDERS, seconds=seconds)
    rate = round(len(loop.ended) / loop.seconds, 1)
    return {"sagas_per_s": rate, **quantiles_ms(loop.latencies_s())}
