"""Real processes killed, stopped and fenced; afterwards only the ledgers are believed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import ray
from cluster_engine import SERVICES, Engine, is_alive, start_engine, swift, until

from raysaga.actors.actor_names import participant_actor
from raysaga.actors.settings import EngineSettings
from raysaga.actors.shells.wires import ActorWire
from raysaga.actors.wire import pack_message, unpack_messages
from raysaga.api.errors import ServiceUnavailableError
from raysaga.statemachines.calls import ACTION, COMPENSATION, Outcome, StepCall, StepReply
from raysaga.statemachines.order import order_saga
from raysaga.storage.errors import StorageFullError

pytestmark = pytest.mark.cluster

STEPS = ("reserve_inventory", "process_payment", "schedule_shipping", "send_notification")
tough = swift(
    "tough",
    **{
        step: {
            "retry": {"attempts_max": 20, "delay_ms_first": 50, "delay_ms_max": 1_000},
            "compensation_retry": {"attempts_max": 20, "delay_ms_first": 50, "delay_ms_max": 1_000},
        }
        for step in STEPS
    },
)
brief = swift("brief")
long = {"attempts_max": 500, "delay_ms_first": 50, "delay_ms_max": 500}
patient_undo = swift("patient-undo", **{step: {"compensation_retry": long} for step in STEPS})


def submit_many(engine: Engine, count: int, definition=tough, dedicated: bool = False):
    """Return handles of `count` orders, of which every fifth will be declined."""
    handles = []
    for number in range(count):
        token = "tok_declined" if number % 5 == 0 else "tok_fine"
        order = engine.order(token=token)
        handles.append(
            engine.sagas.submit(definition, order, key=order["order_id"], dedicated=dedicated)
        )
    return handles


def assert_done_or_undone(engine: Engine, handles) -> None:
    """Every saga has ended, and its ledgers show all of it once, or none of it."""
    assert handles
    for handle in handles:
        outcome = handle.result(timeout_s=90)
        kinds = Counter(engine.effects(handle.saga_id))
        if outcome.status == "completed":
            assert kinds == Counter((step, "action") for step in STEPS)
        else:
            assert outcome.status == "compensated", outcome
            for step in STEPS:
                assert kinds[step, "action"] <= 1
                assert kinds[step, "action"] == kinds[step, "compensation"]


def test_orders_survive_a_shard_that_is_killed(engine: Engine) -> None:
    handles = submit_many(engine, 60)
    pid = engine.pids()["shard/0"]
    os.kill(pid, signal.SIGKILL)
    handles += submit_many(engine, 20)
    assert_done_or_undone(engine, handles)
    engine.wait_for_restart("shard/0", pid)


def test_orders_survive_ray_kill_without_restart(engine: Engine) -> None:
    handles = submit_many(engine, 30)
    plan = engine.sagas.sagas.gateway.engine.plan
    pid = engine.pids()["shard/0"]
    ray.kill(ray.get_actor(f"{plan.engine}/shard/0", namespace=plan.namespace), no_restart=True)
    assert_done_or_undone(engine, handles)
    engine.wait_for_restart("shard/0", pid)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_service_killed_around_its_commit_does_its_step_once(
    engine: Engine, step: str, when: str
) -> None:
    order = engine.order()
    saga_id = f"tough:{order['order_id']}"
    name = f"participant/{SERVICES[STEPS.index(step)]}"
    pid = engine.pids()[name]
    note = engine.trouble(saga_id, step, "action", when, "exit")
    handle = engine.sagas.submit(tough, order, key=order["order_id"])
    assert handle.result(timeout_s=90).status == "completed"
    assert not note.exists()
    assert engine.effects(saga_id).count((step, "action")) == 1
    engine.wait_for_restart(name, pid)


def test_a_service_killed_around_its_undo_undoes_once(engine: Engine) -> None:
    order = engine.order(token="tok_declined")
    saga_id = f"tough:{order['order_id']}"
    pid = engine.pids()["participant/inventory"]
    engine.trouble(saga_id, "reserve_inventory", "undo", "after", "exit")
    handle = engine.sagas.submit(tough, order, key=order["order_id"])
    assert_done_or_undone(engine, [handle])
    engine.wait_for_restart("participant/inventory", pid)


@pytest.mark.parametrize("step", ["process_payment", "send_notification"])
def test_a_service_kept_down_for_longer_than_a_policy_is_waited_for_by_the_undos(
    engine: Engine, step: str
) -> None:
    """Its process is killed, and each that takes its place fails to start."""
    service = SERVICES[STEPS.index(step)]
    name = f"participant/{service}"
    pid = engine.pids()[name]
    order = engine.order()
    down = engine.folder / "trouble" / f"{service}~down"
    down.write_text("")
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), "it is dead")
        handle = engine.sagas.submit(patient_undo, order, key=order["order_id"])

        def undos() -> int:
            (found,) = [
                row for row in engine.sagas.status(handle.saga_id)["steps"] if row["name"] == step
            ]
            return int(found["undo_attempts"])

        until(lambda: undos() > patient_undo.steps[0].action_retry.attempts_max, "it waits")
        assert engine.sagas.status(handle.saga_id)["phase"] == "compensating"
        assert ("reserve_inventory", "compensation") not in engine.effects(handle.saga_id)
    finally:
        down.unlink()
    outcome = handle.result(timeout_s=90)
    assert (outcome.status, outcome.step) == ("compensated", step)
    with pytest.raises(ServiceUnavailableError):
        outcome.raise_if_not_completed()
    assert_done_or_undone(engine, [handle])
    assert (step, "action") not in engine.effects(handle.saga_id)
    engine.wait_for_restart(name, pid)


def kill_with_its_supervisor(engine: Engine, name: str) -> None:
    """End the actor `name` and the supervisor that would replace it."""
    pid = engine.pids()[name]
    raylet = psutil.Process(pid).parent()
    assert raylet is not None
    (supervisor,) = [p for p in raylet.children() if "SupervisorShell" in " ".join(p.cmdline())]
    for process in (supervisor, psutil.Process(pid)):
        process.kill()
    for process in (supervisor, psutil.Process(pid) if psutil.pid_exists(pid) else supervisor):
        until(lambda process=process: not is_alive(process.pid), "it is dead")


def test_an_engine_comes_back_whose_service_dies_with_the_supervisor_and_again(
    engine: Engine,
) -> None:
    """Nobody asks a supervisor that Ray brought back whether it is ready: it may not give up."""
    dies_again = engine.folder / "trouble" / "payment~exit"
    dies_again.write_text("")
    pids = engine.pids()
    kill_with_its_supervisor(engine, "participant/payment")
    handles = submit_many(engine, 20)
    until(lambda: not dies_again.exists(), "the service has died twice")
    assert_done_or_undone(engine, handles)
    assert engine.wait_for_restart("participant/payment", pids["participant/payment"])
    until(lambda: engine.pids().keys() == pids.keys(), "all are watched again")
    assert engine.pids()["shard/0"] == pids["shard/0"], "who lives is left alone"


def test_an_engine_comes_back_whose_service_is_down_when_its_supervisor_returns(
    engine: Engine,
) -> None:
    down = engine.folder / "trouble" / "payment~down"
    down.write_text("")
    pids = engine.pids()
    kill_with_its_supervisor(engine, "participant/payment")
    log = engine.folder / "log" / "supervisor.jsonl"
    seen = log.stat().st_size
    until(lambda: b'"actor_unable"' in log.read_bytes()[seen:], "the service cannot start")
    handles = submit_many(engine, 5)
    down.unlink()
    assert_done_or_undone(engine, handles)
    until(lambda: engine.pids().keys() == pids.keys(), "all are watched again")


def test_a_dedicated_saga_actor_that_is_killed_comes_back(engine: Engine) -> None:
    order = engine.order()
    saga_id = f"tough:{order['order_id']}"
    note = engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
    handle = engine.sagas.submit(tough, order, key=order["order_id"], dedicated=True)
    until(lambda: ("process_payment", "action") in engine.effects(saga_id), "it is half way")
    (pid,) = [pid for pid, sits in engine.seats().items() if sits == saga_id]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), "it is dead")
    note.unlink()
    assert_done_or_undone(engine, [handle])


def test_a_shard_goes_on_while_ray_can_make_no_actor_for_a_dedicated_saga(engine: Engine) -> None:
    """Stop Ray's control service, as a lost head does, when a dedicated saga needs an actor."""
    # Whoever it calls is known to the shard then.
    assert_done_or_undone(engine, submit_many(engine, 2))
    for seat in engine.seats():
        os.kill(seat, signal.SIGKILL)
    until(lambda: not engine.seats(), "no process is kept for the saga")
    pid, alone, beside = engine.pids()["shard/0"], engine.order(), engine.order()
    children = psutil.Process().children(recursive=True)
    control = next(child for child in children if child.name() == "gcs_server")
    control.suspend()
    try:
        waits = engine.sagas.submit(tough, alone, key=alone["order_id"], dedicated=True)
        passes = engine.sagas.sagas.submit(tough, beside, key=beside["order_id"])
        handle = engine.sagas.run(asyncio.wait_for(passes, 10))
        engine.sagas.run(asyncio.wait_for(handle.result(), 10))
    finally:
        control.resume()
    assert_done_or_undone(engine, [waits])
    assert engine.pids()["shard/0"] == pid


