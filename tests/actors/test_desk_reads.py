"""The desk reads: what a caller asks is what was on disk, and asking holds up nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.actors.placement import saga_scope
from raysaga.actors.search import ROWS_A_TURN
from raysaga.actors.wire import pack_message, unpack_messages
from raysaga.statemachines.events import StepSucceeded
from raysaga.statemachines.ids import SagaId, Scope
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import Phase
from raysaga.storage.codec import encode_record
from raysaga.storage.journal import CHAIN_START, Birth, Entry

from .virtual_time import in_virtual_time, until
from .world import UUID, World


async def _ask(world: World, operation: str, body: object):  # type: ignore[no-untyped-def]
    request = world.caller.send(operation, body)
    await until(lambda: request.is_answered)
    return request


@in_virtual_time
async def test_what_a_caller_asks_is_told_as_it_is_on_disk(world_folder: Path) -> None:
    world = await World(world_folder).start()
    for key in ("1", "2", "3"):
        world.services.script.refuses = {"process_payment": "DECLINED"} if key == "2" else {}
        await world.outcome(await world.submit(key))
    listed = (await _ask(world, "list", {})).ok
    assert [row["saga_id"] for row in listed] == ["order:3", "order:2", "order:1"]
    compensated = (await _ask(world, "list", {"phases": ["compensated"]})).ok
    assert [(row["saga_id"], row["reason"]) for row in compensated] == [("order:2", "DECLINED")]
    page = (await _ask(world, "list", {"limit": 1, "after": "order:3"})).ok
    assert [row["saga_id"] for row in page] == ["order:2"]
    status = (await world.ask("status", "order:2")).ok
    assert status["phase"] == "compensated"
    assert [step["status"] for step in status["steps"]] == [
        "undone",
        "undone",
        "pending",
        "pending",
    ]
    history = (await world.ask("history", "order:2")).ok
    assert history[0]["event"] == "accepted"
    assert history[-1]["event"] == "saga_compensated"
    assert "input" not in history[0]
    payloads = await _ask(world, "history", {"saga_id": "order:2", "payloads": True})
    assert payloads.ok[0]["input"]["order_id"] == "o-1"
    assert (await _ask(world, "stats", {})).ok == {"is": "on"}
    await world.finish()


@in_virtual_time
@pytest.mark.parametrize("operation", ["status", "history"])
async def test_who_asks_while_a_commit_is_made_is_told_what_was_before_or_after_it(
    world_folder: Path, operation: str
) -> None:
    """A commit of another thread, between the index row that is read and the records.

    Method: a saga that another process drives, whose next record is committed by the read
    of its records.
    """
    world = await World(world_folder, reconcile_ms=3_600_000).start()
    await world.submit(dedicated=True)
    journal = world.journal
    head = journal.head(SagaId("order:1"))
    assert head is not None
    epoch = journal.grant_epoch(head.scope, "another", 0)
    done = StepSucceeded(0, 1, 7, {})
    record, chain = encode_record(head.saga_id, 1, epoch, 7, head.chain, [done])
    entry = Entry(head.saga_id, 1, record, chain, Phase.RUNNING, 7, "", "", None, None)
    read = journal.records

    def read_after_a_commit(saga_id: SagaId) -> list[bytes]:
        journal.records = read  # type: ignore[method-assign]
        journal.commit(head.scope, epoch, [entry])
        return read(saga_id)

    journal.records = read_after_a_commit  # type: ignore[method-assign]
    asked = await _ask(world, operation, {"saga_id": "order:1"})
    assert not asked.error
    if operation == "status":
        assert asked.ok["steps"][0]["status"] == "succeeded"
    else:
        assert [row["event"] for row in asked.ok][-1] == "step_succeeded"
    world.close()


@in_virtual_time
async def test_a_search_that_passes_over_many_sagas_leaves_the_loop_to_others(
    world_folder: Path,
) -> None:
    """Fifty thousand sagas of another owner, of which one is wanted: the oldest."""
    world = await World(world_folder, in_memory=True, reconcile_ms=3_600_000).start()
    other = saga_scope(UUID, SagaId("order:other"))
    epoch = world.journal.grant_epoch(other, "another", 0)
    world.journal.commit(other, epoch, [ended_saga(number, other) for number in range(MANY)])
    question = pack_message("somebody") + pack_message([1, "list", {"reason": "RARE"}])
    asked = asyncio.ensure_future(world.engine.desk.landing.exchange(question))
    turn_count = 0
    while not asked.done():
        turn_count += 1
        await asyncio.sleep(0)
    assert turn_count >= MANY // ROWS_A_TURN, "others had their turns"
    _outbox, (_, kind, rows) = unpack_messages(asked.result())
    assert (kind, [row["saga_id"] for row in rows]) == ("ok", ["order:0"])
    unknown = await _ask(world, "list", {"reason": "RARE", "after": "order:none"})
    assert unknown.error == "NOT_FOUND"
    world.close(is_sound=False)


MANY = 50_000


def ended_saga(number: int, scope: Scope) -> Entry:
    """Return the only entry of a saga of which only the index matters."""
    saga_id = SagaId(f"order:{number}")
    birth = Birth(scope, str(number), "f", "order", order_saga.content_hash)
    code = "RARE" if number == 0 else "COMMON"
    return Entry(saga_id, 0, b"", CHAIN_START, Phase.COMPENSATED, number, code, "", None, birth)
