"""`raysaga serve` on a real engine: an order that was answered is there after everything died."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("raysaga"))


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Give a server on a free port with a client; whatever is left of it is killed."""
    server = subprocess.Popen(
        [PROGRAM, "serve", "--data", str(data), "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert server.stderr is not None
    processes = [psutil.Process(server.pid)]
    try:
        found = None
        for line in server.stderr:
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            if found:
                break
        assert found is not None, "it did not say where it serves"
        processes += psutil.Process(server.pid).children(recursive=True)
        with httpx.Client(base_url=found.group(), timeout=60) as client:
            yield server, client
    finally:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        server.wait()


def an_order(order_id: str) -> dict[str, object]:
    """Return a small valid order as plain data."""
    return {
        "order_id": order_id,
        "customer_id": "c-7",
        "items": [{"item_id": "milk", "quantity": 2}],
        "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
    }


def test_what_was_answered_is_there_after_all_of_it_was_killed(tmp_path: Path) -> None:
    data, stock = tmp_path / "data", tmp_path / "stock.json"
    stock.write_text('{"default": 100}')
    with serving(data, "--stock", str(stock)) as (_, client):
        assert client.post("/orders?wait=30s", json=an_order("o-1")).json()["status"] == "completed"
        accepted = [client.post("/orders", json=an_order(f"p-{i}")) for i in range(20)]
        assert {answer.status_code for answer in accepted} == {202}
    with serving(data) as (server, client):
        assert client.get("/readyz").json() == {"status": "ready"}
        for answer in accepted:
            told = client.get(answer.headers["location"], params={"wait": "30s"}).json()
            assert told["phase"] == "completed", told
        again = client.post("/orders?wait=30s", json=an_order("o-1")).json()
        assert (again["is_new"], again["status"]) == (False, "completed")
        metrics = client.get("/metrics").text
        assert 'shard_epoch{shard="0"} 2.0' in metrics
        assert client.get("/").text.startswith("<!doctype html>")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0


def test_another_address_is_not_served_without_a_token(tmp_path: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "serve", "--data", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "raysaga token" in done.stderr
