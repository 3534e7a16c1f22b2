"""`raysaga serve` on a real engine: an order that was answered is there after everything died."""

from __future__ import annotations

import json
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
from otlp_collector import Collector

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).with_name("raysaga"))


@contextmanager
def serving(
    data: Path, *options: str, within: Path | None = None, said: list[str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """Give a server on a free port, with a client; whatever is left of it is killed.

    It is started in the folder `within`, and what it says at first is added to `said`, if
    they are given.
    """
    server = subprocess.Popen(
        [PROGRAM, "serve", "--data", str(data), "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=within,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert server.stderr is not None
    processes = [psutil.Process(server.pid)]
    try:
        found = None
        for line in server.stderr:
            if said is not None:
                said.append(line)
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


def test_a_saga_of_ones_own_is_served_with_participants_of_ones_own(tmp_path: Path) -> None:
    """Its modules are those of the working folder, and nobody has to have a shop."""
    names = ("flights", "hotels", "cars", "bank")
    options = [f"--participant={name}=trip:serve" for name in names]
    trip = {"flight": "F", "hotel": "H", "car": "C", "price_minor": 80_000}
    within = Path(__file__).parents[2] / "examples"
    data = tmp_path / "data"
    with serving(data, "--definition=trip:trip_saga", *options, within=within) as (_, client):
        for who, ended in (("ada", "completed"), ("alan", "completed"), ("grace", "compensated")):
            request = {"json": {**trip, "traveller": who}, "headers": {"Idempotency-Key": who}}
            told = client.post("/sagas/trip?wait=30s", **request).json()
            assert (told["status"], told["is_new"]) == (ended, True), told
        assert told["code"] == "SOLD_OUT"
        (_, listed) = client.get("/definitions").json()["rows"]
        assert listed["definition"]["name"] == "trip"
        served = {row["name"] for row in client.get("/engine").json()["participants"]}
        assert served >= set(names)
        expect_refused(data, "spa=trip:serve", within=within)
        said: list[str] = []
        with serving(data, *options, within=within, said=said):
            assert not any("warning" in line for line in said)
        options[-1] = "--participant=bank=trip:main"
        with serving(data, *options, within=within, said=said):
            assert "whose bank is trip:serve and not trip:main" in said[-2]


def expect_refused(data: Path, participant: str, *, within: Path) -> None:
    """Expect that a participant that the engine of `data` does not serve is refused."""
    done = subprocess.run(
        [PROGRAM, "serve", "--data", str(data), "--port", "0", "--participant", participant],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=within,
    )
    assert done.returncode == 2
    assert "does not serve spa, but" in done.stderr and "PARTICIPANT_NOT_SERVED" in done.stderr


def test_traces_of_sagas_go_on_through_a_kill_and_meet_those_of_requests(tmp_path: Path) -> None:
    """Goal: one trace for each saga, with a link where the kill was, and one to each request.

    Method: kill everything while sagas are under way; a second server, which traces, sees
    them to their ends, and a collector of the test's own takes what it sends by OTLP.
    """
    data, slow = tmp_path / "data", tmp_path / "slow.json"
    waits = {"latency": {"distribution": "constant", "constant_ms": 2_000}}
    stock = {"inventory": {"stock": {"default": 100}}}
    slow.write_text(json.dumps({"shipping": {"behaviour": waits}, **stock}))
    with serving(data, "--services", str(slow)) as (_, client):
        before = [client.post("/orders", json=an_order(f"p-{i}")) for i in range(5)]
        paths = [answer.headers["location"] for answer in before]
        for path in paths:
            with client.stream("GET", f"{path}/events") as told:
                assert any("schedule_shipping" in line for line in told.iter_lines())
    with Collector() as collector, pytest.MonkeyPatch.context() as patched:
        patched.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with serving(data, "--traces") as (server, client):
            headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            client.post("/orders?wait=30s", json=an_order("o-1"), headers=headers)
            ids = {client.get(path, params={"wait": "30s"}).json()["trace_id"] for path in paths}
            own_id = client.get("/sagas/order:o-1").json()["trace_id"]
            collector.wait_for("order", len(paths) + 1)
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0
    whole = {span.trace_id.hex(): span for span in collector.named("order")}
    assert whole.keys() == {*ids, own_id}
    for trace_id in ids:
        mine = [span for span in collector.spans if span.trace_id.hex() == trace_id]
        parents = {span.parent_span_id for span in mine} - {b""}
        assert parents == {whole[trace_id].span_id}
        shipping = [span for span in mine if span.name == "schedule_shipping schedule"]
        # The attempt that the kill cut off, and the one after it, which is linked to it.
        cut_off, again = sorted(shipping, key=lambda span: span.start_time_unix_nano)
        assert [link.span_id for link in again.links] == [cut_off.span_id]
    (mark,) = collector.named("submit order")
    assert (mark.trace_id.hex(), mark.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    assert mark.links[0].trace_id.hex() == own_id
    (its,) = collector.named("submitted order")
    assert its.trace_id.hex() == own_id
    assert its.links[0].span_id == mark.span_id


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
