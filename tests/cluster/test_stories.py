"""The order saga on real Ray actors, housed both ways; the ledgers tell what happened."""

from __future__ import annotations

import pickle

import pytest
import ray
from cluster_engine import SERVICES, Engine, swift, until

import raysaga

pytestmark = pytest.mark.cluster

STEPS = ("reserve_inventory", "process_payment", "schedule_shipping", "send_notification")
patient = swift("patient", deadline_ms=None)


@pytest.fixture(params=[False, True], ids=["shared", "dedicated"])
def dedicated(request: pytest.FixtureRequest) -> bool:
    """Both hostings pass the same stories."""
    return bool(request.param)


def run(engine: Engine, order: dict, dedicated: bool, definition=patient):
    handle = engine.sagas.submit(definition, order, key=order["order_id"], dedicated=dedicated)
    return handle, handle.result(timeout_s=60)


def test_a_fine_order_completes_with_one_effect_a_step(engine: Engine, dedicated: bool) -> None:
    handle, outcome = run(engine, engine.order(), dedicated)
    assert outcome.status == "completed"
    assert set(outcome.results) == set(STEPS)
    assert engine.effects(handle.saga_id) == [(step, "action") for step in STEPS]


def test_an_order_without_stock_is_undone_and_says_why(engine: Engine, dedicated: bool) -> None:
    handle, outcome = run(engine, engine.order(item="rare"), dedicated)
    assert (outcome.status, outcome.code) == ("compensated", "INSUFFICIENT_STOCK")
    assert "rare" in outcome.message
    with pytest.raises(raysaga.InsufficientStockError):
        outcome.raise_if_not_completed()
    assert ("process_payment", "action") not in engine.effects(handle.saga_id)


def test_a_declined_payment_releases_the_stock(engine: Engine, dedicated: bool) -> None:
    handle, outcome = run(engine, engine.order(token="tok_declined_1"), dedicated)
    assert (outcome.status, outcome.code) == ("compensated", "PAYMENT_DECLINED")
    kinds = engine.effects(handle.saga_id)
    assert kinds.count(("reserve_inventory", "action")) == 1
    assert kinds.count(("reserve_inventory", "compensation")) == 1
    assert not [step for step, kind in kinds if step == "schedule_shipping" and kind == "action"]


@pytest.mark.parametrize("step", range(4))
def test_a_step_that_stays_unavailable_undoes_all_before_it_in_reverse(
    engine: Engine, dedicated: bool, step: int
) -> None:
    order = engine.order()
    saga_id = f"patient:{order['order_id']}"
    note = engine.trouble(saga_id, STEPS[step], "action", "before", "always unavailable")
    _, outcome = run(engine, order, dedicated)
    note.unlink()
    assert (outcome.status, outcome.code) == ("compensated", "SERVICE_UNAVAILABLE")
    undone = [e for e in engine.sagas.history(saga_id) if e["event"] == "step_undone"]
    assert [e["step"] for e in undone] == list(reversed(STEPS[: step + 1]))
    assert engine.effects(saga_id).count((STEPS[step], "action")) == 0


@pytest.mark.parametrize("step", STEPS)
def test_a_lost_reply_is_asked_again_and_done_once(
    engine: Engine, dedicated: bool, step: str
) -> None:
    order = engine.order()
    saga_id = f"patient:{order['order_id']}"
    engine.trouble(saga_id, step, "action", "after", "lose")
    _, outcome = run(engine, order, dedicated)
    assert outcome.status == "completed"
    assert engine.effects(saga_id).count((step, "action")) == 1


def test_a_cancelled_order_is_undone(engine: Engine, dedicated: bool) -> None:
    order = engine.order()
    saga_id = f"patient:{order['order_id']}"
    note = engine.trouble(saga_id, "schedule_shipping", "action", "before", "always hang")
    handle = engine.sagas.submit(patient, order, key=order["order_id"], dedicated=dedicated)
    until(lambda: ("process_payment", "action") in engine.effects(saga_id), "the payment is taken")
    engine.sagas.cancel(saga_id, by="tester", note="changed my mind")
    note.unlink()
    outcome = handle.result(timeout_s=60)
    assert (outcome.status, outcome.code) == ("compensated", "CANCELLED")
    kinds = engine.effects(saga_id)
    assert kinds.count(("process_payment", "compensation")) == 1
    with pytest.raises(raysaga.OperatorRefusedError):
        engine.sagas.retry(saga_id, by="tester")


