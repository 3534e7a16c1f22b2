"""Calls are committed in the event loop where the disk is quick, else in the writer's thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from raysaga.actors.clock import SystemClock
from raysaga.actors.ledger_writer import LedgerWriter
from raysaga.actors.participant_server import open_ledger
from raysaga.actors.services.shipping import Shipping
from raysaga.statemachines.calls import ACTION, Outcome, StepCall, StepReply
from raysaga.storage.ledger_batch import Prepared
from raysaga.storage.ledger_reader import LedgerReader


def call(number: int) -> Prepared:
    items = [{"item_id": "milk", "quantity": 1}]
    request = {"order_id": f"o-{number}", "customer_id": "c-1", "items": items}
    return Prepared(
        StepCall(
            *(number, ACTION, "journal-1", f"order:o-{number}", "schedule_shipping", "schedule"),
            *(request, "journal-1/0", 1, 1, SystemClock().now_ms() + 60_000, 5_000),
        )
    )


@pytest.mark.parametrize("is_quick", [True, False])
async def test_replies_come_in_the_order_of_the_calls_wherever_they_are_committed(
    tmp_path: Path, is_quick: bool
) -> None:
    """On a slow disk in a thread, so that the event loop goes on; else in the event loop."""
    clock = SystemClock()
    ledger = open_ledger(Shipping(), tmp_path, clock=clock)
    if not is_quick:
        ledger.environment.flush_ms = 1e6
    threads: list[bool] = []
    handle = ledger.handle

    def watched(calls: list[Prepared]) -> list[StepReply]:
        threads.append(threading.current_thread() is threading.main_thread())
        return handle(calls)

    ledger.handle = watched  # type: ignore[method-assign, assignment]
    failures: list[BaseException] = []
    writer = LedgerWriter(ledger, batch_items_max=256, clock=clock, on_fatal=failures.append)
    replies: list[StepReply] = []
    numbers = iter(range(1, 12))
    have_all = asyncio.Event()

    def more(reply: StepReply) -> None:
        """Have one call come alone, then three together, then one, and so on."""
        replies.append(reply)
        if len(replies) == 11:
            have_all.set()
        if reply.call_id in (1, 4, 5, 8, 9):
            for _ in range(3 if reply.call_id in (1, 5, 9) else 1):
                number = next(numbers, None)
                if number is not None:
                    writer.put(call(number), more)

    writer.put(call(next(numbers)), more)
    async with asyncio.timeout(30):
        await have_all.wait()
    await writer.stop()
    assert [reply.call_id for reply in replies] == list(range(1, 12))
    assert {reply.outcome for reply in replies} == {Outcome.SUCCEEDED}
    assert threads == [is_quick] * 6, "alone or not, turn by turn"
    ledger.close()
    reader = LedgerReader.open(tmp_path)
    assert len(list(reader.effects())) == 11
    reader.close()
    assert not failures


async def test_a_call_that_comes_alone_waits_for_what_the_thread_does_without_stopping_the_loop(
    tmp_path: Path,
) -> None:
    clock = SystemClock()
    ledger = open_ledger(Shipping(), tmp_path, clock=clock)
    writer = LedgerWriter(ledger, batch_items_max=256, clock=clock, on_fatal=lambda _error: None)
    may_end, replied = threading.Event(), asyncio.Event()
    pruning = asyncio.create_task(writer.run(lambda: may_end.wait(30)))
    await asyncio.sleep(0)
    writer.put(call(1), lambda _reply: replied.set())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not replied.is_set()
    may_end.set()
    async with asyncio.timeout(30):
        await replied.wait()
    assert await pruning
    await writer.stop()
    ledger.close()
