"""The same interface behind Ray Serve: clients that go away, and headers that would override it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from raysaga.actors.archive import Archive
from raysaga.api.http.access import TOKENS_NAME, Right, make_token

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
PYTHON = Path(sys.prefix) / "serve" / "bin" / "python"
PAGE = (ROOT / "docs" / "HTTP.md").read_text(encoding="utf-8")
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
COMMAND = re.compile(rf"^{CALLBACK}=(\S+) \\\n +serve run (\S+) data=\S+$", re.MULTILINE)
"""How the page has it typed: what is called back, and what is deployed."""

START_S = 240
TRIES = 12
TRIP_PARTICIPANTS = ("flights", "hotels", "cars", "bank")


def an_order(order_id: str) -> dict[str, object]:
    """Return a small valid order as plain data."""
    return {
        "order_id": order_id,
        "customer_id": "c-7",
        "items": [{"item_id": "milk", "quantity": 2}],
        "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
    }


def free_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(folder: Path) -> Iterator[tuple[int, str]]:
    """Give the port and a token of a deployment; whatever is left of it is killed."""
    data, port = folder / "data", free_port()
    with Archive.open(data, create=True):
        token = make_token(data / TOKENS_NAME, "all", list(Right))
    config = folder / "serve.yaml"
    (called_back, deployed), *_ = COMMAND.findall(PAGE)
    application = {
        "name": "raysaga",
        "import_path": deployed,
        "args": {
            "data": str(data),
            "definitions": "trip:trip_saga",
            "participants": ",".join(f"{name}=trip:serve" for name in TRIP_PARTICIPANTS),
        },
    }
    options = {"host": "127.0.0.1", "port": port}
    config.write_text(yaml.safe_dump({"http_options": options, "applications": [application]}))
    log = (folder / "serve.log").open("wb")
    server = subprocess.Popen(
        [PYTHON, "-m", "ray.serve.scripts", "run", str(config)],
        stdout=log,
        stderr=log,
        cwd=folder,
        start_new_session=True,
        env={
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}",
            CALLBACK: called_back,
        },
    )
    processes = [psutil.Process(server.pid)]
    try:
        wait_until_ready(port, server, folder / "serve.log")
        processes += processes[0].children(recursive=True)
        yield port, token
        server.send_signal(signal.SIGINT)
        server.wait(60)
    finally:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        server.wait()
        log.close()


def wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once new sagas would be taken."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s and server.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200:
                return
        with suppress(subprocess.TimeoutExpired):
            server.wait(0.2)
    pytest.fail(f"it does not get ready:\n{log.read_text()[-3_000:]}")


@pytest.mark.timeout(600)
@pytest.mark.skipif(not PYTHON.exists(), reason="Ray Serve: tests/cluster/install_serve.sh")
def test_an_order_is_accepted_as_a_whole_or_not_at_all_behind_ray_serve(tmp_path: Path) -> None:
    """Goal: Ray Serve cancels the handler when a client goes away, and nothing is half done.

    Method: a plain socket sends whole requests, with headers that would end them at once, and
    closes some milliseconds later; then every order is submitted again, and read.
    """
    with serving(tmp_path) as (port, token):
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, headers=headers
        ) as client:
            assert client.get("/sagas", headers={"Authorization": ""}).status_code == 401
            told = client.post(
                "/orders?wait=30s",
                json=an_order("first"),
                headers={"x-request-timeout-seconds": "0.001"},
            )
            assert told.json()["status"] == "completed", told.text
            for number in range(TRIES):
                body = json.dumps(an_order(f"o-{number}")).encode()
                head = (
                    f"POST /orders?wait=5s HTTP/1.1\r\nHost: localhost\r\n"
                    f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                ).encode()
                with socket.create_connection(("127.0.0.1", port)) as sender:
                    sender.sendall(head + body)
                    sender.settimeout(0.003 * number + 0.001)
                    with suppress(TimeoutError):
                        sender.recv(1)
            for number in range(TRIES):
                again = client.post("/orders?wait=30s", json=an_order(f"o-{number}")).json()
                assert again["status"] == "completed", again
            trip = {"flight": "F", "hotel": "H", "car": "C", "price_minor": 1, "traveller": "ada"}
            key = {"Idempotency-Key": "ada"}
            booked = client.post("/sagas/trip?wait=30s", json=trip, headers=key).json()
            assert booked["status"] == "completed", booked
            listed = client.get("/sagas", params={"definition": "order", "limit": 1_000}).json()
            assert len(listed["sagas"]) == TRIES + 1
            with client.stream("GET", "/sagas/order:first/events") as answer:
                assert "event: end" in list(answer.iter_lines())
            assert "saga_finished_total" in client.get("/metrics").text
            assert client.get("/").text.startswith("<!doctype html>")