def test_a_finished_order_cannot_be_cancelled(engine: Engine, dedicated: bool) -> None:
    handle, _ = run(engine, engine.order(), dedicated)
    with pytest.raises(raysaga.CancelTooLateError):
        engine.sagas.cancel(handle.saga_id)


def test_an_undo_that_gives_up_parks_until_an_operator_retries(
    engine: Engine, dedicated: bool
) -> None:
    order = engine.order(token="tok_declined_2")
    saga_id = f"patient:{order['order_id']}"
    note = engine.trouble(saga_id, "reserve_inventory", "undo", "before", "always unavailable")
    handle, outcome = run(engine, order, dedicated)
    assert (outcome.status, outcome.code) == ("parked", "COMPENSATION_STUCK")
    assert "reserve_inventory" in outcome.remaining
    parked = engine.sagas.list(phases=["parked_backward"])
    assert saga_id in [row["saga_id"] for row in parked]
    note.unlink()
    engine.sagas.retry(saga_id, by="tester")
    ended = until(
        lambda: o if (o := handle.result(60)).status != "parked" else None, "it is undone"
    )
    assert ended.status == "compensated"
    assert engine.effects(saga_id).count(("reserve_inventory", "compensation")) == 1


def test_a_skipped_undo_is_listed_as_what_remains(engine: Engine, dedicated: bool) -> None:
    order = engine.order(token="tok_declined_3")
    saga_id = f"patient:{order['order_id']}"
    note = engine.trouble(saga_id, "reserve_inventory", "undo", "before", "always unavailable")
    handle, outcome = run(engine, order, dedicated)
    assert outcome.status == "parked"
    with pytest.raises(raysaga.ValidationError):
        engine.sagas.skip(saga_id, by="tester", note="")
    engine.sagas.skip(saga_id, by="tester", note="written off")
    note.unlink()
    ended = until(lambda: o if (o := handle.result(60)).status != "parked" else None, "it is over")
    assert (ended.status, ended.remaining) == ("compensated", ("reserve_inventory",))


def test_a_repeat_gives_the_same_saga_and_another_body_is_refused(
    engine: Engine, dedicated: bool
) -> None:
    order = engine.order()
    handle, first = run(engine, order, dedicated)
    again = engine.sagas.submit(patient, order, key=order["order_id"], dedicated=dedicated)
    assert (handle.is_new, again.is_new) == (True, False)
    assert again.result(timeout_s=30) == first
    other = order | {"customer_id": "somebody-else"}
    with pytest.raises(raysaga.IdempotencyConflictError):
        engine.sagas.submit(patient, other, key=order["order_id"], dedicated=dedicated)
    assert len(engine.effects(handle.saga_id)) == len(SERVICES)


def test_an_order_past_its_deadline_turns_back(engine: Engine, dedicated: bool) -> None:
    order = engine.order()
    saga_id = f"patient:{order['order_id']}"
    note = engine.trouble(saga_id, "send_notification", "action", "before", "always hang")
    handle = engine.sagas.submit(
        patient, order, key=order["order_id"], dedicated=dedicated, deadline_s=1.0
    )
    outcome = handle.result(timeout_s=60)
    note.unlink()
    assert (outcome.status, outcome.code) == ("compensated", "DEADLINE_EXCEEDED")


def test_a_handle_can_be_pickled_and_used_elsewhere(engine: Engine) -> None:
    handle, outcome = run(engine, engine.order(), False)
    copy = pickle.loads(pickle.dumps(handle._handle))
    assert engine.sagas.run(copy.result(30)) == outcome


def test_a_handle_works_in_a_task_elsewhere_on_the_cluster(engine: Engine) -> None:
    handle, outcome = run(engine, engine.order(), False)

    def ask(pickled: bytes) -> tuple[str, str]:
        import asyncio
        import pickle

        found = asyncio.run(pickle.loads(pickled).result(30))
        return found.saga_id, found.status

    answer = ray.get(ray.remote(ask).options(num_cpus=0).remote(pickle.dumps(handle._handle)))
    assert answer == (outcome.saga_id, "completed")
