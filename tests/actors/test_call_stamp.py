"""Calls carry a fresh proof of ownership, and numbers of their own."""

from __future__ import annotations

import asyncio

import pytest

from raysaga.actors.call_stamp import CallStamp
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import ACTION, COMPENSATION, QUESTION, StepCall
from raysaga.statemachines.ids import SagaId, Scope
from raysaga.storage.errors import StaleEpochError
from raysaga.storage.journal import JournalIdentity
from raysaga.storage.memory_journal import MemoryJournal

from .recipes import step
from .virtual_time import VirtualClock, in_virtual_time

SCOPE = Scope("u/shard-0")
SETTINGS = EngineSettings(epoch_check_ms=50, action_life_ms=60_000)


class Owner:
    """A stamp, and the journal that tells who owns the scope."""

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())  # type: ignore[arg-type]
        self.journal = MemoryJournal(JournalIdentity(uuid="u", shard=0, shard_count=1))
        epoch = self.journal.grant_epoch(SCOPE, "me", 1)
        self.stamp = CallStamp(self.journal, SCOPE, epoch, self.clock, SETTINGS)

    def call(self, verb: int = ACTION, timeout_ms: int = 5_000) -> StepCall:
        made = step("s", timeout_ms=timeout_ms)
        return self.stamp.call(verb, SagaId("d:1"), made, "do", {}, 1)


@in_virtual_time
async def test_a_fresh_proof_is_not_renewed_and_an_old_one_is() -> None:
    owner = Owner()
    began_at_ms = owner.clock.now_ms()
    await asyncio.sleep(0.05)
    owner.stamp.prove(0)
    assert owner.stamp.checked_at_ms == began_at_ms
    await asyncio.sleep(0.001)
    owner.stamp.prove(0)
    assert owner.stamp.checked_at_ms == owner.clock.now_ms()


@in_virtual_time
async def test_a_commit_that_compared_epochs_is_a_proof() -> None:
    owner = Owner()
    await asyncio.sleep(10.0)
    seen_at_ms = owner.clock.now_ms() - 20
    owner.stamp.prove(seen_at_ms)
    assert owner.stamp.checked_at_ms == seen_at_ms


@in_virtual_time
async def test_who_was_replaced_gets_no_proof() -> None:
    owner = Owner()
    owner.journal.grant_epoch(SCOPE, "newer", 2)
    await asyncio.sleep(0.051)
    with pytest.raises(StaleEpochError) as raised:
        owner.stamp.prove(0)
    assert (raised.value.held, raised.value.current) == (1, 2)


@in_virtual_time
async def test_a_wall_clock_that_was_put_back_makes_no_old_proof_fresh() -> None:
    owner = Owner()
    owner.clock.wall_offset_ms = -3_600_000
    owner.stamp.prove(0)
    assert owner.stamp.checked_at_ms == owner.clock.now_ms()


@in_virtual_time
async def test_an_action_dies_a_bounded_time_after_the_proof_and_nothing_else_does() -> None:
    owner = Owner()
    proof_at_ms = owner.stamp.checked_at_ms
    assert owner.call().expires_at_ms == proof_at_ms + 60_000
    # Never before its sender stops waiting for it.
    assert owner.call(timeout_ms=300_000).expires_at_ms == proof_at_ms + 300_000
    assert owner.call(COMPENSATION).expires_at_ms is None
    assert owner.call(QUESTION).expires_at_ms is None


@in_virtual_time
async def test_no_two_calls_have_the_same_number_and_each_says_who_sends_it() -> None:
    owner = Owner()
    calls = [owner.call(verb) for verb in (ACTION, COMPENSATION, QUESTION) * 20]
    calls.append(owner.stamp.bulk_release([["d:1", "s", "do", "completed"]]))
    assert len({call.call_id for call in calls}) == len(calls)
    assert {(call.journal_uuid, call.scope, call.epoch) for call in calls} == {("u", SCOPE, 1)}
