"""Examples with brokers run as they stand; one of them was written without raysaga."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raysaga.actors.brokers.address import parse_address

from .rabbit_process import RabbitProcess
from .shop import AnyBroker, Shop, until

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAM = EXAMPLES / "plain_payment.py"


async def test_a_plain_program_takes_part_and_is_undone_like_any_other(
    rabbit: RabbitProcess, open_shop: Callable[..., Shop], tmp_path: Path
) -> None:
    """One order completes; one is refused after it was paid, and gets its money back."""
    address = f"{rabbit.url}/?queue=plain-payment&format=json"
    shop = await open_shop(
        brokered={"payment": address},
        services={"shipping": {"unserviceable_prefixes": ["far-"]}},
        has_all_ledgers=False,
    ).open(runs=())
    path = tmp_path / "payments.sqlite"
    queue = parse_address(address).queue
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), rabbit.url, str(path), queue, stdout=subprocess.DEVNULL
    )
    try:
        done = await shop.order()
        undone = await shop.order(customer="far-away")
    finally:
        program.kill()
        await program.wait()
    assert done["phase"] == "completed"
    assert (undone["phase"], undone["step"]) == ("compensated", "schedule_shipping")
    with sqlite3.connect(path) as payments:
        charges = payments.execute("select key from charges").fetchall()
        answers = dict(payments.execute("select key, state from answers").fetchall())
    assert len(charges) == 1 and done["saga_id"] in charges[0][0]
    assert sorted(answers.values()) == ["applied", "undone"]
    await until(lambda: not shop.host.sagas, "nothing is under way")


@pytest.mark.cluster
def test_the_example_orders_over_a_broker(broker: AnyBroker, tmp_path: Path) -> None:
    tools = str(Path(sys.executable).parent)
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / "order_over_a_broker.py"), broker.url + "/"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout == "order:order-1 completed new\n", run.stderr
