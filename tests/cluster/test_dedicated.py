"""Dedicated sagas in real processes: kept while they are warm, found again, and let go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_engine import Engine, is_alive, start_engine, swift, until

from raysaga.actors.settings import EngineSettings

pytestmark = pytest.mark.cluster

PATIENT = {"attempts_max": 100, "delay_ms_first": 50, "delay_ms_max": 500}
calm = swift("calm", schedule_shipping={"retry": PATIENT})


@pytest.fixture(scope="module")
def engine(_shared_folder: Path) -> Iterator[Engine]:
    """An engine with two seats, which are kept for a second."""
    settings = EngineSettings(
        dedicated_actors_max=2, dedicated_idle_ms=1_000, reconcile_ms=300, suspect_wait_ms=300
    )
    connection, found = start_engine(_shared_folder, "seats", settings=settings)
    yield found
    connection.__exit__(None, None, None)


def submit(engine: Engine):
    """Submit one order; return its handle and its saga's id."""
    order = engine.order()
    key = order["order_id"]
    return engine.sagas.submit(calm, order, key=key, dedicated=True), f"calm:{key}"


def test_many_go_through_few_processes_and_these_are_let_go(engine: Engine) -> None:
    handles = [submit(engine)[0] for _ in range(30)]
    seen: set[int] = set()
    for handle in handles:
        assert handle.result(timeout_s=60).status == "completed"
        seen |= engine.seats().keys()
    assert 1 <= len(seen) <= 2
    until(lambda: not any(map(is_alive, seen)), "nobody sits there, and they are let go")
    handle, _ = submit(engine)
    assert handle.result(timeout_s=60).status == "completed"


def test_what_sits_is_found_by_a_shard_that_was_killed(engine: Engine) -> None:
    order = engine.order()
    saga_id = f"calm:{order['order_id']}"
    note = engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
    handle = engine.sagas.submit(calm, order, key=order["order_id"], dedicated=True)
    until(lambda: ("process_payment", "action") in engine.effects(saga_id), "it is half way")
    seats, shard = engine.seats(), engine.pids()["shard/0"]
    (pid,) = [pid for pid, sits in seats.items() if sits == saga_id]
    os.kill(shard, signal.SIGKILL)
    engine.wait_for_restart("shard/0", shard)
    # Its room is bounded still: what waits goes through the other one.
    assert submit(engine)[0].result(timeout_s=60).status == "completed"
    assert engine.seats().get(pid) == saga_id
    note.unlink()
    assert handle.result(timeout_s=60).status == "completed"
    until(lambda: not is_alive(pid), "it is let go as well")


def test_a_seat_that_stands_still_is_ended_and_another_takes_its_saga(engine: Engine) -> None:
    assert submit(engine)[0].result(timeout_s=60).status == "completed"
    stopped = list(engine.seats())
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    handle, saga_id = submit(engine)
    assert handle.result(timeout_s=90).status == "completed"
    done = engine.effects(saga_id)
    assert len(done) == len(set(done)) == 4
    assert any(not is_alive(pid) for pid in stopped), "the one that the saga came to"
    for pid in filter(is_alive, stopped):
        os.kill(pid, signal.SIGCONT)
    until(lambda: not any(map(is_alive, stopped)), "the others are let go when they wake")


def test_an_engine_that_stops_leaves_no_process_behind(tmp_path: Path) -> None:
    connection, engine = start_engine(tmp_path / "data", "stop")
    handle, _ = submit(engine)
    assert handle.result(timeout_s=60).status == "completed"
    (pid,) = engine.seats()
    engine.sagas.run(engine.sagas.sagas.gateway.engine.stop())
    until(lambda: not is_alive(pid), "the engine has stopped, and so has it")
    connection.__exit__(None, None, None)
