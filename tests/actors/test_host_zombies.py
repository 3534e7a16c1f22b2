"""Two hosts of one scope: only the newer one makes progress, whatever the older one does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raysaga.statemachines.calls import ACTION, COMPENSATION, Code, Outcome, StepCall
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import StaleEpochError

from .recipes import chain_saga, pivot_saga
from .toy_services import Fate, fates
from .virtual_time import in_virtual_time, until
from .world import World


def by_epoch(world: World, epoch: int) -> list[StepCall]:
    """Return what took effect for the host of that epoch."""
    return [
        said.call
        for said in world.services.said
        if said.call.epoch == epoch
        and said.call.verb in (ACTION, COMPENSATION)
        and said.reply.outcome == Outcome.SUCCEEDED
        and not said.reply.duplicate
    ]


@in_virtual_time
async def test_an_older_host_is_fenced_at_a_participant_and_stops(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.HELD_BACK]})
    request = await world.submit()
    await until(lambda: world.services.held)
    zombie = world.engine
    await world.restart(beside=True)
    assert (await world.outcome(request))["phase"] == "completed"
    # The answer that the older one waited for comes now, and it goes on to ship.
    world.services.let_go()
    await until(lambda: zombie.fatal)
    assert isinstance(zombie.fatal, StaleEpochError)
    assert {c.step for c in by_epoch(world, 1)} == {"reserve_inventory", "process_payment"}
    fenced = [s for s in world.services.said if s.reply.code == Code.FENCED]
    assert not fenced or {s.call.epoch for s in fenced} == {1}
    await world.finish()


@in_virtual_time
async def test_an_older_host_is_fenced_at_the_journal_and_answers_nobody(
    world_folder: Path,
) -> None:
    world = await World(world_folder).start()
    zombie = world.engine
    await world.restart(beside=True)
    old_friend = world.call("old friend", zombie)
    request = world.send_order(caller=old_friend)
    cancel = old_friend.send("cancel", {"saga_id": "order:none", "by": "me"})
    await until(lambda: zombie.fatal)
    assert request.told == []
    assert cancel.error in (None, "NOT_FOUND")
    assert world.journal.head("order:1") is None  # type: ignore[arg-type]
    assert (await world.outcome(await world.submit()))["phase"] == "completed"
    assert by_epoch(world, 1) == []
    await world.finish()


@pytest.mark.parametrize("at", range(16))
def test_a_host_that_was_frozen_anywhere_and_wakes_beside_the_new_one_does_no_harm(
    world_folder: Path, at: int
) -> None:
    """As by SIGSTOP: at its moment number `at` it stands still until the new one has finished."""

    @in_virtual_time
    async def story() -> None:
        definition = pivot_saga()
        world = await World(world_folder).start(definition)
        world.moments.clear()
        frozen = world.engine
        pass_moment = world.pass_moment
        thaw = asyncio.Event()

        async def stand_still(what: str, engine: object) -> None:
            if engine is frozen and len(world.moments) >= at:
                await thaw.wait()
            await pass_moment(what, engine)  # type: ignore[arg-type]

        world.pass_moment = stand_still  # type: ignore[method-assign]
        request = world.send_order(definition=definition)
        await asyncio.sleep(0.4)
        await world.restart(beside=True)
        again = world.send_order(definition=definition, caller=world.call("again"))
        await until(lambda: again.ended)
        thaw.set()
        await asyncio.sleep(8.0)
        assert world.phase("pivot:1") is Phase.COMPLETED
        assert all(r.ended["phase"] == "completed" for r in (request, again) if r.ended)
        if frozen.fatal is None:
            # It has found nothing left to do, and may not have noticed yet.
            assert frozen.host.sagas == {}
        await world.finish()

    story()


@in_virtual_time
async def test_the_actions_of_a_zombie_die_after_a_bounded_time(world_folder: Path) -> None:
    """6a.8: their expiry counts from the last proof of ownership, which it cannot renew."""
    world = await World(world_folder, action_life_ms=2_000).start()
    world.services.fate = fates({("process_payment", ACTION): Fate.HELD})
    request = await world.submit()
    await until(lambda: world.services.held)
    call = world.services.held[0][0]
    assert call.expires_at_ms is not None
    proof_age_ms = world.clock.now_ms() - (call.expires_at_ms - 5_000)
    assert 0 <= proof_age_ms <= world.settings.epoch_check_ms + 10
    assert world.services.undos() == []
    await asyncio.sleep(6.0)
    world.services.fate = fates({})
    world.services.let_go(lambda held: held is call)
    late = [s.reply for s in world.services.said if s.call is call]
    await until(lambda: [s.reply for s in world.services.said if s.call is call])
    late = [s.reply for s in world.services.said if s.call is call]
    assert late[0].code in (Code.EXPIRED, Code.CANCELLED_BEFORE_START) or late[0].duplicate
    assert (await world.outcome(request))["phase"] in ("completed", "compensated")
    await world.finish()


@in_virtual_time
async def test_a_host_looks_at_the_journal_again_before_it_sends_on_an_old_proof(
    world_folder: Path,
) -> None:
    """Without the look, the call would leave, and only the participants' fence would hold it."""
    definition = chain_saga("order", 3)
    world = await World(world_folder).start(definition)
    world.services.fate = fates({("s1", ACTION): [Fate.HELD_BACK]})
    await world.submit(definition=definition, watch=False)
    await until(lambda: world.services.held)
    zombie = world.engine
    # A newer owner that nobody else has heard of: no commit, no call, only the grant.
    world.journal.grant_epoch(zombie.host.scope, "newer", world.clock.now_ms())
    await asyncio.sleep(0.2)
    world.may_stop = True
    world.services.let_go()
    await until(lambda: zombie.fatal)
    assert world.services.actions("s2") == []
    await world.restart()
    await world.rests("order:1")
    assert world.phase("order:1") is Phase.COMPLETED
    await world.finish()


@in_virtual_time
async def test_two_hosts_that_start_at_the_same_time_leave_one(world_folder: Path) -> None:
    world = await World(world_folder).start()
    world.services.fate = fates({("process_payment", ACTION): [Fate.LOST] * 3})
    requests = [await world.submit(str(i)) for i in range(20)]
    await world.restart(beside=True)
    await world.restart(beside=True)
    for request in requests:
        assert (await world.outcome(request))["phase"] == "completed"
    assert world.engine.fatal is None
    await until(lambda: not world.zombies, within_s=60)
    await world.finish()
