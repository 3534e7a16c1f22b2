"""What every journal must do, in memory or on disk. Each is verified after each test."""

from __future__ import annotations

import pytest

from raysaga.statemachines.ids import Epoch, SagaId
from raysaga.statemachines.tables import Phase
from raysaga.storage.errors import SequenceError, StaleEpochError, StorageFullError
from raysaga.storage.journal import Entry, HeadFilter, Journal
from raysaga.storage.verify import verify_journal

from .stories import (
    DEFINITION_HASH,
    NOW_MS,
    OTHER_SCOPE,
    SCOPE,
    Story,
    prepare,
    write_completed,
)

UNKNOWN = SagaId("order:unknown")


def ids(heads: list) -> list[str]:
    return [head.saga_id for head in heads]


def test_what_was_committed_is_read_back(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted(due_at_ms=NOW_MS + 50)])
    journal.commit(SCOPE, epoch, [story.progressed()])
    head = journal.head(story.saga_id)
    assert head is not None
    assert (head.seq, head.phase, head.scope) == (1, Phase.RUNNING, SCOPE)
    assert head.chain == story.entries[-1].chain
    assert (head.accepted_at_ms, head.changed_at_ms) == (NOW_MS, NOW_MS + 1)
    assert (head.fingerprint, head.definition_hash) == (story.fingerprint, DEFINITION_HASH)
    assert head.due_at_ms is None
    assert journal.records(story.saga_id) == [entry.record for entry in story.entries]
    record = journal.key_record(story.saga_id)
    assert record is not None and record.fingerprint == story.fingerprint


def test_nothing_is_known_of_a_saga_that_never_was(journal: Journal) -> None:
    prepare(journal)
    assert journal.head(UNKNOWN) is None
    assert journal.key_record(UNKNOWN) is None
    assert journal.records(UNKNOWN) == []
    assert list(journal.active()) == []
    assert sum(journal.counts().values()) == 0
    with pytest.raises(KeyError):
        journal.heads(HeadFilter(), limit=1, after=UNKNOWN)


def test_several_records_of_one_saga_fit_into_one_batch(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    other = Story("b", epoch=epoch)
    batch = [story.accepted(due_at_ms=NOW_MS + 9), other.accepted(), story.turned_back()]
    journal.commit(SCOPE, epoch, [*batch, other.completed(), story.compensated()])
    head = journal.head(story.saga_id)
    assert head is not None and head.seq == 2
    assert (head.phase, head.reason, head.step) == (
        Phase.COMPENSATED,
        "OUT_OF_STOCK",
        "reserve_inventory",
    )
    assert journal.due_before(NOW_MS + 100, 10) == []
    assert list(journal.active()) == []


def test_a_journal_without_an_owner_is_at_epoch_zero_and_each_grant_adds_one(
    journal: Journal,
) -> None:
    assert journal.epoch(SCOPE) == 0
    assert journal.grant_epoch(SCOPE, "first", NOW_MS) == 1
    assert journal.grant_epoch(SCOPE, "second", NOW_MS) == 2
    assert journal.epoch(SCOPE) == 2
    assert journal.epoch(OTHER_SCOPE) == 0


def test_the_older_of_two_incarnations_is_refused_and_leaves_nothing(journal: Journal) -> None:
    old = prepare(journal)
    story = Story("a", epoch=old)
    journal.commit(SCOPE, old, [story.accepted()])
    new = journal.grant_epoch(SCOPE, "successor", NOW_MS)
    before = journal.head(story.saga_id)
    with pytest.raises(StaleEpochError) as caught:
        journal.commit(SCOPE, old, [story.progressed(), Story("b", epoch=old).accepted()])
    assert (caught.value.held, caught.value.current) == (old, new)
    assert journal.head(story.saga_id) == before
    assert journal.key_record(SagaId("order:b")) is None


def test_the_newer_incarnation_goes_on_where_the_older_one_stopped(journal: Journal) -> None:
    """What one owner remembers of a saga's place must not outlive its ownership."""
    first = prepare(journal)
    story = Story("a", epoch=first)
    journal.commit(SCOPE, first, [story.accepted()])
    second = journal.grant_epoch(SCOPE, "second", NOW_MS)
    story.epoch = second
    journal.commit(SCOPE, second, [story.progressed()])
    third = journal.grant_epoch(SCOPE, "third", NOW_MS)
    story.epoch = third
    journal.commit(SCOPE, third, [story.completed()])
    assert len(journal.records(story.saga_id)) == 3


def test_an_epoch_that_was_never_granted_is_refused(journal: Journal) -> None:
    prepare(journal)
    with pytest.raises(StaleEpochError):
        journal.commit(SCOPE, Epoch(2), [Story("a", epoch=2).accepted()])
    with pytest.raises(StaleEpochError):
        journal.commit(OTHER_SCOPE, Epoch(1), [Story("a", scope=OTHER_SCOPE).accepted()])


def test_a_commit_without_entries_compares_the_epoch(journal: Journal) -> None:
    epoch = prepare(journal)
    journal.commit(SCOPE, epoch, [])
    journal.grant_epoch(SCOPE, "successor", NOW_MS)
    with pytest.raises(StaleEpochError):
        journal.commit(SCOPE, epoch, [])


def test_only_the_owner_of_its_scope_writes_to_a_saga_after_its_birth(journal: Journal) -> None:
    shard = prepare(journal)
    story = Story("dedicated", epoch=shard, scope=OTHER_SCOPE)
    journal.commit(SCOPE, shard, [story.accepted()])
    with pytest.raises(StaleEpochError) as caught:
        journal.commit(SCOPE, shard, [story.progressed()])
    assert caught.value.scope == OTHER_SCOPE
    story.entries.pop()
    dedicated = journal.grant_epoch(OTHER_SCOPE, "its own actor", NOW_MS)
    journal.commit(OTHER_SCOPE, dedicated, [story.progressed()])
    assert len(journal.records(story.saga_id)) == 2


def test_a_gap_and_a_repeat_are_refused_with_the_whole_batch(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted()])
    second, third = story.progressed(), story.completed()
    with pytest.raises(SequenceError) as caught:
        journal.commit(SCOPE, epoch, [Story("b", epoch=epoch).accepted(), third])
    assert (caught.value.expected, caught.value.found) == (1, 2)
    assert journal.key_record(SagaId("order:b")) is None
    journal.commit(SCOPE, epoch, [second])
    with pytest.raises(SequenceError) as caught:
        journal.commit(SCOPE, epoch, [second])
    assert (caught.value.expected, caught.value.found) == (2, 1)
    journal.commit(SCOPE, epoch, [third])


