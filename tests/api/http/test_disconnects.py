"""A client may go away after any byte: the order is accepted as a whole, or not at all."""

from __future__ import annotations

import asyncio
import json
import random

from serving_within import Served, an_order

from raysaga.api.http.edge import OVERRIDING, Edge

SEED = 11
TRIES = 40


def request_of(order_id: str) -> tuple[bytes, bytes]:
    """Return the head and the body of a submission as a client writes it."""
    body = json.dumps(an_order(order_id)).encode()
    head = (
        f"POST /orders?wait=5s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode(), body


async def test_a_client_that_goes_away_leaves_a_whole_saga_or_none(server: Served) -> None:
    """Goal: no half of an order, and no order that nobody sent in full.

    Method: a plain socket sends some bytes of a request and closes, at a place drawn by
    a seed, or right after the last byte; then every order is submitted in full.
    Each of them must be one saga, and only those that had come in full may be known.
    """
    chance = random.Random(SEED)
    sent_in_full: set[str] = set()
    for number in range(TRIES):
        order_id = f"o-{number}"
        head, body = request_of(order_id)
        whole = head + body
        cut = len(whole) if number % 4 == 0 else chance.randrange(1, len(whole))
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(whole[:cut])
        await writer.drain()
        if chance.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()
        if cut == len(whole):
            sent_in_full.add(order_id)
    for number in range(TRIES):
        order_id = f"o-{number}"
        answer = await server.client.post("/orders?wait=10s", json=an_order(order_id))
        told = answer.json()
        assert (answer.status_code, told["status"]) == (200, "completed"), told
        assert told["is_new"] or order_id in sent_in_full
    assert server.engine.desk.accepted_count == TRIES
    rows = (await server.client.get("/sagas", params={"limit": 1_000})).json()["sagas"]
    assert len(rows) == TRIES


async def test_headers_that_would_override_the_server_are_taken_off() -> None:
    seen: list[bytes] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        seen.extend(name for name, _ in scope["headers"])

    headers = [(name, b"1") for name in OVERRIDING] + [(b"host", b"localhost"), (b"x-other", b"1")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    await Edge(app, {"localhost"})(scope, None, None)  # type: ignore[arg-type]
    assert seen == [b"host", b"x-other"]
