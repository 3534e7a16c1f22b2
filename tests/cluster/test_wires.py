"""The same orders over Ray calls alone, as between actors on two nodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from cluster_engine import Engine, start_engine

from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.order import order_saga

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose messages all go through Ray."""
    folder = tmp_path_factory.mktemp("wires") / "data"
    connection, found = start_engine(folder, "wires", settings=EngineSettings(wire="ray"))
    yield found
    connection.__exit__(None, None, None)


def test_orders_are_done_and_undone_over_ray_calls_alone(engine: Engine) -> None:
    fine, refused = engine.order(), engine.order(token="tok_declined_1")
    handles = [
        engine.sagas.submit(order_saga, order, key=order["order_id"]) for order in (fine, refused)
    ]
    assert [handle.result(timeout_s=60).status for handle in handles] == [
        "completed",
        "compensated",
    ]
    assert len(engine.effects(handles[0].saga_id)) == 4


@pytest.mark.parametrize("victim", ["shard/0", "participant/payment"])
def test_orders_outlive_a_process_that_is_killed_over_ray_calls_alone(
    engine: Engine, victim: str
) -> None:
    pid = engine.pids()[victim]
    orders = [engine.order() for _ in range(20)]
    handles = [engine.sagas.submit(order_saga, order, key=order["order_id"]) for order in orders]
    os.kill(pid, signal.SIGKILL)
    engine.wait_for_restart(victim, pid)
    for handle in handles:
        assert handle.result(timeout_s=60).status == "completed"
        assert len(engine.effects(handle.saga_id)) == 4
