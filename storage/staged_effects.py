"""Holds what the handlers of one batch put and delete, until all of it is written at once.

This stands in for a child transaction for each call: a refusing handler's
partial writes vanish here, in memory, and never reach the transaction. It is
cheaper than a nested transaction of LMDB, which copies pages and gives up the
interpreter lock on every call, and it writes a key that a batch changed a
hundred times once.

Guarantees: a call sees its own writes and those of the calls before it that
succeeded; `rollback` forgets exactly what was staged since `begin`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack
import msgspec

from raysaga.storage.ledger_row import KEY_BYTES_MAX
from raysaga.storage.lmdb_environment import WriteTransaction

_pack: Final = msgpack.Packer(autoreset=True).pack
_unpack: Final = msgspec.msgpack.Decoder().decode
"""Twice as fast as msgpack; that packs, since it refuses what is no plain data, such as sets."""


class StagedEffects:
    """The `Effects` that handlers get; one for each batch."""

    __slots__ = ("_before", "_staged", "_transaction", "failure", "now_ms")

    def __init__(self, transaction: WriteTransaction, tables: Sequence[str], now_ms: int) -> None:
        self._transaction = transaction
        # Packed, not live: what a handler does to a value it read or put must not
        # leak to another call, least of all when the handler then refuses.
        self._staged: dict[str, dict[bytes, bytes | None]] = {table: {} for table in tables}
        # What each change replaced, newest last; `...` stands for "nothing was staged".
        self._before: list[tuple[dict[bytes, bytes | None], bytes, Any]] = []
        self.now_ms = now_ms
        self.failure: Exception | None = None
        """An error of the storage itself, which no handler can have answered for."""

    def get(self, table: str, key: str) -> Any:
        """Return the value under `key`, or None."""
        staged = self._staged[table]
        raw = value_key(key)
        if raw in staged:
            packed = staged[raw]
        else:
            try:
                packed = self._transaction.get(table, raw)
            except Exception as error:
                self.failure = error
                raise
        return None if packed is None else _unpack(packed)

    def put(self, table: str, key: str, value: Any) -> None:
        """Put plain data under `key`."""
        staged = self._staged[table]
        raw = value_key(key)
        packed = _pack(value)
        self._before.append((staged, raw, staged.get(raw, ...)))
        staged[raw] = packed

    def delete(self, table: str, key: str) -> None:
        """Delete `key`; one that is not there is no error."""
        staged = self._staged[table]
        raw = value_key(key)
        self._before.append((staged, raw, staged.get(raw, ...)))
        staged[raw] = None

    def scan(self, table: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield keys that begin with `prefix`, as they were when the scan began."""
        staged = dict(self._staged[table])
        start = prefix.encode()
        yield from merged(self._stored(table, start), start, staged)

    def _stored(self, table: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from self._transaction.scan(table, start=start, stop=prefix_stop(start))
        except Exception as error:
            self.failure = error
            raise

    def begin(self) -> None:
        """Begin the next call."""
        self._before.clear()

    def rollback(self) -> None:
        """Forget what was staged since `begin`."""
        while self._before:
            staged, raw, before = self._before.pop()
            if before is ...:
                del staged[raw]
            else:
                staged[raw] = before

    def flush(self) -> None:
        """Write what is staged to the transaction."""
        for table, staged in self._staged.items():
            write_staged(self._transaction, table, staged)


def write_staged(
    transaction: WriteTransaction, table: str, staged: Mapping[bytes, bytes | None]
) -> None:
    """Put what is staged, in the order of the keys, and delete what is staged as None."""
    puts = [(raw, packed) for raw, packed in staged.items() if packed is not None]
    if len(puts) < len(staged):
        for raw, packed in staged.items():
            if packed is None:
                transaction.delete(table, raw)
    puts.sort()
    transaction.put_many(table, puts)


def merged(
    stored: Iterator[tuple[bytes, bytes]], start: bytes, staged: Mapping[bytes, bytes | None]
) -> Iterator[tuple[str, Any]]:
    """Yield what is `stored` with what is `staged` under `start` laid over it, in order."""
    over = sorted(raw for raw in staged if raw.startswith(start))
    nearest = next(stored, None)
    for raw in [*over, None]:
        while nearest is not None and (raw is None or nearest[0] < raw):
            yield nearest[0].decode(), _unpack(nearest[1])
            nearest = next(stored, None)
        if raw is None:
            return
        if nearest is not None and nearest[0] == raw:
            nearest = next(stored, None)
        packed = staged[raw]
        if packed is not None:
            yield raw.decode(), _unpack(packed)


def prefix_stop(start: bytes) -> bytes | None:
    """Return the first key after all that begin with `start`; None: there is no such key."""
    # UTF-8 never has a byte 0xFF, so the last byte can always grow.
    return start[:-1] + bytes([start[-1] + 1]) if start else None


def value_key(key: str) -> bytes:
    """Return a key of a participant's own table as bytes.

    Raises:
        ValueError: If it is empty or too long.
    """
    raw = key.encode()
    if not 0 < len(raw) <= KEY_BYTES_MAX:
        raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes, this one has {len(raw)}")
    return raw
