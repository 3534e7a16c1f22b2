"""Both journals answer alike after any history: each is the other's model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysaga.statemachines.ids import Epoch
from raysaga.statemachines.tables import TERMINAL, Phase
from raysaga.storage.errors import StorageError
from raysaga.storage.journal import Entry, HeadFilter, Journal
from raysaga.storage.memory_journal import MemoryJournal

from .conftest import expect_sound, open_lmdb
from .stories import IDENTITY, NOW_MS, OTHER_SCOPE, SCOPE, Story, prepare

KEYS = [f"k{i}" for i in range(12)]
OPERATIONS = 60


class Walk:
    """A random history, told to both journals at once."""

    def __init__(self, seed: int, journals: list[Journal]) -> None:
        self.chance = random.Random(seed)
        self.journals = journals
        self.stories: dict[str, Story] = {}
        self.epoch = Epoch(1)
        for journal in journals:
            prepare(journal)

    def both(self, ask: Callable[[Journal], Any]) -> Any:
        """Ask both journals the same; their answers, or their errors, must be alike."""
        answers = []
        for journal in self.journals:
            try:
                answers.append(ask(journal))
            except (StorageError, KeyError) as error:
                answers.append((type(error), error.args))
        assert answers[0] == answers[1]
        return answers[0]

    def next_entry(self, key: str) -> Entry | None:
        story = self.stories.get(key)
        if story is None or not story.entries:
            scope = OTHER_SCOPE if self.chance.random() < 0.1 else SCOPE
            self.stories[key] = story = Story(key, epoch=self.epoch, scope=scope, at_ms=self.now())
            due_at_ms = self.now() if self.chance.random() < 0.5 else None
            return story.accepted(due_at_ms=due_at_ms)
        story.epoch, story.at_ms = self.epoch, self.now()
        match story.entries[-1].phase:
            case Phase.RUNNING:
                if self.chance.random() < 0.5:
                    return story.completed() if self.chance.random() < 0.5 else story.turned_back()
                return story.retried()
            case Phase.COMPENSATING:
                return story.compensated()
        return None

    def now(self) -> int:
        return NOW_MS + self.chance.randrange(50)

    def commit(self) -> None:
        """Commit a batch, now and then one that must be refused."""
        before = {key: len(story.entries) for key, story in self.stories.items()}
        entries = [
            entry
            for key in self.chance.choices(KEYS, k=self.chance.randrange(5))
            if (entry := self.next_entry(key)) is not None
        ]
        epoch = self.epoch
        match self.chance.randrange(8):
            case 0 if len(entries) > 1:
                entries = entries[::-1]
            case 1 if entries:
                entries.append(entries[0])
            case 2:
                epoch = Epoch(epoch - 1)
        terminal: set[str] = set()
        for entry in entries:
            if entry.saga_id in terminal:
                entries = []  # An assertion, and not an answer that could be compared.
                break
            if entry.phase in TERMINAL:
                terminal.add(entry.saga_id)
        refused = self.both(lambda journal: journal.commit(SCOPE, epoch, entries)) is not None
        if refused or not entries:
            for key, story in self.stories.items():
                del story.entries[before.get(key, 0) :]

    def grant(self) -> None:
        self.epoch = self.both(lambda journal: journal.grant_epoch(SCOPE, "next", NOW_MS))

    def release(self) -> None:
        heads = self.both(lambda journal: journal.unreleased(3))
        self.both(lambda journal: journal.mark_released([head.saga_id for head in heads]))

    def prune(self) -> None:
        before_ms = self.now()
        self.both(lambda journal: journal.prune(before_ms, 2))
        if self.chance.random() < 0.3:
            self.both(lambda journal: journal.prune_keys(before_ms, 1))
        for key, story in list(self.stories.items()):
            if self.both(lambda journal, s=story: journal.key_record(s.saga_id)) is None:
                del self.stories[key]

    def look(self) -> None:
        """Compare everything that can be asked."""
        self.both(lambda journal: list(journal.active()))
        self.both(lambda journal: journal.counts())
        now_ms, limit = self.now(), self.chance.randrange(1, 6)
        self.both(lambda journal: journal.due_before(now_ms, limit))
        self.both(lambda journal: journal.unreleased(limit))
        phases = frozenset(self.chance.sample(list(Phase), 3))
        after = self.chance.choice([None, *(story.saga_id for story in self.stories.values())])
        newest = self.chance.random() < 0.5
        for wanted in (
            HeadFilter(),
            HeadFilter(phases=phases),
            HeadFilter(accepted_from_ms=now_ms),
        ):
            self.both(lambda j, w=wanted: j.heads(w, limit=limit, after=after, newest=newest))
        for story in self.stories.values():
            self.both(lambda journal, s=story: journal.head(s.saga_id))
            self.both(lambda journal, s=story: journal.records(s.saga_id))


@pytest.mark.parametrize("seed", range(12))
def test_both_journals_answer_alike_after_any_history(tmp_path: Path, seed: int) -> None:
    journals: list[Journal] = [MemoryJournal(IDENTITY), open_lmdb(tmp_path / "j")]
    walk = Walk(seed, journals)
    steps = [walk.commit] * 6 + [walk.grant, walk.release, walk.release, walk.prune]
    for _ in range(OPERATIONS):
        walk.chance.choice(steps)()
        walk.look()
    assert sum(journals[0].counts().values()) > 0
    for journal in journals:
        expect_sound(journal)
        journal.close()
