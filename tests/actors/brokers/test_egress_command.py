"""Outcomes of a real engine, told by the command; engine and teller are killed meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raysaga.api.blocking import connect_blocking
from raysaga.statemachines.order import order_saga
from raysaga.storage.data_folder import DataFolder, previous_owner
from raysaga.storage.outbox import bookmarks

from .rabbit_process import RabbitProcess
from .shop import hearing, until
from .test_egress import outcomes
from .test_participant_command import order

RAYSAGA = Path(sys.executable).with_name("raysaga")
ORDER_COUNT = 40


def egress(data: Path, *options: str) -> list[str]:
    return [str(RAYSAGA), "egress", "--data", str(data), *options]


@contextmanager
def telling(data: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """Tell the outcomes of `data` by the command, while the block runs."""
    process = subprocess.Popen(
        egress(data),
        env={"PATH": "", "RAYSAGA_TRANSPORT": url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.cluster
def test_engine_and_teller_are_killed_and_every_outcome_is_told(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    """The teller is killed at its first outcome, the shard at once after; both come back."""
    data, url = tmp_path / "data", f"{rabbit.url}/?queue=egress-command&format=json"

    async def hear_all(saga_ids: set[str]) -> set[str]:
        async with hearing(url) as heard:
            # Some are told again, so that to count them is not enough.
            await until(
                lambda: saga_ids <= {body["saga_id"] for body in outcomes(heard)},
                f"{len(saga_ids)} are heard",
            )
        return {body["saga_id"] for body in outcomes(heard)}

    with connect_blocking(data) as sagas:
        first = sagas.submit(order_saga, order("o-0"), key="o-0")
        with telling(data, url) as killed:
            assert asyncio.run(hear_all({first.saga_id})) == {first.saga_id}
            handles = [
                sagas.submit(order_saga, order(f"o-{i}"), key=f"o-{i}")
                for i in range(1, ORDER_COUNT)
            ]
            killed.kill()
        shard = previous_owner(
            DataFolder.open(data, shard_count=None, create=False).journal_path(0)
        )
        assert shard is not None
        os.kill(shard, signal.SIGKILL)
        with telling(data, url) as teller:
            wanted = {handle.saga_id for handle in handles}
            assert asyncio.run(hear_all(wanted)) >= wanted
            assert {handle.result(timeout_s=60).status for handle in handles} == {"completed"}
            teller.send_signal(signal.SIGTERM)
            assert teller.wait(30) == 0
    shown = subprocess.run(egress(data, "--show"), capture_output=True, text=True, check=True)
    assert shown.stdout == "outcomes: 0 records behind\n"
    subprocess.run(egress(data, "--forget"), capture_output=True, check=True)
    assert not bookmarks(data / "shards" / "000")
    again = subprocess.run(egress(data, "--forget"), capture_output=True, text=True, check=False)
    assert (again.returncode, "no bookmark" in again.stderr) == (2, True)


def test_a_broker_that_refuses_ends_the_command_at_once(
    rabbit: RabbitProcess, tmp_path: Path
) -> None:
    DataFolder.open(tmp_path / "data", shard_count=1, create=True)
    run = subprocess.run(
        egress(tmp_path / "data", "--transport", f"amqp://guest:wrong@127.0.0.1:{rabbit.port}/"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "BROKER_REFUSED" in run.stderr
    assert "wrong" not in run.stderr
