"""How the tests of this folder get at a real engine, its processes and its ledgers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import ray

from raysaga.actors.actor_names import seats_of
from raysaga.actors.settings import EngineSettings
from raysaga.api.blocking import BlockingSagas, connect_blocking
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga
from raysaga.storage.ledger_reader import LedgerReader

SERVICES = ("inventory", "payment", "shipping", "notification")
WAIT_S = 60.0
LOOK_EVERY_S = 0.02

TROUBLED = "troubled_services:serve"
STOCK = {"items": {"rare": 0}, "default": 100_000}


def swift(name: str, **changes: Any) -> SagaDefinition:
    """Return the order saga with patience for tests: short timeouts, few attempts."""
    data = order_saga.to_data()
    data["name"] = name
    few = {"attempts_max": 3, "delay_ms_first": 20, "delay_ms_max": 100}
    for step in data["steps"]:
        step["retry"] = few
        step["compensation_retry"] = few
        step["timeout_ms"] = 1_500
        step.update(changes.get(step["name"], {}))
    data.update({k: v for k, v in changes.items() if k in data})
    return SagaDefinition.from_data(data)


def until(condition: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    """Return what `condition` gives once it is true."""
    end = time.monotonic() + timeout_s
    never = Event()
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"never: {what}"
        never.wait(LOOK_EVERY_S)


@dataclass
class Engine:
    """A running engine, and how a test gets at its processes and its ledgers."""

    folder: Path
    sagas: BlockingSagas
    run: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def order(self, *, item: str = "common", token: str = "tok_fine") -> dict[str, Any]:
        """Return a fresh order as plain data."""
        order_id = f"{self.run}-{next(self._numbers)}"
        return {
            "order_id": order_id,
            "customer_id": "customer-1",
            "items": [{"item_id": item, "quantity": 2}, {"item_id": "other", "quantity": 1}],
            "payment": {"token": token, "amount_minor": 1_250, "currency": "USD"},
        }

    def trouble(self, saga_id: str, step: str, verb: str, when: str, word: str) -> Path:
        """Order trouble for one call; see `troubled_services`."""
        note = self.folder / "trouble" / f"{saga_id}~{step}~{verb}~{when}"
        note.write_text(word)
        return note

    def pids(self) -> dict[str, int]:
        """Return process ids by the last part of the actor's name, such as `shard/0`."""
        pids = self.sagas.run(self.sagas.sagas.gateway.engine.pids())
        return {name.split("/", 1)[1]: pid for name, pid in pids.items()}

    def wait_for_restart(self, name: str, old_pid: int) -> int:
        """Return the process id of the actor that has taken the place of `old_pid`."""
        return until(
            lambda: pid if (pid := self.pids().get(name)) not in (None, old_pid) else None,
            f"{name} is replaced",
        )

    def seats(self) -> dict[int, str]:
        """Return the processes of dedicated sagas: each one's id, and the saga in it or none."""
        plan = self.sagas.sagas.gateway.engine.plan
        prefix = seats_of(plan.engine, 0)
        names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
        found = {}
        for name in names:
            if name.startswith(prefix):
                # One that is just ending answers no more, or is not there.
                with suppress(ray.exceptions.RayActorError, ValueError):
                    actor = ray.get_actor(name, plan.namespace)
                    pong = ray.get(actor.ping.remote(), timeout=WAIT_S)
                    found[pong["pid"]] = pong["saga_id"]
        return found

    def effects(self, saga_id: str) -> list[tuple[str, str]]:
        """Return `(step, kind)` of each effect in the ledgers, by service and in order."""
        found = []
        for name in SERVICES:
            ledger = LedgerReader.open(self.folder / "services" / name)
            try:
                found += [
                    (line.key.step, line.kind.value)
                    for line in ledger.effects()
                    if line.key.saga_id == saga_id
                ]
            finally:
                ledger.close()
        return found


def start_engine(folder: Path, run: str, **options: Any) -> tuple[BlockingSagas, Engine]:
    """Open an engine with troubled services on `folder`."""
    settings = options.pop("settings", None) or EngineSettings(
        log_level="debug", suspect_wait_ms=300, reconcile_ms=300
    )
    connection = connect_blocking(
        folder,
        settings=settings,
        participants=options.pop("participants", dict.fromkeys(SERVICES, TROUBLED)),
        services={"inventory": {"stock": STOCK}, "notification": {"maildir": "mail"}},
        **options,
    )
    sagas = connection.__enter__()
    (folder / "trouble").mkdir(exist_ok=True)
    return connection, Engine(folder, sagas, run)


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
