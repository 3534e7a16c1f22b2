"""A real engine on Ray, and a participant of it that runs outside, by its command."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from raysaga.actors.archive import Archive
from raysaga.actors.archive_checks import audit_folder
from raysaga.actors.brokers.address import parse_address
from raysaga.actors.brokers.broker import open_broker
from raysaga.actors.brokers.envelope import Order, order_message
from raysaga.api.blocking import connect_blocking
from raysaga.statemachines.order import order_saga
from raysaga.storage.participants_note import NOTE_FILE

from .rabbit_process import RabbitProcess
from .shop import until

RAYSAGA = Path(sys.executable).with_name("raysaga")
STOCK = '{"default": 100}'


def order(key: str) -> dict[str, object]:
    return {
        "order_id": key,
        "customer_id": "customer-1",
        "items": [{"item_id": "common", "quantity": 1}],
        "payment": {"token": "tok_fine", "amount_minor": 100, "currency": "USD"},
    }


@contextmanager
def served(data: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Serve the inventory of `data` by the command, while the block runs."""
    stock = data.parent / "stock.json"
    stock.write_text(STOCK)
    command = [str(RAYSAGA), "participant", "inventory", "--data", str(data)]
    if not (data / "services" / "inventory").exists():
        command += ["--stock", str(stock)]
    with (data.parent / "participant.log").open("a") as log:
        process = subprocess.Popen(
            command, env={"PATH": "", "RAYSAGA_TRANSPORT": url}, stderr=log, text=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.cluster
def test_an_engine_reaches_a_participant_that_the_command_serves(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    """It is killed in between, and served again; no password is written down anywhere."""
    data, url = tmp_path / "data", f"{rabbit.url}/"
    with connect_blocking(data, participants={"inventory": url}) as sagas:
        with served(data, url) as first:
            done = sagas.submit(order_saga, order("o-1"), key="o-1").result(timeout_s=60)
            psutil.Process(first.pid).kill()
        waiting = sagas.submit(order_saga, order("o-2"), key="o-2")
        with served(data, url) as second:
            again = waiting.result(timeout_s=60)
            second.send_signal(signal.SIGTERM)
            assert second.wait(30) == 0
    assert (done.status, again.status) == ("completed", "completed")
    assert "guest:***@" in (data / NOTE_FILE).read_text()
    told = [path for path in (data / "log").iterdir() if "guest:guest" in path.read_text()]
    assert not told
    assert "guest:guest" not in (tmp_path / "participant.log").read_text()
    with Archive.open(data) as archive:
        report = audit_folder(archive)
    assert report.is_clean, str(report)


@pytest.mark.cluster
async def test_orders_in_a_queue_become_sagas_of_a_real_engine(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    """One that is invalid becomes a dead letter; the command ends in good order."""
    data = tmp_path / "data"
    address = f"{rabbit.url}/?queue=ingress-command"
    link = await open_broker(parse_address(address)).connect()
    await link.ensure("ingress-command")
    for key, body in (("o-1", order("o-1")), ("o-1", order("o-1")), ("o-2", {"order_id": 7})):
        await link.publish("ingress-command", order_message(Order("order", key, body, None)))
    await link.close()
    process = await asyncio.create_subprocess_exec(
        *(str(RAYSAGA), "ingress", "--data", str(data), "--transport", address, "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        letters = await rabbit.dead_letters("ingress-command", 1)
        with Archive.open(data) as archive:
            await until(lambda: archive.counts()["completed"] == 1, "the other one completes")
    finally:
        process.send_signal(signal.SIGTERM)
        counts, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, told.decode()
    assert "2 accepted, 1 dead letters" in told.decode()
    assert json.loads(counts.splitlines()[-1]) == {"accepted": 2, "dead_letters": 1}
    assert [letter["raysaga-reason"] for letter in letters] == ["VALIDATION"]


def test_a_broker_that_refuses_ends_the_command_at_once(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    url = f"amqp://guest:wrong@127.0.0.1:{rabbit.port}/"
    command = [str(RAYSAGA), "participant", "payment", "--data", str(tmp_path / "data")]
    run = subprocess.run(
        [*command, "--transport", url, "--services", "lively"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "BROKER_REFUSED" in run.stderr
    assert "wrong" not in run.stderr
