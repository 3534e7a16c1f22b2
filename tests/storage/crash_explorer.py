"""What a disk may hold after a power cut, for each moment of a journal's life.

The idea is ALICE's (Pillai and others, All File Systems Are Not Created Equal, OSDI 2014), in
user space: `recorder.c` is loaded into a process that commits to a real journal, and writes
down each write and each sync of the data file. From that, every image is made that a disk may
hold if the power fails then: what was synced is there; of what was written since, any pages
may be there, missing, or torn between two sectors; a write that is durable on return may be
torn while it is under way. Each image is opened as a host would, and must hold what was
acknowledged, or that and the commit under way.

Run as a script: `record FOLDER` is the process that is recorded, `explore LOG FOLDER SEED`
prints what was found. Both are processes of their own, for a damaged image can end one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SECTOR_BYTES = 512
PAGE_BYTES = 4_096
META_TEAR_BYTES = 56
"""Within a sector, which disks do not tear; the check is stricter than they are."""

ALL_SUBSETS_MAX = 5
"""Pages of which every subset is tried; of more, some."""

COMMITS = 25

_HEAD = struct.Struct("<cBQI")


class Event(NamedTuple):
    """A line of the recorder's log: `w` a write, `s` a sync, `a` an acknowledgement."""

    kind: str
    is_durable: bool
    offset: int
    data: bytes


class Image(NamedTuple):
    """What the disk may hold, with the number of acknowledgements given by then."""

    acked: int
    data: bytes
    how: str


def read_log(path: Path) -> list[Event]:
    """Return what was recorded."""
    log, at = path.read_bytes(), 0
    events: list[Event] = []
    while at < len(log):
        kind, is_durable, offset, length = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        events.append(Event(kind.decode(), bool(is_durable), offset, log[at : at + length]))
        at += length
    return events


def meta_before_data(events: Sequence[Event]) -> list[Event]:
    """Return the log of a journal that writes its meta page first."""
    turned: list[Event] = []
    begin = 0
    for event in events:
        if event.kind == "w" and event.is_durable:
            turned.insert(begin, event)
            begin = len(turned)
        else:
            turned.append(event)
    return turned


def images(events: Sequence[Event], chance: random.Random) -> Iterator[Image]:
    """Yield every image once that is to be looked at."""
    durable = bytearray()
    pending: list[tuple[int, bytes]] = []
    acked = 0
    seen: set[bytes] = set()
    for number, event in enumerate(events):
        if event.kind == "w" and not event.is_durable:
            pending.extend(_pages(event))
            continue
        made: list[tuple[bytes, str]] = list(_subsets(durable, pending, chance))
        if event.kind == "w":
            for length in (META_TEAR_BYTES, len(event.data)):
                under_way = _with(durable, [(event.offset, event.data[:length])])
                made.extend(_subsets(under_way, pending, chance))
            durable = _with(durable, [(event.offset, event.data)])
        elif event.kind == "s":
            durable = _with(durable, pending)
            pending = []
        for data, how in made:
            print_ = hashlib.blake2b(data + bytes([acked])).digest()
            if acked and print_ not in seen:
                seen.add(print_)
                yield Image(acked, data, f"event {number}, {how}")
        acked += event.kind == "a"
    for data, how in _subsets(durable, pending, chance):
        yield Image(acked, data, f"at the end, {how}")


def _pages(event: Event) -> Iterator[tuple[int, bytes]]:
    """Cut a write at page borders: each part reaches the disk by itself."""
    at = 0
    while at < len(event.data):
        offset = event.offset + at
        length = min(PAGE_BYTES - offset % PAGE_BYTES, len(event.data) - at)
        yield offset, event.data[at : at + length]
        at += length


def _with(image: bytes | bytearray, writes: Sequence[tuple[int, bytes]]) -> bytearray:
    made = bytearray(image)
    for offset, data in writes:
        if offset > len(made):
            made.extend(bytes(offset - len(made)))
        made[offset : offset + len(data)] = data
    return made


