"""Health tells the truth; streams tell what happens, go on where they broke off, and end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from serving_within import QUICK, Served, an_order, check_problem, served

from raysaga.actors.archive import Archive
from raysaga.api.http.pulse import Pulse
from raysaga.storage.errors import StorageFailedError


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str, Any]]:
    """Yield the kind, the id and the data of each event of a stream."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "data" in fields:
            yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
            fields = {}


async def test_an_engine_that_answers_is_ready_and_one_that_does_not_is_not(
    server: Served,
) -> None:
    assert (await server.client.get("/readyz")).json() == {"status": "ready"}
    await server.engine.gateway.close()

    async def silent(_batch: bytes) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    server.engine.desk.landing.exchange = silent  # type: ignore[method-assign]
    server.engine.gateway._lanes.clear()
    check_problem(await server.client.get("/readyz"), 503, "NOT_READY")
    assert (await server.client.get("/healthz")).status_code == 200
    assert (await server.client.get("/engine")).json()["running"] is False


async def test_the_engine_is_told_by_shards_and_participants(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    told = (await server.client.get("/engine")).json()
    (shard,) = told["shards"]
    assert (shard["epoch"], shard["phases"]["completed"]) == (1, 1)
    names = {row["name"]: row["circuit"] for row in told["participants"]}
    assert names == dict.fromkeys(("inventory", "payment", "shipping", "notification"), "closed")


async def test_the_engine_is_followed_look_by_look(server: Served) -> None:
    async with server.client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        looks = events(answer)
        kind, _, first = await anext(looks)
        assert (kind, first[0]["begun"]) == ("look", 0)
        await server.client.post("/orders?wait=10s", json=an_order("o-1"))
        async for _, _, new in looks:
            if new[-1]["counts"]["completed"]:
                assert any(look["completed_per_s"] > 0 for look in new)
                break


async def test_a_look_that_fails_is_not_the_last_one(server: Served) -> None:
    failures = [StorageFailedError("journal", "too many readers")]

    async def read(question: Callable[[Archive], Any]) -> Any:
        if failures:
            raise failures.pop()
        return question(server.engine.archive)

    pulse = Pulse(server.engine.sagas, read, QUICK)
    pulse.start()
    async with asyncio.timeout(10):
        (look,) = await anext(pulse.follow())
    assert (look["engine_running"], failures) == (True, [])
    await pulse.stop()


async def test_a_saga_is_followed_to_its_end(server: Served) -> None:
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    async with server.client.stream("GET", "/sagas/order:o-1/events") as answer:
        told = [event async for event in events(answer)]
    assert [told[0][2]["event"], told[-2][2]["event"]] == ["accepted", "saga_completed"]
    assert told[-1][0] == "end" and told[-1][2]["phase"] == "completed"
    headers = {"Last-Event-ID": told[-3][1]}
    async with server.client.stream("GET", "/sagas/order:o-1/events", headers=headers) as answer:
        rest = [event async for event in events(answer)]
    assert rest == told[-2:]
    check_problem(await server.client.get("/sagas/order:none/events"), 404, "NOT_FOUND")


async def test_streams_are_bounded_and_one_that_was_left_makes_room(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"streams_max": 1})
    async with served(tmp_path / "data", settings=settings) as server:
        async with server.client.stream("GET", "/events") as answer:
            await anext(answer.aiter_bytes())
            check_problem(await server.client.get("/events"), 503, "STREAMS_FULL")
        async with asyncio.timeout(10):
            while True:
                async with server.client.stream("GET", "/events") as answer:
                    if answer.status_code == 200:
                        break


async def test_a_quiet_stream_says_that_it_is_alive(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"look_every_s": 60.0, "heartbeat_s": 0.05})
    async with (
        served(tmp_path / "data", settings=settings) as server,
        server.client.stream("GET", "/events") as answer,
    ):
        async for line in answer.aiter_lines():
            if line == ": still here":
                break
        assert answer.status_code == 200


async def test_each_code_is_explained(server: Served) -> None:
    told = (await server.client.get("/problems/OVERLOADED")).json()
    assert told["status"] == 503
    check_problem(await server.client.get("/problems/NONE"), 404, "NOT_FOUND")