def test_a_stopped_shard_is_replaced_and_its_zombie_does_nothing(engine: Engine) -> None:
    handles = submit_many(engine, 20)
    pid = engine.pids()["shard/0"]
    os.kill(pid, signal.SIGSTOP)
    assert_done_or_undone(engine, handles)
    assert not is_alive(pid)
    engine.wait_for_restart("shard/0", pid)


def test_a_shard_fenced_by_a_newer_owner_stops_and_comes_back_newer(engine: Engine) -> None:
    from raysaga.storage.data_folder import DataFolder

    folder = DataFolder.open(engine.folder, shard_count=None, create=False)
    pid = engine.pids()["shard/0"]
    handles = submit_many(engine, 10)
    journal = folder.open_journal(0)
    try:
        scope = f"{folder.uuid}/shard-0"
        before = journal.epoch(scope)
        journal.grant_epoch(scope, "an intruder", 0)
        handles += submit_many(engine, 10)
        assert_done_or_undone(engine, handles)
        engine.wait_for_restart("shard/0", pid)
        assert not is_alive(pid)
        assert journal.epoch(scope) > before + 1
    finally:
        journal.close()


def test_an_action_that_runs_late_is_undone(engine: Engine) -> None:
    """SIGSTOP a service past the patience of a saga; its action runs after SIGCONT."""
    order = engine.order()
    pid = engine.pids()["participant/shipping"]
    os.kill(pid, signal.SIGSTOP)
    handle = engine.sagas.submit(brief, order, key=order["order_id"])

    def turned_back() -> bool:
        return engine.sagas.status(handle.saga_id)["phase"] != "running"

    try:
        until(turned_back, "it has turned back")
    finally:
        os.kill(pid, signal.SIGCONT)
    outcome = handle.result(timeout_s=90)
    if outcome.status == "parked":
        engine.sagas.retry(handle.saga_id, by="tester")
        outcome = until(
            lambda: o if (o := handle.result(60)).status != "parked" else None, "it is undone"
        )
    assert_done_or_undone(engine, [handle])