def test_a_saga_is_born_once(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    accepted = story.accepted()
    with pytest.raises(SequenceError):
        journal.commit(SCOPE, epoch, [accepted, accepted])
    journal.commit(SCOPE, epoch, [accepted])
    with pytest.raises(SequenceError) as caught:
        journal.commit(SCOPE, epoch, [Story("b", epoch=epoch).accepted(), accepted])
    assert (caught.value.saga_id, caught.value.expected) == (story.saga_id, 1)
    assert journal.key_record(SagaId("order:b")) is None


def test_a_record_of_a_saga_that_was_not_born_is_refused(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    story.accepted()
    with pytest.raises(SequenceError) as caught:
        journal.commit(SCOPE, epoch, [story.progressed()])
    assert caught.value.expected == 0


def test_a_terminal_answer_never_changes(journal: Journal) -> None:
    epoch = prepare(journal)
    (story,) = write_completed(journal, epoch, ["a"])
    with pytest.raises(AssertionError):
        journal.commit(SCOPE, epoch, [story.turned_back()])
    head = journal.head(story.saga_id)
    assert head is not None and head.phase is Phase.COMPLETED


def test_a_saga_needs_a_definition_that_is_kept(journal: Journal) -> None:
    epoch = journal.grant_epoch(SCOPE, "tests", NOW_MS)
    with pytest.raises(AssertionError):
        journal.commit(SCOPE, epoch, [Story("a", epoch=epoch).accepted()])
    prepare(journal)
    assert set(journal.definitions()) == {DEFINITION_HASH}


def test_active_sagas_are_listed_oldest_first_parked_ones_included(journal: Journal) -> None:
    epoch = prepare(journal)
    stories = [Story(f"k{i}", epoch=epoch, at_ms=NOW_MS + i) for i in range(600)]
    journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
    journal.commit(SCOPE, epoch, [story.completed() for story in stories[:300:2]])
    journal.commit(SCOPE, epoch, [stories[1].parked()])
    expected = [s.saga_id for s in stories[1:300:2]] + [s.saga_id for s in stories[300:]]
    assert [head.saga_id for head in journal.active()] == expected
    counts = journal.counts()
    assert counts[Phase.COMPLETED] == 150
    assert counts[Phase.PARKED_RUNNING] == 1
    assert counts[Phase.RUNNING] == 449


def test_pages_of_heads_follow_each_other_both_ways(journal: Journal) -> None:
    epoch = prepare(journal)
    stories = write_completed(journal, epoch, [f"k{i}" for i in range(7)])
    expected = [story.saga_id for story in stories]
    for newest in (True, False):
        listed: list[str] = []
        after = None
        while page := journal.heads(HeadFilter(), limit=3, after=after, newest=newest):
            listed += ids(page)
            after = page[-1].saga_id
        assert listed == (expected[::-1] if newest else expected)


@pytest.mark.parametrize("newest", [True, False])
def test_a_look_is_at_no_more_sagas_than_it_may_be_and_the_next_goes_on(
    journal: Journal, newest: bool
) -> None:
    epoch = prepare(journal)
    write_completed(journal, epoch, [f"k{i}" for i in range(7)])
    rare = Story("rare", epoch=epoch)
    journal.commit(SCOPE, epoch, [rare.accepted(), rare.parked()])
    write_completed(journal, epoch, [f"l{i}" for i in range(4)])
    wanted = HeadFilter(reason=journal.heads(HeadFilter(), limit=5)[4].reason)
    looks = [journal.look(wanted, limit=2, rows_max=3, newest=newest)]
    while looks[-1].last is not None:
        after = looks[-1].last
        looks.append(journal.look(wanted, limit=2, rows_max=3, after=after, newest=newest))
    assert [ids(look.heads) for look in looks if look.heads] == [[rare.saga_id]]
    assert len(looks) == 12 // 3 + 1
    every = journal.look(HeadFilter(), limit=2, rows_max=9, newest=newest)
    assert (len(every.heads), every.last) == (2, every.heads[-1].saga_id)
    assert journal.look(HeadFilter(), limit=0, rows_max=9, newest=newest).heads == []


def test_a_filter_wants_all_of_its_conditions(journal: Journal) -> None:
    epoch = prepare(journal)
    parked, turned, running = (Story(k, epoch=epoch, at_ms=NOW_MS + i) for i, k in enumerate("abc"))
    batch = [story.accepted() for story in (parked, turned, running)]
    journal.commit(SCOPE, epoch, [*batch, parked.parked(), turned.turned_back()])

    def found(**conditions: object) -> list[str]:
        return sorted(ids(journal.heads(HeadFilter(**conditions), limit=10)))  # type: ignore[arg-type]

    assert found(phases=frozenset({Phase.PARKED_RUNNING})) == ["order:a"]
    assert found(phases=frozenset({Phase.COMPLETED})) == []
    assert found(reason="OUT_OF_STOCK") == ["order:b"]
    assert found(step="reserve_inventory") == ["order:a", "order:b"]
    assert found(step="reserve_inventory", reason="UNKNOWN_OUTCOME") == ["order:a"]
    assert found(definition="order") == ["order:a", "order:b", "order:c"]
    assert found(definition="other") == []
    assert found(accepted_from_ms=NOW_MS + 1) == ["order:b", "order:c"]
    assert found(accepted_before_ms=NOW_MS + 1) == ["order:a"]


@pytest.mark.parametrize("set_back_ms", [0, 45_000])
def test_sagas_of_an_age_are_all_found_though_the_clock_was_set_back(
    journal: Journal, set_back_ms: int
) -> None:
    epoch = prepare(journal)
    at_ms = [NOW_MS + 1_000 * i - (set_back_ms if i >= 150 else 0) for i in range(300)]
    stories = [Story(f"k{i:03d}", epoch=epoch, at_ms=at) for i, at in enumerate(at_ms)]
    journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
    for before_ms in range(NOW_MS - 5_000, max(at_ms) + 70_000, 7_000):
        expected = [s.saga_id for s, at in zip(stories, at_ms, strict=True) if at < before_ms]
        wanted = HeadFilter(accepted_before_ms=before_ms)
        assert ids(journal.heads(wanted, limit=1_000, newest=False)) == expected
        assert ids(journal.heads(wanted, limit=1_000)) == expected[::-1]


def test_few_wanted_among_many_are_all_found(journal: Journal) -> None:
    """Pages that hold nothing wanted must not end the search."""
    epoch = prepare(journal)
    stories = [Story(f"k{i:05d}", epoch=epoch) for i in range(5_000)]
    entries: list[Entry] = []
    for i, story in enumerate(stories):
        entries.append(story.accepted())
        if i % 2_499 == 0:
            entries += [story.turned_back(), story.compensated()]
        else:
            entries.append(story.completed())
    journal.commit(SCOPE, epoch, entries)
    wanted = HeadFilter(phases=frozenset({Phase.COMPENSATED}))
    expected = [stories[i].saga_id for i in (0, 2_499, 4_998)]
    assert ids(journal.heads(wanted, limit=10, newest=False)) == expected
    assert ids(journal.heads(wanted, limit=2)) == expected[:0:-1]


def test_timers_are_due_at_their_instant_earliest_first(journal: Journal) -> None:
    epoch = prepare(journal)
    late, early, never = (Story(k, epoch=epoch) for k in "abc")
    journal.commit(
        SCOPE,
        epoch,
        [
            late.accepted(due_at_ms=NOW_MS + 20),
            early.accepted(due_at_ms=NOW_MS + 10),
            never.accepted(),
        ],
    )
    assert journal.due_before(NOW_MS + 9, 10) == []
    assert journal.due_before(NOW_MS + 10, 10) == [early.saga_id]
    assert journal.due_before(NOW_MS + 99, 10) == [early.saga_id, late.saga_id]
    assert journal.due_before(NOW_MS + 99, 1) == [early.saga_id]
    journal.commit(SCOPE, epoch, [early.progressed(due_at_ms=NOW_MS + 50), late.completed()])
    assert journal.due_before(NOW_MS + 49, 10) == []
    assert journal.due_before(NOW_MS + 50, 10) == [early.saga_id]


def test_terminal_sagas_wait_to_be_released_then_to_be_pruned(journal: Journal) -> None:
    epoch = prepare(journal)
    stories = write_completed(journal, epoch, ["a", "b", "c"])
    assert ids(journal.unreleased(10)) == ["order:a", "order:b", "order:c"]
    assert ids(journal.unreleased(2)) == ["order:a", "order:b"]
    assert journal.prune(NOW_MS + 1_000, 10) == 0
    journal.mark_released([stories[0].saga_id, stories[2].saga_id, UNKNOWN])
    assert ids(journal.unreleased(10)) == ["order:b"]
    assert journal.prune(NOW_MS + 2, 10) == 1
    assert journal.head(stories[0].saga_id) is None
    assert journal.prune(NOW_MS + 1_000, 10) == 1
    assert ids(journal.heads(HeadFilter(), limit=10)) == ["order:b"]
    assert journal.counts()[Phase.COMPLETED] == 1


def test_a_release_is_noted_with_the_next_commit(journal: Journal) -> None:
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a"])
    journal.mark_released([SagaId("order:a")])
    write_completed(journal, epoch, ["b"])
    assert ids(journal.unreleased(10)) == ["order:b"]
    assert journal.prune(NOW_MS + 1_000, 10) == 1


def test_an_active_saga_is_not_released(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted()])
    journal.mark_released([story.saga_id])
    journal.commit(SCOPE, epoch, [story.completed()])
    assert ids(journal.unreleased(10)) == [story.saga_id]
    assert journal.prune(NOW_MS + 1_000, 10) == 0


def test_what_answers_a_repeat_outlives_the_saga(journal: Journal) -> None:
    epoch = prepare(journal)
    story = Story("a", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted(), story.turned_back(), story.compensated()])
    before = journal.key_record(story.saga_id)
    journal.mark_released([story.saga_id])
    assert journal.prune(NOW_MS + 1_000, 10) == 1
    assert journal.records(story.saga_id) == []
    assert journal.key_record(story.saga_id) == before
    assert before is not None and before.reason == "OUT_OF_STOCK"
    assert journal.heads(HeadFilter(), limit=10, after=story.saga_id) == []
    for entry in (Story("a", epoch=epoch).accepted(), story.progressed()):
        with pytest.raises(SequenceError):
            journal.commit(SCOPE, epoch, [entry])


