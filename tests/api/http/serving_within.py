"""A server in this process: the real application on a real engine without Ray, on a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from engine_within import STOCK, Within, engine_within

from raysaga.actors.services.settings import ServicesSettings
from raysaga.api.http.access import Right, Token, load_tokens, make_token
from raysaga.api.http.app import serving
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga


def hasty(name: str = "hasty") -> SagaDefinition:
    """Return the order saga with so little patience that it soon waits for a person."""
    data = order_saga.to_data()
    data["name"] = name
    for step in data["steps"]:
        few = {"attempts_max": 2, "delay_ms_first": 1, "delay_ms_max": 2}
        step["retry"] = step["compensation_retry"] = few
        step["timeout_ms"] = 2_000
    return SagaDefinition.from_data(data)


def stuck_services(refunds: int = 2, shipments: int = 1) -> ServicesSettings:
    """Return services that refuse the first shipments and then fail that many refunds."""
    refused = {"trouble": "refuse", "operation": "schedule", "calls": shipments}
    failed = {"trouble": "unavailable", "operation": "refund", "calls": refunds}
    return ServicesSettings.calm(
        inventory={"stock": STOCK},
        shipping={"behaviour": {"scripted": [refused]}},
        payment={"behaviour": {"scripted": [failed]}},
    )


QUICK = HttpSettings(look_every_s=0.1, follow_every_s=0.02, heartbeat_s=0.2, ready_wait_s=0.3)


@dataclass
class Served:
    """A running server.

    Attributes:
        engine: What it serves.
        port: Where.
        client: Of everything without a token.
        tokens: By name, if it needs tokens.
    """

    engine: Within
    port: int
    client: httpx.AsyncClient
    tokens: dict[str, str]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def bearer(self, name: str) -> dict[str, str]:
        """Return the header of a token."""
        return {"Authorization": f"Bearer {self.tokens[name]}"}


def an_order(order_id: str, **changes: Any) -> dict[str, Any]:
    """Return a small valid order as plain data."""
    order = {
        "order_id": order_id,
        "customer_id": "c-7",
        "items": [{"item_id": "milk", "quantity": 2}],
        "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
    }
    return {**order, **changes}


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check that an answer is a problem document of this kind; return it."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    told = answer.json()
    assert (answer.status_code, told["status"], told["code"]) == (status, status, code), told
    assert told["type"] == f"/problems/{code}"
    return dict(told)


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """Serve an application on a port of this machine; give the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    running = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def served(
    path: Path,
    *,
    rights: dict[str, Iterable[Right]] | None = None,
    settings: HttpSettings = QUICK,
    definitions: Iterable[SagaDefinition] = (order_saga, hasty()),
    routers: Iterable[Any] = (),
    **options: Any,
) -> AsyncIterator[Served]:
    """Give a server on a new engine; with `rights`, tokens of these names are needed."""
    made: dict[str, str] = {}
    known: list[Token] | None = None
    file = path.parent / "tokens.json"
    for name, granted in (rights or {}).items():
        made[name] = make_token(file, name, granted)
        known = load_tokens(file)
    async with (
        engine_within(path, **options) as engine,
        serving(
            engine.sagas,
            engine.archive,
            tokens=known,
            settings=settings,
            definitions=definitions,
            routers=routers,
        ) as app,
        listening(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield Served(engine, port, client, made)
