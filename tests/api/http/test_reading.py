"""Lists go on by cursors and cost a bounded time; what has not changed is not sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from serving_within import QUICK, Served, an_order, check_problem, served, stuck_services

from raysaga.actors import archive_pages


async def place(server: Served, *names: str, **changes: Any) -> None:
    """Place orders one after the other, and wait for their ends."""
    for name in names:
        answer = await server.client.post("/orders?wait=10s", json=an_order(name, **changes))
        assert answer.status_code == 200, answer.text


async def ids(server: Served, **query: Any) -> list[str]:
    """Return the keys that a list gives, page by page to its end."""
    found: list[str] = []
    while True:
        told = (await server.client.get("/sagas", params=query)).json()
        found += [row["saga_id"].partition(":")[2] for row in told["sagas"]]
        if told["cursor"] is None:
            return found
        query["cursor"] = told["cursor"]


async def test_pages_follow_each_other_without_gap_or_repeat(server: Served) -> None:
    """What is accepted after the first page is in none of the following."""
    names = [f"o-{i}" for i in range(7)]
    await place(server, *names)
    first = (await server.client.get("/sagas", params={"limit": 3})).json()
    assert [row["saga_id"] for row in first["sagas"]] == ["order:o-6", "order:o-5", "order:o-4"]
    await place(server, "late")
    rest = await ids(server, limit=3, cursor=first["cursor"])
    assert rest == ["o-3", "o-2", "o-1", "o-0"]


async def test_filters_find_what_they_say(server: Served) -> None:
    await place(server, "done")
    await place(server, "short", items=[{"item_id": "rare", "quantity": 9}], customer_id="c-9")
    assert await ids(server, state="completed") == ["done"]
    assert await ids(server, state=["completed", "compensated"]) == ["short", "done"]
    assert await ids(server, state="open") == []
    assert await ids(server, reason="INSUFFICIENT_STOCK", step="reserve_inventory") == ["short"]
    assert await ids(server, text="c-9") == ["short"]
    assert await ids(server, text="rare", state="completed") == []
    assert await ids(server, text="c-") == await ids(server, text="customer_id") == []
    assert await ids(server, definition="hasty") == []
    assert await ids(server, older_than_s=3_600) == []
    assert await ids(server, accepted_from_ms=1 << 50) == []


async def test_one_page_looks_at_a_bounded_number(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"looks_max": 2, "reads_max": 1})
    async with served(tmp_path / "data", settings=settings) as server:
        await place(server, "a", "b", "c")
        told = (await server.client.get("/sagas", params={"reason": "NONE"})).json()
        assert (told["sagas"], told["looked_count"]) == ([], 2)
        assert told["cursor"] is not None
        assert await ids(server, reason="NONE") == []
        assert await ids(server, text="milk") == ["c", "b", "a"]


async def test_one_page_reads_a_bounded_number(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Method: look for the name of a field, which is in every input and is none of its values."""
    monkeypatch.setattr(archive_pages, "READS_MAX", 2)
    await place(server, "a", "b", "c")
    told = (await server.client.get("/sagas", params={"text": "customer_id"})).json()
    assert (told["sagas"], told["looked_count"]) == ([], 2)
    assert await ids(server, text="customer_id") == []
    assert await ids(server, text="milk") == ["c", "b", "a"]


async def test_a_query_that_is_none_is_refused(server: Served) -> None:
    for query in ("state=no", "cursor=x", "cursor=W10", "limit=0", "limit=9999", "older_than_s=-1"):
        check_problem(await server.client.get(f"/sagas?{query}"), 422, "VALIDATION")


async def test_what_has_not_changed_is_not_sent_again(server: Served) -> None:
    await place(server, "o-1")
    for path in ("/sagas", "/sagas/order:o-1", "/sagas/order:o-1/history", "/parked"):
        first = await server.client.get(path)
        tag = first.headers["etag"]
        again = await server.client.get(path, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b""), path
    await place(server, "o-2")
    assert (await server.client.get("/sagas")).headers["etag"] != tag


async def test_a_saga_tells_its_story(server: Served) -> None:
    await place(server, "o-1")
    history = (await server.client.get("/sagas/order:o-1/history")).json()["rows"]
    assert [history[0]["event"], history[-1]["event"]] == ["accepted", "saga_completed"]
    assert "input" not in history[0]
    told = await server.client.get("/sagas/order:o-1/history", params={"payloads": True})
    assert told.json()["rows"][0]["input"]["customer_id"] == "c-7"
    timeline = (await server.client.get("/sagas/order:o-1/timeline")).json()["rows"]
    attempts = [row for row in timeline if row["kind"] == "attempt"]
    assert [row["answer"] for row in attempts] == ["succeeded"] * 4


async def test_a_saga_is_found_by_its_key_alone(server: Served) -> None:
    await place(server, "o-1")
    assert (await server.client.get("/find/o-1")).json()["saga_id"] == "order:o-1"
    check_problem(await server.client.get("/find/o-2"), 404, "NOT_FOUND")
    check_problem(await server.client.get("/sagas/order:o-2"), 404, "NOT_FOUND")
    check_problem(await server.client.get("/sagas/.."), 404, "NOT_FOUND")


async def test_a_parked_saga_is_told_with_its_net_effect_and_the_ways_on(tmp_path: Path) -> None:
    async with served(tmp_path / "data", services=stuck_services()) as server:
        headers = {"Idempotency-Key": "o-1"}
        path = "/sagas/hasty?wait=10s"
        told = (await server.client.post(path, json=an_order("o-1"), headers=headers)).json()
        assert told["status"] == "parked"
        (row,) = (await server.client.get("/parked")).json()["rows"]
        assert (row["step"], row["ways_on"]) == ("process_payment", ["retry", "skip"])
        assert row["remaining"] == ["reserve_inventory", "process_payment"]


async def test_what_is_on_disk_can_be_read_while_no_engine_answers(server: Served) -> None:
    await place(server, "o-1")
    await server.engine.gateway.close()
    server.engine.desk.landing.exchange = None  # type: ignore[assignment]
    async with asyncio.timeout(10):
        assert (await server.client.get("/sagas/order:o-1")).json()["phase"] == "completed"


async def test_diagrams_and_definitions_come_with_their_places(server: Served) -> None:
    told = (await server.client.get("/diagrams/phases")).json()
    assert {node["name"] for node in told["nodes"]} >= {"running", "parked_backward", "completed"}
    rows = (await server.client.get("/definitions")).json()["rows"]
    assert [row["definition"]["name"] for row in rows] == ["order", "hasty"]
