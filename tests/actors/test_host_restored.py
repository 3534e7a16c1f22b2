"""6a.11: a restored journal knows less than the ledgers, so these are asked before anything."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from raysaga.statemachines.calls import ACTION, QUESTION, RELEASE, LedgerStatus
from raysaga.statemachines.ids import StepKey
from raysaga.statemachines.tables import Phase
from raysaga.storage.backup import EPOCH_JUMP
from raysaga.storage.ledger_batch import ROWS
from raysaga.storage.ledger_row import encode_row, raw_key
from raysaga.storage.lmdb_journal import LmdbJournal

from .dedicated import DedicatedHosts
from .recipes import chain_saga, pivot_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import IDENTITY, JOURNAL, UUID, World


class Backups:
    """Copies of a world's journal, and the way back to one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._copy = world.folder / "copy"

    def take(self) -> None:
        self._copy.mkdir()
        self._world.journal.environment.copy_to(self._copy)

    async def restore(self) -> None:
        """Put the copy back, and start on it; note how many calls had been made before."""
        world = self._world
        world.crash()
        shutil.rmtree(world.folder / "journal")
        shutil.copytree(self._copy, world.folder / "journal")
        journal = LmdbJournal.open(world.folder / "journal", IDENTITY, JOURNAL)
        await asyncio.sleep(0.5)
        journal.mark_restored(world.clock.now_ms(), EPOCH_JUMP)
        journal.close()
        await asyncio.sleep(0.5)
        self.calls_before = len(world.services.calls)
        await world.restart()

    def calls_since(self) -> list[Any]:
        return [call for _, call in self._world.services.calls[self.calls_before :]]


async def paid_after_the_backup(world: World) -> Backups:
    """Take a copy while an order waits for its payment; then let it go on to its end."""
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    await asyncio.sleep(0.3)
    backups = Backups(world)
    backups.take()
    world.services.let_go()
    world.services.fate = fates({})
    await world.outcome(request)
    return backups


@in_virtual_time
async def test_nothing_is_dispatched_cancelled_or_timed_out_before_every_step_was_asked_about(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=200).start()
    backups = await paid_after_the_backup(world)
    world.cut.add("notification")
    world.clock.wall_offset_ms += 3_600_000
    await backups.restore()
    await asyncio.sleep(20.0)
    verbs = {call.verb for call in backups.calls_since()}
    assert verbs == {QUESTION}
    assert {c.step for c in backups.calls_since()} == {
        "reserve_inventory",
        "process_payment",
        "schedule_shipping",
    }
    for operation in ("cancel", "force", "retry", "skip"):
        order = await world.order(operation, "order:1", "note")
        assert order.error == "ORDER_REFUSED"
        assert "ledgers_not_asked" in str(order.told)
    assert world.phase("order:1") is Phase.RUNNING
    assert world.journal.restored_at_ms() is not None
    world.cut.clear()
    # All four had happened: it is completed, though its deadline is long past.
    await world.rests("order:1")
    assert world.phase("order:1") is Phase.COMPLETED
    await until(lambda: world.journal.restored_at_ms() is None)
    assert not [c for c in backups.calls_since() if c.verb not in (QUESTION, RELEASE)]
    await world.finish()


@in_virtual_time
async def test_a_host_that_dies_while_it_asks_asks_again(world_folder: Path) -> None:
    world = await World(world_folder, reconcile_ms=200).start()
    backups = await paid_after_the_backup(world)
    world.cut.add("notification")
    await backups.restore()
    await asyncio.sleep(1.0)
    world.cut.clear()
    await world.restart()
    await world.rests("order:1")
    assert world.phase("order:1") is Phase.COMPLETED
    assert not [c for c in backups.calls_since() if c.verb not in (QUESTION, RELEASE)]
    await world.finish()


@in_virtual_time
async def test_what_had_turned_back_since_the_backup_is_turned_back(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD]})
    request = await world.submit()
    await until(lambda: world.services.held)
    await asyncio.sleep(0.3)
    backups = Backups(world)
    backups.take()
    world.services.script.refuses["schedule_shipping"] = "NO"
    world.services.let_go()
    assert (await world.outcome(request))["phase"] == "compensated"
    world.services.script.refuses.clear()
    await backups.restore()
    await world.rests("order:1")
    head = world.head("order:1")
    assert (head.phase, head.reason) == (Phase.COMPENSATED, "RESTORED")
    assert not [c for c in backups.calls_since() if c.verb == ACTION]
    await world.finish()


@in_virtual_time
async def test_a_step_without_an_undo_that_has_happened_means_forward_only(
    world_folder: Path,
) -> None:
    definition = pivot_saga()
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("check", ACTION): [Fate.HELD], ("ship", ACTION): Fate.LOST})
    request = await world.submit(definition=definition)
    await until(lambda: world.services.held)
    backups = Backups(world)
    backups.take()
    world.services.let_go()
    await until(lambda: world.services.standing("pivot:1") >= {"charge"})
    assert request.ok
    world.services.fate = fates({})
    world.clock.wall_offset_ms += 3_600_000
    await backups.restore()
    await world.rests("pivot:1")
    assert world.phase("pivot:1") is Phase.COMPLETED
    assert len(world.services.actions("charge")) == 1
    await world.finish()