def test_a_key_is_forgotten_last_and_then_names_a_new_saga(journal: Journal) -> None:
    epoch = prepare(journal)
    write_completed(journal, epoch, ["a", "b"])
    journal.mark_released([SagaId("order:a"), SagaId("order:b")])
    assert journal.prune_keys(NOW_MS + 1_000, 10) == 0
    assert journal.prune(NOW_MS + 1_000, 10) == 2
    assert journal.prune_keys(NOW_MS + 2, 10) == 1
    assert journal.key_record(SagaId("order:a")) is None
    assert journal.key_record(SagaId("order:b")) is not None
    write_completed(journal, epoch, ["a"])
    assert journal.prune_keys(NOW_MS + 1_000, 1) == 1


def test_pruning_stops_at_its_limit(journal: Journal) -> None:
    epoch = prepare(journal)
    stories = write_completed(journal, epoch, [f"k{i}" for i in range(700)])
    journal.mark_released([story.saga_id for story in stories])
    assert journal.prune(NOW_MS + 10_000, 600) == 600
    assert journal.counts()[Phase.COMPLETED] == 100
    assert journal.prune(NOW_MS + 10_000, 600) == 100


def fill(journal: Journal, epoch: Epoch) -> list[Story]:
    """Accept sagas, twenty at a time, until there is no room for more."""
    accepted: list[Story] = []
    while True:
        first = len(accepted)
        stories = [Story(f"k{i:06d}", epoch=epoch, padding=1_000) for i in range(first, first + 20)]
        try:
            journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
        except StorageFullError:
            return accepted
        accepted += stories


