"""Reads a participant's ledger: for the server, for people, for auditors.

Guarantees: every row and line given is what was written (CRC); a single read
sees the newest committed state.
Costs: some microseconds a read. Long reads go in pages, and are no snapshot: a
transaction held open while somebody else takes his time would keep the map from
growing and old pages from being used again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from raysaga.statemachines.ids import StepKey
from raysaga.storage.errors import RecordCorruptError
from raysaga.storage.ledger_batch import EFFECTS, META, RELEASED, ROWS, SCOPES
from raysaga.storage.ledger_row import (
    SEQ,
    EffectEntry,
    LedgerRow,
    decode_effect,
    decode_epoch,
    decode_row,
    raw_key,
)
from raysaga.storage.lmdb_environment import Environment
from raysaga.storage.staged_effects import merged, prefix_stop, value_key

LEDGER_TABLES = (ROWS, SCOPES, EFFECTS, RELEASED, META)

PAGE_ROWS = 512
"""Rows read in one transaction; a page takes about a millisecond."""


def all_tables(own: Sequence[str]) -> tuple[str, ...]:
    """Return the tables of an environment whose participant has the tables `own`."""
    assert not any(table.startswith("_") for table in own), "names with _ are the ledger's"
    assert len(set(own)) == len(own)
    return (*LEDGER_TABLES, *own)


class LedgerReader:
    """The reading half of a ledger; on its own it can stand beside a running writer."""

    def __init__(self, environment: Environment, tables: Sequence[str] = ()) -> None:
        self.environment = environment
        self.tables = tuple(tables)

    @classmethod
    def open(cls, path: Path, *, tables: Sequence[str] = ()) -> LedgerReader:
        """Open the ledger in the folder `path` of a participant with the tables `tables`.

        Raises:
            DataFolderError: If there is none, or it is open in this process.
        """
        environment = Environment.open(
            path,
            tables=all_tables(tables),
            map_bytes_first=1 << 20,
            map_bytes_max=1 << 40,
            reserve_bytes=0,
            read_only=True,
        )
        return LedgerReader(environment, tables)

    def row(self, key: StepKey) -> LedgerRow | None:
        """Return the row of a step, or None.

        Raises:
            RecordCorruptError: If it is damaged.
        """
        raw = raw_key(*key)
        if raw is None:
            return None
        with self.environment.read() as transaction:
            stored = transaction.get(ROWS, raw)
        return None if stored is None else decode_row(raw, stored)

    def rows(self, journal_uuid: str = "", saga_id: str = "") -> Iterator[LedgerRow]:
        """Yield rows in the order of their keys: all, or those of a journal, or of a saga.

        Raises:
            RecordCorruptError: At the first that is damaged.
        """
        prefix = f"{journal_uuid}/" if journal_uuid else ""
        prefix += f"{saga_id}/" if journal_uuid and saga_id else ""
        for raw, stored in self._pages(ROWS, prefix.encode()):
            yield decode_row(raw, stored)

    def damaged_rows(self) -> Iterator[RecordCorruptError]:
        """Yield what is wrong with each row that does not decode."""
        for raw, stored in self._pages(ROWS, b""):
            try:
                decode_row(raw, stored)
            except RecordCorruptError as error:
                yield error

    def effects(self, from_seq: int = 0) -> Iterator[EffectEntry]:
        """Yield the effect log from `from_seq` on, in the order in which things happened.

        Raises:
            RecordCorruptError: At the first line that is damaged.
        """
        for raw, stored in self._pages(EFFECTS, b"", SEQ.pack(from_seq)):
            yield decode_effect(raw, stored)

    def epochs(self) -> dict[str, int]:
        """Return the highest epoch seen of each scope.

        Raises:
            RecordCorruptError: If one is damaged.
        """
        return {
            raw.decode(): decode_epoch(raw, stored)[0] for raw, stored in self._pages(SCOPES, b"")
        }

    def get(self, table: str, key: str) -> Any:
        """Return a value of the participant's own tables, or None."""
        with self.environment.read() as transaction:
            stored = transaction.get(table, value_key(key))
        return None if stored is None else msgpack.unpackb(stored, strict_map_key=False)

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield keys that begin with `prefix` and their values, all of one moment.

        They are read at once, so ask for what fits into memory.
        """
        start = prefix.encode()
        with self.environment.read() as transaction:
            stored = iter(transaction.scan(table, start=start, stop=prefix_stop(start)))
            found = list(merged(stored, start, {}))
        return iter(found)

    def close(self) -> None:
        """Let go of the files."""
        self.environment.close()

    def _pages(
        self, table: str, prefix: bytes, start: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        start, stop = start or prefix, prefix_stop(prefix)
        while True:
            with self.environment.read() as transaction:
                page = []
                for item in transaction.scan(table, start=start, stop=stop):
                    page.append(item)
                    if len(page) == PAGE_ROWS:
                        break
            yield from page
            if len(page) < PAGE_ROWS:
                return
            start = page[-1][0] + b"\0"
