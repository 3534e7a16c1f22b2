"""The saga as one writes it by hand: a table of steps in SQLite, one process, one writer.

Durable: the start, each step's result and the end of a saga, in SQLite with WAL and
synchronous=FULL. `step` commits each of the six by itself; `group` commits whatever waits
while the last commit runs, which is the most that one process can do: the upper bound.
Not durable: the participants. Not there at all: timers, retries, epochs, recovery, history.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from raysaga.bench.peers.participants import STEPS, UNDOS, Participants, RefusedError, order_of

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE saga (id TEXT PRIMARY KEY, input TEXT NOT NULL, status TEXT NOT NULL);
CREATE TABLE step (saga TEXT, name TEXT, result TEXT, PRIMARY KEY (saga, name)) WITHOUT ROWID;
"""

Write = tuple[str, tuple[Any, ...]]

BEGIN = "INSERT INTO saga VALUES (?, ?, 'running')"
DONE = "INSERT INTO step VALUES (?, ?, ?)"
END = "UPDATE saga SET status = ? WHERE id = ?"


class Store:
    """One connection, one thread, one commit at a time."""

    def __init__(self, path: Path, *, grouped: bool) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._connection = self._thread.submit(_connected, path).result()
        self._grouped = grouped
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._is_writing = False

    async def write(self, *write: Any) -> None:
        """Return when the statement is on disk."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((write[0], write[1]), waiter))
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._commit)
        await waiter

    def _commit(self) -> None:
        count = len(self._waiting) if self._grouped else 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        done = asyncio.get_running_loop().run_in_executor(
            self._thread, _write, self._connection, [write for write, _ in batch]
        )
        done.add_done_callback(lambda done: self._committed(done, batch))

    def _committed(self, done: Any, batch: list[tuple[Write, asyncio.Future[None]]]) -> None:
        done.result()
        if self._waiting:
            self._commit()
        else:
            self._is_writing = False
        for _, waiter in batch:
            waiter.set_result(None)

    def close(self) -> None:
        """Close the file."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(SCHEMA)
    return connection


def _write(connection: sqlite3.Connection, batch: list[Write]) -> None:
    connection.execute("BEGIN")
    for statement, values in batch:
        connection.execute(statement, values)
    connection.execute("COMMIT")


class SqlitePeer:
    """The sagas of one process."""

    def __init__(self, store: Store, refused_every: int) -> None:
        self._store = store
        self._refused_every = refused_every
        self._participants = Participants()

    async def order(self, number: int) -> str:
        """Run one saga; each step's result is on disk before the next step."""
        order = order_of(number, "o", self._refused_every)
        saga = order["order_id"]
        await self._store.write(BEGIN, (saga, json.dumps(order)))
        done: list[str] = []
        end = "completed"
        for step in STEPS:
            try:
                result = self._participants.do(step, order)
            except RefusedError:
                end = "compensated"
                break
            await self._store.write(DONE, (saga, step, json.dumps(result)))
            done.append(step)
        if end == "compensated":
            for step in reversed(done):
                result = self._participants.do(UNDOS[step], order)
                await self._store.write(DONE, (saga, UNDOS[step], json.dumps(result)))
        await self._store.write(END, (end, saga))
        return end

    async def counts(self) -> dict[str, int]:
        """Return the participants' counts."""
        return self._participants.counts()

    async def close(self) -> None:
        """Close the store."""
        self._store.close()


async def open_peer(folder: Path, plan: dict[str, Any]) -> SqlitePeer:
    """Return the peer with a fresh store in `folder`."""
    store = Store(folder / "sagas.db", grouped=plan["variant"] == "group")
    return SqlitePeer(store, plan["refused_every"])
