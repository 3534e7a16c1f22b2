"""One bit of one saga's record in a closed journal, flipped and put back.

Guarantees: nothing of the file is changed but this record, in each copy of it that the file
holds; pages that are not used any more may hold some. What is put back is what was there,
wherever the journal keeps it by then.
Costs: a search through the journal's file each time.
"""

from __future__ import annotations

import mmap
import random
from pathlib import Path
from typing import NamedTuple

from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.statemachines.tables import Phase
from raysaga.storage.data_folder import DataFolder
from raysaga.storage.journal import HeadFilter

SAGAS_DRAWN_FROM = 100
"""The newest of a shard, one of which gets damaged."""


class FlippedBit(NamedTuple):
    """A bit, and where it is.

    Attributes:
        saga_id: Whose record it is in.
        seq: The number of that record.
        place: Of the bit, from the record's first.
        file: The journal's.
        whole: The record as it was written.
        damaged: The same with the bit flipped.
    """

    saga_id: str
    seq: int
    place: int
    file: Path
    whole: bytes
    damaged: bytes

    @classmethod
    def draw(cls, data: DataFolder, phases: frozenset[Phase], chance: random.Random) -> FlippedBit:
        """Return a bit of a saga in one of these phases; nothing is changed.

        Raises:
            NeverHappenedError: If the drawn shard has no such saga.
        """
        shard = chance.randrange(data.shard_count)
        journal = data.open_journal(shard, read_only=True)
        try:
            heads = journal.heads(HeadFilter(phases=phases), limit=SAGAS_DRAWN_FROM)
            if not heads:
                raise NeverHappenedError(f"shard/{shard} has a saga to damage", 0.0)
            saga_id = chance.choice(heads).saga_id
            records = journal.records(saga_id)
        finally:
            journal.close()
        seq = chance.randrange(len(records))
        whole = records[seq]
        place = chance.randrange(len(whole) * 8)
        damaged = bytearray(whole)
        damaged[place // 8] ^= 0x80 >> place % 8
        file = data.journal_path(shard) / "data.mdb"
        return cls(saga_id, seq, place, file, whole, bytes(damaged))

    def flip(self) -> None:
        """Damage the record."""
        _replace(self.file, self.whole, self.damaged)

    def put_back(self) -> None:
        """Make the record what it was."""
        _replace(self.file, self.damaged, self.whole)


def _replace(file: Path, old: bytes, new: bytes) -> None:
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as content:
        at = content.find(old)
        if at < 0:
            raise NeverHappenedError(f"the record is found in {file}", 0.0)
        while at >= 0:
            content[at : at + len(new)] = new
            at = content.find(old, at + len(new))