def exchange(engine: Engine, participant: str, calls: list[StepCall]) -> list[StepReply]:
    """Send calls to a participant as a host would, and return the replies to all of them."""
    plan = engine.sagas.sagas.gateway.engine.plan
    wire = ActorWire(participant_actor(plan.engine, participant), plan.namespace)
    replies: dict[int, StepReply] = {}

    async def ask() -> None:
        batch = b"".join(map(pack_message, calls))
        while len(replies) < len({call.call_id for call in calls}):
            _outbox, *answers = unpack_messages(await wire(pack_message("a test") + batch))
            for fields in answers:
                reply = StepReply._make(fields)
                replies[reply.call_id] = reply
            batch = b""

    engine.sagas.run(ask())
    return [replies[call.call_id] for call in calls]


def call(engine: Engine, saga_id: str, verb: int, *, call_id: int, epoch: int = 7) -> StepCall:
    operation = "reserve" if verb == ACTION else "release"
    request = {"order_id": "o", "items": [{"item_id": "common", "quantity": 1}]}
    return StepCall(
        call_id,
        verb,
        "a-test",
        saga_id,
        "reserve_inventory",
        operation,
        request,
        "a-test/shard-0",
        epoch,
        1,
        time.time_ns() // 1_000_000 + 60_000 if verb == ACTION else None,
        5_000,
    )


def test_a_duplicate_call_has_one_effect_and_the_same_answer(engine: Engine) -> None:
    twice = [call(engine, "x:dup", ACTION, call_id=n) for n in (1, 2)]
    first, second = exchange(engine, "inventory", twice)
    third = exchange(engine, "inventory", [call(engine, "x:dup", ACTION, call_id=3)])[0]
    assert {r.outcome for r in (first, second, third)} == {Outcome.SUCCEEDED}
    assert first.result == second.result == third.result
    assert engine.effects("x:dup") == [("reserve_inventory", "action")]


def test_a_compensation_before_its_action_leaves_a_tombstone(engine: Engine) -> None:
    undo = exchange(engine, "inventory", [call(engine, "x:tomb", COMPENSATION, call_id=1)])[0]
    late = exchange(engine, "inventory", [call(engine, "x:tomb", ACTION, call_id=2)])[0]
    assert undo.outcome == Outcome.SUCCEEDED
    assert (late.outcome, late.code, late.stored) == (
        Outcome.REFUSED,
        "CANCELLED_BEFORE_START",
        True,
    )
    assert ("reserve_inventory", "action") not in engine.effects("x:tomb")


