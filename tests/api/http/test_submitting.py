"""What is answered is on disk; a repeat is the same; what is wrong is told by code."""

from __future__ import annotations

from pathlib import Path

from serving_within import Served, an_order, check_problem, served

from raysaga.api.http.settings import HttpSettings


async def test_an_order_is_accepted_and_can_be_looked_at(server: Served) -> None:
    answer = await server.client.post("/orders", json=an_order("o-1"))
    assert answer.status_code == 202
    assert answer.json() == {
        "saga_id": "order:o-1",
        "is_new": True,
        "status_url": "/sagas/order:o-1",
    }
    seen = await server.client.get(answer.headers["location"], params={"wait": "10s"})
    assert seen.json()["phase"] == "completed"


async def test_with_wait_the_outcome_is_the_answer(server: Served) -> None:
    answer = await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    assert answer.status_code == 200
    told = answer.json()
    assert (told["status"], told["is_new"]) == ("completed", True)
    assert set(told["results"]) > {"process_payment"}


async def test_a_refused_order_is_told_as_compensated_with_its_reason(server: Served) -> None:
    order = an_order("o-1", items=[{"item_id": "rare", "quantity": 4}])
    told = (await server.client.post("/orders?wait=10s", json=order)).json()
    assert (told["status"], told["code"]) == ("compensated", "INSUFFICIENT_STOCK")


async def test_a_repeat_is_the_same_saga(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    again = await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    assert (again.status_code, again.json()["is_new"]) == (200, False)
    assert server.engine.desk.accepted_count == 1


async def test_the_key_of_another_body_is_refused(server: Served) -> None:
    await server.client.post("/orders", json=an_order("o-1"))
    other = await server.client.post("/orders", json=an_order("o-1", customer_id="c-8"))
    told = check_problem(other, 422, "IDEMPOTENCY_CONFLICT")
    assert told["saga_id"] == "order:o-1"


async def test_an_order_has_no_other_key_than_its_id(server: Served) -> None:
    """Two keys for one order would be two sagas, and two charges."""
    headers = {"Idempotency-Key": "another"}
    answer = await server.client.post("/orders", json=an_order("o-1"), headers=headers)
    check_problem(answer, 422, "VALIDATION")
    answer = await server.client.post("/sagas/order", json=an_order("o-1"), headers=headers)
    check_problem(answer, 422, "VALIDATION")
    headers = {"Idempotency-Key": '"o-1"'}
    answer = await server.client.post("/orders", json=an_order("o-1"), headers=headers)
    assert answer.status_code == 202
    assert server.engine.desk.accepted_count == 1


async def test_any_definition_of_the_server_can_be_begun(server: Served) -> None:
    headers = {"Idempotency-Key": "k-1"}
    path = "/sagas/hasty?wait=10s"
    answer = await server.client.post(path, json=an_order("o-1"), headers=headers)
    assert answer.json()["saga_id"] == "hasty:k-1"
    answer = await server.client.post("/sagas/none", json={}, headers=headers)
    check_problem(answer, 404, "NOT_FOUND")
    answer = await server.client.post("/sagas/hasty", json=an_order("o-1"))
    check_problem(answer, 400, "IDEMPOTENCY_KEY_MISSING")
    headers = {"Idempotency-Key": "k-2"}
    answer = await server.client.post("/sagas/hasty", json={}, headers=headers)
    check_problem(answer, 422, "VALIDATION")


async def test_what_is_no_order_is_refused(server: Served) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k"}
    texts = (b"", b"{", b"[]", b"null", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff", b"[" * 100_000)
    for path in ("/orders", "/sagas/hasty"):
        for body in texts:
            answer = await server.client.post(path, content=body, headers=headers)
            check_problem(answer, 422, "VALIDATION")


async def test_a_card_number_is_refused_and_not_repeated(server: Served) -> None:
    number = "4111" + "1111" * 3
    order = an_order("o-1", payment={"token": number, "amount_minor": 1, "currency": "USD"})
    answer = await server.client.post("/orders", json=order)
    told = check_problem(answer, 422, "VALIDATION")
    assert told["errors"] == [
        {
            "field": "payment.token",
            "message": "contains a card number; send a payment token instead",
        }
    ]
    assert number not in answer.text


async def test_what_is_not_said_to_be_json_is_refused(server: Served) -> None:
    """A form of a foreign page needs no leave to be sent; JSON does."""
    answer = await server.client.post(
        "/orders", content=b"{}", headers={"Content-Type": "text/plain"}
    )
    check_problem(answer, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_is_bounded_by_what_comes_and_not_by_its_headers(tmp_path: Path) -> None:
    settings = HttpSettings(body_bytes_max=1_000)

    async def endless() -> object:
        for _ in range(1_000):
            yield b" " * 100

    async with served(tmp_path / "data", settings=settings) as server:
        headers = {"Content-Type": "application/json"}
        answer = await server.client.post("/orders", content=b" " * 1_001, headers=headers)
        check_problem(answer, 413, "PAYLOAD_TOO_LARGE")
        answer = await server.client.post("/orders", content=endless(), headers=headers)  # type: ignore[arg-type]
        check_problem(answer, 413, "PAYLOAD_TOO_LARGE")


async def test_a_wait_is_bounded(server: Served) -> None:
    for wait in ("61s", "2m", "x", "-1s"):
        answer = await server.client.post(f"/orders?wait={wait}", json=an_order("o-1"))
        check_problem(answer, 422, "VALIDATION")


async def test_an_overloaded_engine_says_when_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path / "data", sagas_in_flight_max=1, lazy_flush_ms=1_000) as server:
        landing = server.engine._landings["inventory"]
        server.engine._landings["inventory"] = server.engine._landings["payment"]
        assert (await server.client.post("/orders", json=an_order("o-1"))).status_code == 202
        answer = await server.client.post("/orders", json=an_order("o-2"))
        told = check_problem(answer, 503, "OVERLOADED")
        assert told["retryable"] is True
        assert int(answer.headers["retry-after"]) >= 1
        server.engine._landings["inventory"] = landing