def _subsets(
    durable: bytes | bytearray, pending: Sequence[tuple[int, bytes]], chance: random.Random
) -> Iterator[tuple[bytes, str]]:
    count = len(pending)
    whole = (1 << count) - 1
    if count <= ALL_SUBSETS_MAX:
        chosen = set(range(whole + 1))
    else:
        few = chance.sample(range(count), min(count, 12))
        chosen = {0, whole, *(1 << i for i in few), *(whole ^ 1 << i for i in few)}
        chosen |= {chance.getrandbits(count) for _ in range(4)}
    for bits in sorted(chosen):
        kept = [write for i, write in enumerate(pending) if bits >> i & 1]
        yield bytes(_with(durable, kept)), f"pages {bits:b} of {count}"
    if pending:
        offset, data = pending[-1]
        tear = SECTOR_BYTES * chance.randrange(1, max(2, len(data) // SECTOR_BYTES))
        torn = [*pending[:-1], (offset, data[:tear])]
        yield bytes(_with(durable, torn)), f"the last of {count} torn at {tear}"


# -- the two processes ---------------------------------------------------------


def record(folder: Path, flag: str) -> None:
    """Commit, and say after each commit what is there; `flag` is one of LMDB's to switch off."""
    from stories import IDENTITY, SCOPE, Story, prepare  # type: ignore[import-not-found]

    from raysaga.storage import lmdb_environment
    from raysaga.storage.lmdb_journal import LmdbJournal
    from raysaga.storage.settings import JournalSettings

    if flag:
        _switch_off(lmdb_environment, flag)
    settings = JournalSettings(map_bytes_first=1 << 16, map_bytes_max=64 << 20, reserve_ratio=0.0)
    journal = LmdbJournal.open(folder / "journal", IDENTITY, settings)
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT, 0o600)

    def acknowledge() -> None:
        os.write(acks, json.dumps(what_is_there(journal)).encode())

    epoch = prepare(journal)
    acknowledge()
    chance = random.Random(1)
    open_stories: list[Any] = []
    for number in range(COMMITS):
        births = [
            Story(f"k{number}-{i}", epoch=epoch, padding=chance.randrange(3_000))
            for i in range(chance.randrange(3))
        ]
        entries = [story.accepted() for story in births]
        for story in chance.sample(open_stories, min(len(open_stories), 2)):
            if story.entries[-1].phase.value == "compensating":
                entries.append(story.compensated())
            else:
                entries.append(chance.choice([story.turned_back, story.completed])())
            if entries[-1].phase.value != "compensating":
                open_stories.remove(story)
        journal.commit(SCOPE, epoch, entries or [Story(f"k{number}", epoch=epoch).accepted()])
        open_stories.extend(births)
        acknowledge()
        if number % 8 == 7:
            # Pages become free, to be written again while the disk still needs them.
            journal.mark_released([head.saga_id for head in journal.unreleased(100)])
            journal.prune(1 << 60, 3)
            acknowledge()
    journal.close()


def _switch_off(module: Any, flag: str) -> None:
    """Open environments with one of LMDB's safeguards off, unnoticed."""
    driver = module.lmdb
    whole = {"sync": True, "metasync": True, "lock": True, "writemap": False, "map_async": False}

    class Careless:
        def __init__(self, env: Any) -> None:
            self._env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self._env, name)

        def flags(self) -> dict[str, bool]:
            return whole

    class Driver:
        def __getattr__(self, name: str) -> Any:
            return getattr(driver, name)

        def open(self, path: str, **options: Any) -> Any:
            return Careless(driver.open(path, **{**options, flag: False}))

    module.lmdb = Driver()


def what_is_there(journal: Any) -> dict[str, str]:
    """Return by saga the hash of its last record, with the epoch in force."""
    from stories import SCOPE

    from raysaga.storage.journal import HeadFilter

    heads = journal.heads(HeadFilter(), limit=10_000)
    return {
        "epoch": str(journal.epoch(SCOPE)),
        **{head.saga_id: head.chain.hex() for head in heads},
    }


def explore(log: Path, folder: Path, seed: int, turned: str) -> None:
    """Open every image; print each flaw as it is found, and at the end the number of images."""
    from stories import IDENTITY

    from raysaga.statemachines.errors import SagaError
    from raysaga.storage.lmdb_journal import LmdbJournal
    from raysaga.storage.settings import JournalSettings
    from raysaga.storage.verify import verify_journal

    settings = JournalSettings(map_bytes_first=1 << 16, map_bytes_max=64 << 20, reserve_ratio=0.0)
    events = read_log(log)
    told = [json.loads(event.data) for event in events if event.kind == "a"]
    if turned:
        events = meta_before_data(events)
    count = ahead = 0
    folder.mkdir(mode=0o700)
    for image in images(events, random.Random(seed)):
        count += 1
        for file in folder.iterdir():
            file.unlink()
        (folder / "data.mdb").write_bytes(image.data)
        _say({"at": image.how})
        try:
            journal = LmdbJournal.open(folder, IDENTITY, settings)
        except SagaError as error:
            _say({"flaw": f"{image.how}: {error}"})
            continue
        found = what_is_there(journal)
        report = verify_journal(journal)
        journal.close()
        allowed = told[image.acked - 1 : image.acked + 1]
        if found not in allowed or not report.is_sound:
            _say({"flaw": f"{image.how}: {report.problems or 'acknowledged commits are missing'}"})
        ahead += found in allowed[1:] and found != allowed[0]
    _say({"images": count, "acknowledged": len(told), "ahead": ahead})


def _say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    if arguments[0] == "record":
        record(Path(arguments[1]), arguments[2])
    else:
        explore(Path(arguments[1]), Path(arguments[2]), int(arguments[3]), arguments[4])


# -- for the tests -------------------------------------------------------------


class Found(NamedTuple):
    """What an exploration has shown; `died` is how its process ended, if not by itself."""

    image_count: int
    ack_count: int
    ahead_count: int
    flaws: list[str]
    died: str


def build_recorder(folder: Path) -> Path:
    """Return the recorder as a library.

    Raises:
        OSError: If there is no C compiler.
        CalledProcessError: If it does not compile.
    """
    library = folder / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return library


def recorded(recorder: Path, folder: Path, flag: str = "") -> Path:
    """Return the log of a process that committed in `folder`."""
    log = folder / "log"
    environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORDER_LOG": str(log)}
    command = [sys.executable, __file__, "record", str(folder), flag]
    subprocess.run(command, check=True, env=environment)
    return log


def explored(log: Path, folder: Path, seed: int, *, turned: bool = False) -> Found:
    """Return what the images of a log have shown."""
    command = [sys.executable, __file__, "explore", str(log), str(folder), str(seed)]
    done = subprocess.run(
        [*command, "turned" if turned else ""], capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    summary = lines[-1] if lines and "images" in lines[-1] else {}
    died = "" if summary else f"exit {done.returncode} {lines[-1:]}: {done.stderr[-2_000:]}"
    return Found(
        summary.get("images", 0),
        summary.get("acknowledged", 0),
        summary.get("ahead", 0),
        [line["flaw"] for line in lines if "flaw" in line],
        died,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