@in_virtual_time
async def test_a_parked_saga_is_asked_about_too_before_anybody_can_send_it_on(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=200).start()
    world.services.script.refuses["process_payment"] = "NO"
    world.services.script.refuses_undo.add("reserve_inventory")
    await world.outcome(await world.submit())
    backups = Backups(world)
    backups.take()
    world.services.script.refuses_undo.clear()
    assert (await world.order("retry", "order:1")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    world.cut.add("inventory")
    await backups.restore()
    early = await world.order("skip", "order:1", "it is gone")
    assert "ledgers_not_asked" in str(early.told)
    world.cut.clear()
    await until(lambda: world.journal.restored_at_ms() is None)
    assert world.phase("order:1") is Phase.PARKED_BACKWARD
    assert world.engine.host.sagas == {}
    assert (await world.order("retry", "order:1")).ok == "accepted"
    await until(lambda: world.phase("order:1") is Phase.COMPENSATED)
    watch = await world.ask("watch", "order:1")
    assert (await world.outcome(watch))["remaining"] == []
    world.engine.kill()
    world.close()


@in_virtual_time
async def test_that_nobody_will_ever_know_is_an_answer_and_not_asked_for_ever(
    world_folder: Path,
) -> None:
    """A ledger row that is UNKNOWN for good: mail that was sent once, and cannot be asked for."""
    world = await World(world_folder, reconcile_ms=200).start()
    backups = await paid_after_the_backup(world)
    station = world.services.stations["notification"]
    key = StepKey(UUID, "order:1", "send_notification")
    raw = raw_key(*key)
    row = station.ledger.row(key)
    assert raw is not None and row is not None
    unknown = row._replace(status=LedgerStatus.UNKNOWN, answer=None)
    station.ledger.environment.write(lambda txn: txn.put(ROWS, raw, encode_row(raw, unknown)))
    await backups.restore()
    await world.rests("order:1", within_s=600)
    await until(lambda: world.journal.restored_at_ms() is None, within_s=60)
    world.crash()
    world.services.close()


@in_virtual_time
async def test_forgetting_goes_on_when_all_were_asked_even_if_one_cannot_be_read(
    world_folder: Path,
) -> None:
    """The unreadable one keeps the note open, and the rest is not held up by it."""
    world = await World(world_folder, reconcile_ms=200).start()
    definitions = type(world.journal).definitions
    await world.submit("lost")
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    await world.submit("stuck")
    await asyncio.sleep(0.3)
    type(world.journal).definitions = lambda _journal: {}  # type: ignore[method-assign]
    try:
        await world.restart()
    finally:
        type(world.journal).definitions = definitions  # type: ignore[method-assign]
    await world.rests("order:stuck")
    backups = Backups(world)
    backups.take()
    other = chain_saga("order", 2).to_data()
    type(world.journal).definitions = lambda j: dict.fromkeys(definitions(j), other)  # type: ignore[method-assign]
    try:
        await backups.restore()
        later = await world.submit("later")
        assert later.error == "DEFINITION_INVALID"
    finally:
        type(world.journal).definitions = definitions  # type: ignore[method-assign]
    world.caller.send("define", chain_saga("order", 4).to_data())
    await until(lambda: not world.journal.unreleased(10), within_s=60)
    assert world.journal.restored_at_ms() is not None
    # Asked about once somebody has made it readable, and only then sent on.
    world.services.fate = fates({})
    await world.restart()
    await until(lambda: world.journal.restored_at_ms() is None, within_s=60)
    assert (await world.order("retry", "order:stuck")).ok == "accepted"
    await until(lambda: world.phase("order:stuck") is Phase.COMPLETED)
    await world.finish()


@pytest.mark.parametrize("is_started", [False, True])
def test_a_saga_with_a_host_of_its_own_is_asked_about_whether_or_not_that_had_started(
    world_folder: Path, is_started: bool
) -> None:
    """Its first owner may be unknown to the backup, and have done everything since."""

    @in_virtual_time
    async def story() -> None:
        definition = chain_saga("own", 3)
        world = World(world_folder, reconcile_ms=200)
        world.launcher = DedicatedHosts(world)
        await world.start(definition)
        world.launcher.wait_s = 1.0
        if is_started:
            world.services.fate = fates({("s1", ACTION): [Fate.HELD]})
        request = await world.submit(definition=definition, dedicated=True)
        if is_started:
            await until(lambda: world.services.held)
        backups = Backups(world)
        backups.take()
        world.services.let_go()
        world.services.fate = fates({})
        assert (await world.outcome(request))["phase"] == "completed"
        world.launcher.kill("own:1")
        await backups.restore()
        await world.rests("own:1")
        assert world.phase("own:1") is Phase.COMPLETED
        await until(lambda: world.journal.restored_at_ms() is None, within_s=60)
        asked = [c for c in backups.calls_since() if c.verb in (ACTION, QUESTION)]
        assert {c.verb for c in asked} == {QUESTION}
        await world.finish()

    story()
