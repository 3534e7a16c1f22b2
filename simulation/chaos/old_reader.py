"""A process that looks at a shard's journal once, and never looks away.

What it sees is not written over for as long as it looks, whatever becomes free meanwhile.
`python -m raysaga.simulation.chaos.old_reader FOLDER SHARD`; it ends when it is killed.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from raysaga.storage.data_folder import DataFolder


def look(arguments: Sequence[str]) -> None:
    """Hold a view of a journal for ever."""
    folder = DataFolder.open(arguments[0], shard_count=None, create=False)
    journal = folder.open_journal(int(arguments[1]), read_only=True)
    with journal.environment.read():
        sys.stdout.write("looking\n")
        sys.stdout.flush()
        while True:
            signal.pause()


if __name__ == "__main__":
    look(sys.argv[1:])
