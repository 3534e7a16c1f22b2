"""An operator's order is on disk when it is answered, under the name of who gave it."""

from __future__ import annotations

from pathlib import Path

from serving_within import Served, an_order, check_problem, served, stuck_services

from raysaga.api.http.access import Right


async def park(server: Served, key: str = "o-1", **headers: str) -> str:
    """Begin a saga that gets stuck on its way back; return its path."""
    answer = await server.client.post(
        "/sagas/hasty?wait=10s",
        json=an_order(key),
        headers={"Idempotency-Key": key, **headers},
    )
    assert answer.json()["status"] == "parked", answer.text
    return f"/sagas/hasty:{key}"


async def test_a_parked_saga_is_sent_on_by_a_retry(tmp_path: Path) -> None:
    async with served(tmp_path / "data", services=stuck_services()) as server:
        path = await park(server)
        body = {"note": "the bank is back", "by": "ann"}
        told = (await server.client.post(f"{path}/retry", json=body)).json()
        assert told == {"saga_id": "hasty:o-1", "order": "retry", "answer": "accepted"}
        assert (await server.client.get(f"{path}?wait=10s")).json()["phase"] == "compensated"
        history = (await server.client.get(f"{path}/history")).json()["rows"]
        (resumed,) = [row for row in history if row["event"] == "saga_resumed"]
        assert (resumed["by"], resumed["note"]) == ("ann", "the bank is back")


async def test_a_skip_needs_a_note_and_leaves_the_effect(tmp_path: Path) -> None:
    async with served(tmp_path / "data", services=stuck_services()) as server:
        path = await park(server)
        check_problem(await server.client.post(f"{path}/skip", json={}), 422, "VALIDATION")
        check_problem(await server.client.post(f"{path}/force", json={}), 422, "VALIDATION")
        done = await server.client.post(f"{path}/skip", json={"note": "refunded by hand"})
        assert done.status_code == 200
        told = (await server.client.get(f"{path}?wait=10s")).json()
        assert (told["phase"], told["remaining"]) == ("compensated", ["process_payment"])


async def test_orders_that_do_not_fit_are_told_so(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    for order, code in (
        ("cancel", "CANCEL_TOO_LATE"),
        ("retry", "ORDER_REFUSED"),
        ("skip", "ORDER_REFUSED"),
        ("force", "CANCEL_TOO_LATE"),
    ):
        answer = await server.client.post(f"/sagas/order:o-1/{order}", json={"note": "x"})
        assert check_problem(answer, 409, code)["saga_id"] == "order:o-1"
    answer = await server.client.post("/sagas/order:o-2/cancel", json={})
    check_problem(answer, 404, "NOT_FOUND")
    answer = await server.client.post("/sagas/order:o-1/burn", json={})
    check_problem(answer, 422, "VALIDATION")


async def test_a_note_with_other_fields_is_refused(server: Served) -> None:
    for body in ({"why": "x"}, {"note": 1}, {"note": "x" * 1_001}):
        answer = await server.client.post("/sagas/order:o-1/cancel", json=body)
        check_problem(answer, 422, "VALIDATION")


async def test_an_order_is_given_under_the_name_of_its_token(tmp_path: Path) -> None:
    rights = {"ann": [Right.SUBMIT, Right.READ, Right.OPERATE]}
    async with served(tmp_path / "data", rights=rights, services=stuck_services()) as server:
        path = await park(server, **server.bearer("ann"))
        headers = server.bearer("ann")
        answer = await server.client.post(f"{path}/retry", json={"by": "bob"}, headers=headers)
        check_problem(answer, 422, "VALIDATION")
        assert (await server.client.post(f"{path}/retry", json={}, headers=headers)).is_success
        history = (await server.client.get(f"{path}/history", headers=headers)).json()["rows"]
        assert [row["by"] for row in history if row["event"] == "saga_resumed"] == ["ann"]
