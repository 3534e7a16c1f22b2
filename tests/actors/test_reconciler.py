"""The standing loop: takes up what nobody drives, has ended sagas forgotten, prunes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.actors.bulk_release import parts_of
from raysaga.actors.reconciler import PRUNE_EVERY_SWEEPS
from raysaga.statemachines.calls import ACTION, RELEASE
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StaleEpochError, StorageFailedError, StorageFullError
from raysaga.storage.journal import HeadFilter

from .recipes import chain_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import World


def released(world: World, saga_id: str) -> list[str]:
    """Return the steps of a saga that participants were told to forget, as often as they were."""
    parts = [parts_of(c) or [c] for _, c in world.services.calls if c.verb == RELEASE]
    return [c.step for calls in parts for c in calls if c.saga_id == saga_id]


@in_virtual_time
async def test_all_that_an_earlier_owner_left_is_taken_up_and_finished(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.LOST})
    requests = [await world.submit(str(i)) for i in range(300)]
    await asyncio.sleep(0.2)
    world.services.fate = fates({})
    await world.restart()
    assert world.engine.reconciler.recovered_count == 300
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    # Who died once without progress is no suspect.
    assert world.engine.reconciler._suspects == []
    await world.finish()


@in_virtual_time
async def test_a_waiting_retry_and_a_deadline_outlive_the_host(world_folder: Path) -> None:
    definition = chain_saga("slow", 3, deadline_ms=20_000)
    world = await World(world_folder).start(definition)
    world.services.script.later = {"s1": 10_000}
    request = await world.submit(definition=definition)
    world.services.fate = fates({("s1", ACTION): Fate.LOST})
    await asyncio.sleep(0.3)
    world.crash()
    await asyncio.sleep(30.0)
    world.services.script.later = {}
    await world.restart()
    outcome = await world.outcome(request)
    assert (outcome["phase"], outcome["code"]) == ("compensated", "DEADLINE_EXCEEDED")
    await world.finish()


@in_virtual_time
async def test_a_saga_that_nobody_drives_is_found_by_the_next_sweep(world_folder: Path) -> None:
    """However it came about: recovery is a loop, not a start-up event."""
    world = await World(world_folder, reconcile_ms=500).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.LOST]})
    request = await world.submit()
    await asyncio.sleep(0.2)
    del world.engine.host.sagas["order:1"]
    watch = await world.ask("watch", "none:1")
    assert watch.error == "NOT_FOUND"
    late = world.caller.send("watch", {"saga_id": "order:1"})
    assert (await world.outcome(late))["phase"] == "completed"
    again = await world.submit()
    assert (await world.outcome(again))["phase"] == "completed"
    assert request.ok == "accepted"
    await world.finish()


@in_virtual_time
async def test_an_order_to_a_saga_that_nobody_drives_takes_it_up_and_watchers_hear(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=3_600_000).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.LOST]})
    await world.submit(watch=False)
    await asyncio.sleep(0.2)
    del world.engine.host.sagas["order:1"]
    watch = world.caller.send("watch", {"saga_id": "order:1"})
    await asyncio.sleep(0.2)
    assert (await world.order("cancel", "order:1")).ok == "accepted"
    assert (await world.outcome(watch, within_s=30))["phase"] == "compensated"
    await world.finish()


@in_virtual_time
async def test_participants_are_told_to_forget_and_then_so_does_the_journal(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=100, retention_ms=60_000).start()
    for key in ("1", "2"):
        await world.outcome(await world.submit(key))
    await until(lambda: len(released(world, "order:1")) == 4, within_s=5)
    await until(lambda: not world.journal.unreleased(10), within_s=10)
    assert len(world.journal.records("order:1")) > 0
    rows = [row for s in world.services.stations.values() for row in s.ledger.rows()]
    assert all(row.is_released for row in rows)
    await until(lambda: world.journal.head("order:1") is None, within_s=120)
    known = world.journal.key_record("order:1")
    assert known is not None and known.phase is Phase.COMPLETED
    assert len(released(world, "order:1")) == 4
    await world.finish()


@in_virtual_time
async def test_what_is_under_way_or_parked_is_neither_released_nor_pruned(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=100, retention_ms=0).start()
    world.services.script.refuses["schedule_shipping"] = "NO"
    world.services.script.refuses_undo.add("reserve_inventory")
    await world.outcome(await world.submit("parked"))
    world.services.script.refuses.clear()
    world.services.fate = fates({("process_payment", ACTION): Fate.HELD})
    slow = await world.submit("slow")
    await asyncio.sleep(4.0)
    assert released(world, "order:parked") == released(world, "order:slow") == []
    world.services.let_go()
    await world.outcome(slow)
    await asyncio.sleep(30.0)
    assert world.phase("order:parked") is Phase.PARKED_BACKWARD
    world.services.script.refuses_undo.clear()
    assert (await world.order("retry", "order:parked")).ok == "accepted"
    await until(lambda: world.journal.head("order:parked") is None, within_s=60)
    await world.finish()


@in_virtual_time
async def test_a_participant_that_is_away_is_told_later_and_not_ten_times_a_second(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=1_000).start()
    for i in range(20):
        await world.outcome(await world.submit(str(i)))
    world.cut.add("shipping")
    sent_before = world.engine.host.dispatcher("payment").sent_count
    await asyncio.sleep(20.0)
    # The others are asked again with it; that must stay within bounds.
    sent = world.engine.host.dispatcher("payment").sent_count - sent_before
    assert sent <= 20 * 25
    assert len(world.journal.unreleased(100)) == 20
    world.cut.clear()
    await until(lambda: not world.journal.unreleased(100), within_s=30)
    await world.finish()


@in_virtual_time
async def test_releases_follow_each_other_while_there_are_any(world_folder: Path) -> None:
    """One group was told at each sweep, so more sagas ended a second than were released."""
    world = await World(world_folder, reconcile_ms=60_000, release_items_max=2).start()
    for i in range(20):
        await world.outcome(await world.submit(str(i)))
    assert world.journal.unreleased(100), "the first sweep is a minute away"
    await until(lambda: not world.journal.unreleased(100), within_s=70)
    assert len(released(world, "order:19")) == 4
    await world.finish()


@in_virtual_time
async def test_a_host_that_dies_while_it_releases_does_it_again(world_folder: Path) -> None:
    world = await World(world_folder, reconcile_ms=100).start()
    world.cut.add("desk")
    world.caller.send("stats", {})
    world.cut.clear()
    await world.outcome(await world.submit())
    await until(lambda: released(world, "order:1"))
    await world.restart()
    await until(lambda: not world.journal.unreleased(10), within_s=20)
    assert len(released(world, "order:1")) >= 4
    await world.finish()


@in_virtual_time
async def test_a_key_is_forgotten_only_after_its_own_retention(world_folder: Path) -> None:
    world = await World(
        world_folder, reconcile_ms=100, retention_ms=0, key_retention_ms=600_000
    ).start()
    await world.outcome(await world.submit())
    await until(lambda: world.journal.head("order:1") is None, within_s=60)
    assert (await world.submit(fingerprint="other")).error == "IDEMPOTENCY_CONFLICT"
    await asyncio.sleep(700.0)
    assert world.journal.key_record("order:1") is None
    world.close()


@pytest.mark.parametrize("what", ["prune", "prune_keys", "mark_released"])
def test_no_room_to_forget_is_no_reason_to_stop(world_folder: Path, what: str) -> None:
    """Even deleting takes pages; when there is room again, it goes on."""

    @in_virtual_time
    async def story() -> None:
        world = await World(world_folder, reconcile_ms=50, retention_ms=0).start()
        tries = 0

        def no_room(*_args: object) -> None:
            nonlocal tries
            tries += 1
            raise StorageFullError("journal", "not even for that")

        setattr(world.engine.disk, what, no_room)
        await world.outcome(await world.submit())
        await until(lambda: tries >= 2, within_s=60)
        assert (await world.outcome(await world.submit("2")))["phase"] == "completed"
        delattr(world.engine.disk, what)
        await until(lambda: world.journal.head("order:1") is None, within_s=60)
        await world.finish()

    story()


@in_virtual_time
async def test_a_damaged_journal_stops_the_host(world_folder: Path) -> None:
    world = await World(world_folder, reconcile_ms=50).start()
    world.may_stop = True

    def damaged(*_args: object) -> None:
        raise StorageFailedError("journal", "a page is gone")

    world.engine.disk.counts = damaged  # type: ignore[attr-defined]
    await until(lambda: world.engine.fatal)
    assert isinstance(world.engine.fatal, StorageFailedError)
    world.close()


@in_virtual_time
async def test_an_idle_reconciler_costs_next_to_nothing(world_folder: Path) -> None:
    world = await World(world_folder).start()
    for i in range(10):
        await world.outcome(await world.submit(str(i)))
    await until(lambda: not world.journal.unreleased(10))
    await asyncio.sleep(5.0)
    calls, commits = len(world.services.calls), len(world.engine.disk.attempts)
    looks = 0
    counts = world.journal.counts

    def counted():  # type: ignore[no-untyped-def]
        nonlocal looks
        looks += 1
        return counts()

    world.engine.disk.counts = counted  # type: ignore[attr-defined]
    await asyncio.sleep(60.0)
    assert (len(world.services.calls), len(world.engine.disk.attempts)) == (calls, commits)
    assert looks <= 60_000 / world.settings.reconcile_ms + 1 < PRUNE_EVERY_SWEEPS * 2
    await world.finish()


@in_virtual_time
async def test_an_older_owner_stops_when_it_has_nothing_left_but_to_have_sagas_forgotten(
    world_folder: Path,
) -> None:
    world = await World(world_folder, reconcile_ms=1_000).start()
    await world.outcome(await world.submit())
    zombie = world.engine
    world.services.fate = lambda call: (
        Fate.LOST if call.verb == RELEASE and call.epoch == 2 else Fate.ARRIVES
    )
    await world.restart(beside=True)
    await world.outcome(await world.submit("2"))
    await until(lambda: zombie.fatal is not None, within_s=20)
    assert isinstance(zombie.fatal, StaleEpochError)
    assert len(world.journal.heads(HeadFilter(), limit=10)) == 2
    await world.finish()