def test_a_full_journal_refuses_births_and_lets_what_was_begun_be_finished(
    small_journal: Journal,
) -> None:
    journal = small_journal
    epoch = prepare(journal)
    stories = fill(journal, epoch)
    assert len(stories) > 100
    usage = journal.usage()
    assert usage.used <= usage.cap - usage.reserve
    for i in range(0, len(stories), 20):
        ends = [story.completed() for story in stories[i : i + 20]]
        journal.commit(SCOPE, epoch, ends, from_reserve=True)
    assert list(journal.active()) == []
    with pytest.raises(StorageFullError):
        journal.commit(SCOPE, epoch, [Story("late", epoch=epoch, padding=20_000).accepted()])


def test_pruning_makes_room_for_new_sagas(small_journal: Journal) -> None:
    journal = small_journal
    epoch = prepare(journal)
    for _ in range(3):
        stories = fill(journal, epoch)
        assert len(stories) > 100
        ends = [story.completed() for story in stories]
        journal.commit(SCOPE, epoch, ends, from_reserve=True)
        journal.mark_released([story.saga_id for story in stories])
        assert journal.prune(NOW_MS + 1_000, 100_000) == len(stories)
        assert journal.prune_keys(NOW_MS + 1_000, 100_000) == len(stories)


def test_a_void_batch_leaves_nothing_and_can_be_committed_later(small_journal: Journal) -> None:
    journal = small_journal
    epoch = prepare(journal)
    story = Story("begun", epoch=epoch)
    journal.commit(SCOPE, epoch, [story.accepted()])
    births = [Story(f"k{i}", epoch=epoch, padding=4_000) for i in range(1_000)]
    progressed = story.progressed()
    digest = verify_journal(journal).digest
    with pytest.raises(StorageFullError):
        journal.commit(SCOPE, epoch, [progressed, *(birth.accepted() for birth in births)])
    assert verify_journal(journal).digest == digest
    assert journal.counts()[Phase.RUNNING] == 1
    journal.commit(SCOPE, epoch, [progressed], from_reserve=True)


def test_an_epoch_is_granted_even_when_the_journal_is_full(small_journal: Journal) -> None:
    journal = small_journal
    epoch = prepare(journal)
    fill(journal, epoch)
    assert journal.grant_epoch(SCOPE, "successor", NOW_MS) == epoch + 1


def test_two_journals_with_the_same_sagas_have_the_same_digest(journal: Journal) -> None:
    epoch = prepare(journal)
    first = verify_journal(journal)
    write_completed(journal, epoch, ["a", "b"])
    second = verify_journal(journal)
    assert first.digest != second.digest
    assert (second.saga_count, second.record_count) == (2, 4)
    journal.mark_released([SagaId("order:a"), SagaId("order:b")])
    journal.prune(NOW_MS + 1_000, 10)
    assert verify_journal(journal).digest == first.digest


def test_a_new_journal_was_not_restored(journal: Journal) -> None:
    assert journal.restored_at_ms() is None
    journal.clear_restored()
    assert journal.restored_at_ms() is None