def test_a_call_of_an_older_epoch_is_refused(engine: Engine) -> None:
    newer = call(engine, "x:new", ACTION, call_id=1, epoch=9)
    older = call(engine, "x:old", ACTION, call_id=2, epoch=8)
    exchange(engine, "inventory", [newer])
    reply = exchange(engine, "inventory", [older])[0]
    assert (reply.code, reply.stored) == ("FENCED", False)
    assert engine.effects("x:old") == []


def test_a_full_journal_refuses_new_orders_and_finishes_the_accepted(tmp_path: Path) -> None:
    settings = EngineSettings(
        map_bytes_first=1 << 20, map_bytes_max=2 << 20, reserve_ratio=0.3, reconcile_ms=300
    )
    connection, engine = start_engine(tmp_path / "data", "f", settings=settings)
    try:
        accepted, refused = [], 0
        for _ in range(6_000):
            order = engine.order()
            try:
                accepted.append(engine.sagas.submit(order_saga, order, key=order["order_id"]))
            except StorageFullError:
                refused += 1
                break
        assert refused
        assert_done_or_undone(engine, accepted[-200:])
    finally:
        engine.sagas.stop_engine()
        connection.__exit__(None, None, None)


def test_a_flipped_bit_parks_its_saga_and_no_other(tmp_path: Path) -> None:
    connection, engine = start_engine(tmp_path / "data", "b")
    orders = [engine.order() for _ in range(3)]
    ids = [f"tough:{order['order_id']}" for order in orders]
    notes = [
        engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
        for saga_id in ids
    ]
    for order in orders:
        engine.sagas.submit(tough, order, key=order["order_id"])
    for saga_id in ids:
        until(
            lambda saga_id=saga_id: ("process_payment", "action") in engine.effects(saga_id),
            "it is half way",
        )
    engine.sagas.stop_engine()
    connection.__exit__(None, None, None)
    flip_bit(tmp_path / "data", f"{orders[1]['order_id']}".encode())
    for note in notes:
        note.unlink()
    connection, engine = start_engine(tmp_path / "data", "b2")
    try:
        outcomes = [engine.sagas.handle(saga_id).result(60) for saga_id in (ids[0], ids[2])]
        assert [outcome.status for outcome in outcomes] == ["completed", "completed"]
        parked = until(lambda: engine.sagas.list(reason="JOURNAL_CORRUPT"), "it is parked")
        assert [row["saga_id"] for row in parked] == [ids[1]]
    finally:
        engine.sagas.stop_engine()
        connection.__exit__(None, None, None)


def flip_bit(folder: Path, text: bytes) -> None:
    """Flip a bit in the input that a saga's first record holds, in the closed journal."""
    path = next((folder / "shards" / "000").rglob("data.mdb"))
    data = bytearray(path.read_bytes())
    needle = b"order_id" + bytes([0xA0 | len(text)]) + text
    at = data.find(needle)
    assert at >= 0, "the order is in the journal"
    while at >= 0:
        data[at + len(needle) - 1] ^= 0x01
        at = data.find(needle)
    path.write_bytes(bytes(data))


def test_a_poison_order_is_parked_and_the_shard_lives(engine: Engine) -> None:
    """Kill the shard each time it drives one order, as an order would that crashes it."""
    order = engine.order()
    saga_id = f"tough:{order['order_id']}"
    note = engine.trouble(saga_id, "process_payment", "action", "before", "always hang")
    handle = engine.sagas.submit(tough, order, key=order["order_id"])

    def waits_for_the_payment() -> bool:
        steps = engine.sagas.status(saga_id)["steps"]
        return bool(steps[1]["attempts"] >= 2)

    # By a second attempt the reservation has long been written; it is no progress any more.
    until(waits_for_the_payment, "the payment is tried again")
    recoveries_max = 5
    for _ in range(recoveries_max + 3):
        pid = engine.pids()["shard/0"]
        status = engine.sagas.status(saga_id)
        if status["phase"].startswith("parked"):
            break
        known = status["recoveries"]
        os.kill(pid, signal.SIGKILL)
        engine.wait_for_restart("shard/0", pid)
        until(
            lambda known=known: (
                (s := engine.sagas.status(saga_id))["phase"].startswith("parked")
                or s["recoveries"] > known
            ),
            "it was taken up again",
        )
    outcome = handle.result(timeout_s=60)
    assert (outcome.status, outcome.code) == ("parked", "POISON")
    bystander = engine.order()
    done = engine.sagas.submit(tough, bystander, key=bystander["order_id"]).result(60)
    assert done.status == "completed"
    note.unlink()
    engine.sagas.retry(saga_id, by="tester")
    ended = until(lambda: o if (o := handle.result(60)).status != "parked" else None, "it goes on")
    assert ended.status == "completed"
