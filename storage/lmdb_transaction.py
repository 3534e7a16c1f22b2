"""What can be done inside a transaction of an LMDB environment: rows of named tables.

Costs: below a microsecond a row. Each call gives up the interpreter's lock and may
wait to get it back, so many rows are best put with one `put_many`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class ReadTransaction:
    """A consistent view of all tables; valid inside the `with` or the body it was given to."""

    __slots__ = ("_tables", "_txn")

    def __init__(self, txn: Any, tables: dict[str, Any]) -> None:
        self._txn = txn
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of `key`, or None."""
        value: bytes | None = self._txn.get(key, db=self._tables[table])
        return value

    def scan(
        self, table: str, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `start` <= key < `stop`, from the last one if `reverse`."""
        cursor = self._txn.cursor(self._tables[table])
        if reverse:
            found = cursor.set_range(stop) if stop is not None else False
            if not (cursor.prev() if found else cursor.last()):
                return
            for row in cursor.iterprev():
                if row[0] < start:
                    return
                yield row
        else:
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for row in cursor.iternext():
                if stop is not None and row[0] >= stop:
                    return
                yield row

    def count(self, table: str) -> int:
        """Return the number of rows; costs the same whatever it is."""
        return int(self._txn.stat(self._tables[table])["entries"])

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key, or None if there is none."""
        cursor = self._txn.cursor(self._tables[table])
        return cursor.item() if cursor.last() else None


class WriteTransaction(ReadTransaction):
    """The one writer of all processes; sees what it has put itself."""

    __slots__ = ("_env", "bytes_put", "changed")

    def __init__(self, env: Any, txn: Any, tables: dict[str, Any]) -> None:
        super().__init__(txn, tables)
        self._env = env
        self.bytes_put = 0
        self.changed = False

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a row, in place of the one under `key` if there is one."""
        self._txn.put(key, value, db=self._tables[table])
        self.bytes_put += len(key) + len(value)
        self.changed = True

    def put_many(
        self,
        table: str,
        items: Sequence[tuple[bytes, bytes]],
        *,
        append: bool = False,
        overwrite: bool = True,
    ) -> int:
        """Write rows and return how many were written; faster than one by one.

        Args:
            table: Where to.
            items: Keys and values.
            append: The keys are ascending and beyond the last of the table. Pages fill up
                completely. Anything else is a bug, and an assertion fails.
            overwrite: False leaves a row that exists as it is, and does not count it.
        """
        if not items:
            return 0
        cursor = self._txn.cursor(self._tables[table])
        _, added = cursor.putmulti(items, overwrite=overwrite, append=append)
        assert added == len(items) or not (append or overwrite), "keys to append must ascend"
        self.bytes_put += sum([len(key) + len(value) for key, value in items])
        self.changed = True
        return int(added)

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a row and return whether there was one."""
        self.changed = True
        return bool(self._txn.delete(key, db=self._tables[table]))

    @contextmanager
    def child(self) -> Iterator[WriteTransaction]:
        """Write in a transaction of its own inside this one; an exception undoes only that.

        This one must not be used until the child has ended.
        """
        txn = self._env.begin(parent=self._txn, write=True)
        inner = WriteTransaction(self._env, txn, self._tables)
        try:
            yield inner
        except BaseException:
            txn.abort()
            raise
        txn.commit()
        self.bytes_put += inner.bytes_put
        self.changed = self.changed or inner.changed
