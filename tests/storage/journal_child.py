"""A process that writes to a journal, for tests that kill it or race with it.

Run with the journal's folder and a mode. It says "ready" when the journal is
open, and then obeys one line of standard input at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a script, its own folder is where modules are looked for first.
from stories import (  # type: ignore[import-not-found]
    IDENTITY,
    NOW_MS,
    OTHER_SCOPE,
    SCOPE,
    Story,
    prepare,
)

from raysaga.statemachines.errors import SagaError
from raysaga.storage.journal import Journal
from raysaga.storage.lmdb_journal import LmdbJournal
from raysaga.storage.settings import JournalSettings

SETTINGS = JournalSettings(map_bytes_first=1 << 16, map_bytes_max=64 << 20, reserve_ratio=0.01)


def tell(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_for_ever(journal: Journal, run: str) -> None:
    """Tell the ids of each batch once it is on disk."""
    epoch = prepare(journal)
    batch = 0
    while True:
        stories = [Story(f"{run}-{batch:05d}-{i}", epoch=epoch) for i in range(8)]
        journal.commit(SCOPE, epoch, [story.accepted() for story in stories])
        tell("began " + " ".join(story.saga_id for story in stories))
        journal.commit(SCOPE, epoch, [story.completed() for story in stories])
        tell("ended " + " ".join(story.saga_id for story in stories))
        batch += 1


def obey(journal: Journal) -> None:
    """Carry out commands; answer each with "ok" or an error's code."""
    epoch = 0
    story = Story("a")
    dedicated = Story("dedicated", scope=OTHER_SCOPE)
    dedicated.accepted()
    for line in sys.stdin:
        match line.split():
            case ["grant"]:
                epoch = prepare(journal)
                tell(epoch)
                continue
            case ["begin", key]:
                story = Story(key, epoch=epoch)
                batch = [story.accepted()]
                scope = SCOPE
            case ["finish"]:
                batch = [story.completed()]
                scope = SCOPE
            case ["own"]:
                epoch = dedicated.epoch = journal.grant_epoch(OTHER_SCOPE, "child", NOW_MS)
                tell(epoch)
                continue
            case ["progress"]:
                batch = [dedicated.retried()]
                scope = OTHER_SCOPE
            case ["grow"]:
                batch = [Story(f"g{i}", epoch=epoch, padding=8_000).accepted() for i in range(200)]
                scope = SCOPE
            case other:
                raise ValueError(other)
        try:
            journal.commit(scope, epoch, batch)
            tell("ok")
        except SagaError as error:
            tell(error.code)


def main(path: Path, mode: str) -> None:
    journal = LmdbJournal.open(path, IDENTITY, SETTINGS)
    tell("ready")
    if mode == "obey":
        obey(journal)
    else:
        write_for_ever(journal, mode)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
