"""A cluster that somebody else started: who joins it, who leaves, and on which node it all runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysaga.api.blocking import connect_blocking
from raysaga.statemachines.order import order_saga

pytestmark = pytest.mark.cluster

NODES = 2

VISITOR = """
import json, sys, ray, raysaga
from raysaga.orders import order_saga
folder, order = sys.argv[1], json.loads(sys.argv[2])
with raysaga.connect_blocking(folder) as sagas:
    handle = sagas.submit(order_saga, order, key=order["order_id"])
    told = {
        "status": handle.result(timeout_s=60).status,
        "pids": sagas.run(sagas.sagas.gateway.engine.pids()),
        "node": ray.get_runtime_context().get_node_id(),
    }
print(json.dumps(told))
"""


@pytest.fixture
def address() -> Iterator[str]:
    """Two nodes on this machine; on neither would Ray have a reason to put an actor."""
    cluster = Cluster()
    for _ in range(NODES):
        cluster.add_node(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20)
    cluster.wait_for_nodes()
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def order_of(order_id: str) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "customer_id": "c",
        "items": [{"item_id": "milk", "quantity": 1}],
        "payment": {"token": "tok_1", "amount_minor": 100, "currency": "USD"},
    }


def visit(address: str, folder: Path, order_id: str) -> dict[str, Any]:
    """Submit an order from a process that is told of the cluster by its environment only."""
    done = subprocess.run(
        [sys.executable, "-c", VISITOR, str(folder), json.dumps(order_of(order_id))],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_an_engine_outlives_who_started_it_on_the_node_that_has_its_folder(
    address: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    first = visit(address, folder, "o1")
    second = visit(address, folder, "o2")
    assert (first["status"], second["status"]) == ("completed", "completed")
    assert second["pids"] == first["pids"], "the engine of the first goes on"
    with connect_blocking(folder, address=address) as sagas:
        assert sagas.handle(f"{order_saga.name}:o1").result(60).status == "completed"
        alone = sagas.submit(order_saga, order_of("o3"), key="o3", dedicated=True)
        assert alone.result(60).status == "completed"
        assert sagas.run(sagas.sagas.gateway.engine.pids()) == first["pids"]
        pinned = NodeAffinitySchedulingStrategy(first["node"], soft=False)
        parent = ray.remote(lambda: os.getppid()).options(scheduling_strategy=pinned)
        raylet = ray.get(parent.remote())
        parents = {psutil.Process(pid).ppid() for pid in first["pids"].values()}
        assert parents == {raylet}
        sagas.stop_engine()
