"""Group commit: order, silence before the disk, void batches, and what must stop the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from raysaga.actors.committer import BATCH_ENTRIES_MAX, FULL_RETRY_MS, GroupCommitter
from raysaga.statemachines.ids import Epoch, SagaId, Scope
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import (
    StaleEpochError,
    StorageFailedError,
    StorageFullError,
)
from raysaga.storage.journal import Birth, Entry

from .virtual_time import VirtualClock, in_virtual_time, turns, until

SCOPE = Scope("u/shard-0")
FULL = StorageFullError("here", "no room")


def entry(saga: str, seq: int) -> Entry:
    birth = Birth(SCOPE, saga, "f", "d", "h") if seq == 0 else None
    return Entry(SagaId(saga), seq, b"r", b"c" * 16, Phase.RUNNING, 1, "", "", None, birth)


class Writing:
    """A committer on a disk that the test owns.

    Attributes:
        batches: What each commit that was tried held, and whether it opened the head-room.
        written: Entries on disk, in order.
        told: What was called back, in order.
    """

    def __init__(self) -> None:
        self.clock = VirtualClock(asyncio.get_running_loop())  # type: ignore[arg-type]
        self.batches: list[tuple[list[str], bool]] = []
        self.written: list[str] = []
        self.told: list[str] = []
        self.fatal: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.trouble: Callable[[Sequence[Entry], bool], Exception | None] = lambda _e, _r: None
        self.committer = GroupCommitter(
            journal=self,  # type: ignore[arg-type]
            scope=SCOPE,
            epoch=Epoch(1),
            clock=self.clock,
            run_blocking=self._run,
            fatal=self.fatal.append,
        )
        self.committer.start()

    async def _run(self, call: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.001)
        await self.gate.wait()
        return call()

    def commit(
        self, scope: Scope, epoch: Epoch, entries: Sequence[Entry], *, from_reserve: bool
    ) -> None:
        assert (scope, epoch) == (SCOPE, 1)
        names = [f"{e.saga_id}{e.seq}" for e in entries]
        self.batches.append((names, from_reserve))
        error = self.trouble(entries, from_reserve)
        if error is not None:
            raise error
        self.written.extend(names)

    def put(self, *names: str) -> None:
        """Append entries such as `a0`; a callback notes what the disk held by then."""
        for name in names:
            saga, seq = name[:-1], int(name[-1])

            def done(name: str = name) -> None:
                assert name in self.written, f"{name} is told before it is on disk"
                self.told.append(name)

            def dropped(error: StorageFullError, name: str = name) -> None:
                assert error is FULL
                self.told.append(f"-{name}")

            self.committer.append(entry(saga, seq), done, dropped if seq == 0 else None)


@in_virtual_time
async def test_entries_are_written_and_told_in_their_order_one_commit_after_the_other() -> None:
    writing = Writing()
    writing.put("a0")
    await turns()
    writing.put("b0", "a1", "c0")
    await writing.committer.flushed()
    assert writing.batches == [(["a0"], False), (["b0", "a1", "c0"], False)]
    assert writing.told == writing.written == ["a0", "b0", "a1", "c0"]
    assert (writing.committer.commit_count, writing.committer.entry_count) == (2, 4)


@in_virtual_time
async def test_nobody_is_told_while_the_disk_has_not_answered() -> None:
    writing = Writing()
    writing.gate.clear()
    writing.put("a0", "b0")
    await asyncio.sleep(5.0)
    assert writing.told == []
    writing.gate.set()
    await until(lambda: writing.told == ["a0", "b0"])


@in_virtual_time
async def test_what_comes_during_a_commit_waits_for_the_next_one() -> None:
    writing = Writing()
    writing.gate.clear()
    writing.put("a0")
    await turns()
    writing.put("b0")
    writing.put("c0")
    assert writing.committer.queued_count == 2
    writing.gate.set()
    await writing.committer.flushed()
    assert [names for names, _ in writing.batches] == [["a0"], ["b0", "c0"]]


@in_virtual_time
async def test_a_batch_has_a_bound() -> None:
    writing = Writing()
    writing.put(*[f"s{i}x0" for i in range(BATCH_ENTRIES_MAX + 1)])
    await writing.committer.flushed()
    assert [len(names) for names, _ in writing.batches] == [BATCH_ENTRIES_MAX, 1]
    assert len(writing.told) == BATCH_ENTRIES_MAX + 1


@in_virtual_time
async def test_what_a_callback_appends_is_flushed_too() -> None:
    writing = Writing()
    writing.committer.append(entry("a", 0), lambda: writing.put("a1"))
    await writing.committer.flushed()
    assert writing.written == ["a0", "a1"]


@in_virtual_time
async def test_a_void_batch_drops_births_and_writes_the_rest_first_from_the_head_room() -> None:
    """6a.10: what was queued behind the batch must not overtake it."""
    writing = Writing()
    writing.trouble = lambda _entries, reserve: None if reserve else FULL
    writing.gate.clear()
    writing.put("a1", "b0", "c3", "d0")
    await turns()
    writing.put("e1")
    writing.gate.set()
    await writing.committer.flushed()
    assert writing.batches == [
        (["a1", "b0", "c3", "d0"], False),
        (["a1", "c3"], True),
        (["e1"], False),
        (["e1"], True),
    ]
    assert writing.told == ["-b0", "-d0", "a1", "c3", "e1"]
    assert writing.committer.is_full


@in_virtual_time
async def test_a_dropped_birth_takes_its_later_records_along_wherever_they_are() -> None:
    writing = Writing()
    writing.trouble = lambda _entries, reserve: None if reserve else FULL
    writing.gate.clear()
    writing.put("b0", "b1", "a1")
    await turns()
    writing.put("b2", "a2")
    writing.gate.set()
    await writing.committer.flushed()
    assert writing.written == ["a1", "a2"]
    assert writing.told == ["-b0", "a1", "a2"]


@in_virtual_time
async def test_other_births_wait_for_their_own_batch() -> None:
    """Whether the journal still is full then is found out then."""
    writing = Writing()
    losses = [FULL]
    writing.trouble = lambda _entries, _reserve: losses.pop() if losses else None
    writing.gate.clear()
    writing.put("a0", "b1")
    await turns()
    writing.put("c0")
    writing.gate.set()
    await writing.committer.flushed()
    assert writing.told == ["-a0", "b1", "c0"]
    assert not writing.committer.is_full


@in_virtual_time
async def test_what_must_be_kept_is_tried_until_there_is_room_and_nothing_overtakes_it() -> None:
    writing = Writing()
    writing.trouble = lambda _entries, _reserve: FULL
    writing.put("a1")
    await asyncio.sleep(FULL_RETRY_MS * 5 / 1_000)
    writing.put("b1")
    assert writing.told == []
    assert len(writing.batches) >= 4
    assert all(names == ["a1"] for names, _ in writing.batches)
    writing.trouble = lambda _entries, _reserve: None
    await writing.committer.flushed()
    assert writing.told == ["a1", "b1"]


@in_virtual_time
async def test_it_notices_when_there_is_room_again() -> None:
    writing = Writing()
    losses = [FULL]
    writing.trouble = lambda _entries, _reserve: losses.pop() if losses else None
    writing.put("a0")
    await writing.committer.flushed()
    assert writing.committer.is_full
    writing.put("b0")
    await writing.committer.flushed()
    assert (writing.committer.is_full, writing.told) == (False, ["-a0", "b0"])


@pytest.mark.parametrize(
    "error",
    [
        StorageFailedError("here", "EIO"),
        StaleEpochError("scope", 1, 2),
        OSError("what the driver did not expect"),
        AssertionError("a bug of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("from_reserve", [False, True])
def test_any_other_error_stops_everything_and_answers_nobody(
    error: Exception, from_reserve: bool
) -> None:
    @in_virtual_time
    async def story() -> None:
        writing = Writing()
        writing.trouble = lambda _entries, reserve: FULL if from_reserve and not reserve else error
        writing.put("a1", "b1")
        await turns()
        writing.put("c1")
        await asyncio.sleep(5.0)
        assert writing.fatal == [error]
        assert writing.told == []
        writing.put("d1")
        await asyncio.sleep(5.0)
        assert (writing.fatal, writing.told, writing.written) == ([error], [], [])

    story()


@in_virtual_time
async def test_a_callback_that_fails_stops_the_process_too() -> None:
    """It leaves a saga in a state that nobody decided."""
    writing = Writing()
    broken = ZeroDivisionError("a bug of ours")

    def done() -> None:
        raise broken

    writing.committer.append(entry("a", 1), done)
    writing.put("b1")
    await asyncio.sleep(1.0)
    assert writing.fatal == [broken]
    assert writing.told == []


@in_virtual_time
async def test_a_stopped_committer_writes_and_tells_nothing_more() -> None:
    writing = Writing()
    writing.gate.clear()
    writing.put("a0")
    await turns()
    await writing.committer.stop()
    writing.gate.set()
    writing.put("b0")
    await asyncio.sleep(1.0)
    assert (writing.told, writing.fatal) == ([], [])


@in_virtual_time
async def test_the_proof_of_ownership_is_as_old_as_the_beginning_of_the_last_commit() -> None:
    """A commit compares the epoch; had it waited long, the comparison is that old."""
    writing = Writing()
    began_at_ms = writing.clock.now_ms()
    writing.gate.clear()
    writing.put("a0")
    await asyncio.sleep(3.0)
    writing.gate.set()
    await writing.committer.flushed()
    assert writing.committer.checked_at_ms <= began_at_ms + 1
