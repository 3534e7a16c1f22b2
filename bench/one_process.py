"""Runs the engine's host, its caller and the four services in one process, as nobody deploys them.

What is left is what the decisions, the ledgers and their commits cost by themselves: a bound
on what any way between them can reach, since Python runs one thread at a time. Each keeps its
own environment with the default flags, and messages are packed and unpacked as between actors.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from raysaga.actors.clock import SystemClock
from raysaga.actors.desk import Desk
from raysaga.actors.gateway import Gateway
from raysaga.actors.host import SagaHost
from raysaga.actors.lane import Landing
from raysaga.actors.participant_server import ParticipantServer, open_ledger
from raysaga.actors.placement import shard_scope
from raysaga.actors.reconciler import Reconciler
from raysaga.actors.services.serve import serve
from raysaga.actors.shard_stats import shard_stats
from raysaga.actors.shells.housing import configure_process_log
from raysaga.actors.shells.process import CommitThread, exit_fatally, prepare_process
from raysaga.api.client import Sagas
from raysaga.bench.bed import SERVICES, engine_settings
from raysaga.bench.judge import judge
from raysaga.bench.loops import closed_loop, told
from raysaga.bench.measure import WARM_UP_SHARE, one_saga
from raysaga.bench.workloads import happy
from raysaga.statemachines.calls import StepCall
from raysaga.storage.data_folder import DataFolder


class _Engine:
    """An engine with one shard in this event loop, as far as a gateway is concerned."""

    def __init__(self, folder: DataFolder) -> None:
        settings = engine_settings()
        log_path = folder.log_path / "one-process.jsonl"
        configure_process_log(log_path, settings, folder.uuid)
        self.plan = SimpleNamespace(shard_count=1, settings=settings)
        self._folder = folder
        self._landings: dict[str, Landing] = {}
        self._servers: list[ParticipantServer] = []
        self._journal = folder.open_journal(0)
        self._commit = CommitThread("commit", self._journal.environment)
        self._host = SagaHost(
            journal=self._journal,
            scope=shard_scope(folder.uuid, 0),
            owner="bench",
            connect=lambda name: self._landings[name].exchange,
            clock=SystemClock(),
            settings=settings,
            chance=random.Random(),
            run_blocking=self._commit.commit,
            fatal=exit_fatally,
        )
        self._desk = Desk(self._host, launcher=None, stats=self.stats)
        self._reconciler = Reconciler(
            self._host,
            clock=SystemClock(),
            run_blocking=self._commit,
            launcher=None,
            watch=self._desk.adopted,
        )

    def stats(self) -> dict[str, Any]:
        """Return what the shard counts."""
        return shard_stats(0, self._host, self._desk, self._reconciler)

    def wire(self, _shard: int) -> Callable[[bytes], Awaitable[bytes]]:
        """Return the way to the one shard."""
        return self._desk.landing.exchange

    async def start(self, services: dict[str, Any]) -> None:
        """Serve the participants, then take sagas."""
        for name in SERVICES:
            await self._serve(name, {**services, "folder": str(self._folder.path)})
        await self._host.start()
        await self._reconciler.start()

    async def _serve(self, name: str, services: dict[str, Any]) -> None:
        service = serve(name, services)
        clock = SystemClock()
        ledger = open_ledger(service, self._folder.service_path(name), clock=clock)
        service.prepare(ledger)
        server = ParticipantServer(
            participant=service, ledger=ledger, clock=clock, on_fatal=exit_fatally
        )
        await server.start()
        self._servers.append(server)

        def received(sender: str, messages: list[list[Any]]) -> None:
            calls = [StepCall._make(fields) for fields in messages]
            server.deliver(calls, lambda reply: self._landings[name].push(sender, reply))

        self._landings[name] = Landing(received, self.plan.settings)

    async def close(self) -> None:
        """Flush what is decided, and let go of every file."""
        await self._reconciler.stop()
        await self._host.stop()
        for server in self._servers:
            await server.stop()
            server.ledger.close()
        self._commit.close()
        self._journal.close()


async def run_one_process(path: Path, in_flight: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return the rate, latencies and processor time of happy orders.

    Raises:
        RunRefusedError: If a promise was broken.
    """
    prepare_process()
    workload = happy()
    engine = _Engine(DataFolder.open(path, shard_count=1, create=True))
    await engine.start(dict(workload.services))
    gateway = Gateway(engine)  # type: ignore[arg-type]
    bed: Any = SimpleNamespace(sagas=Sagas(gateway))
    one = one_saga(bed, workload, "p", dedicated=False, sheds=False)
    numbers = itertools.count()
    await closed_loop(one, numbers, in_flight=in_flight, seconds=seconds * WARM_UP_SHARE)
    used_s = time.process_time()
    loop = await closed_loop(one, numbers, in_flight=in_flight, seconds=seconds)
    used_s = time.process_time() - used_s
    await gateway.close()
    verdict = judge(path, seed=seed)
    del verdict["events_by_definition"]
    return (
        told(loop)
        | {
            "loop": "closed",
            "in_flight": in_flight,
            "participants": "in the shard's process, with durable ledgers",
            "cpu_ms_per_saga": round(used_s * 1e3 / len(loop.ended), 4),
        }
        | verdict
    )
