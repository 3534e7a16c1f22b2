"""The order saga with nothing but what cannot be left out: what the machine allows in Python.

Six processes as in the engine: a caller, a shard, four services. Each order is told, born,
carried to every service and back, ended and released, with messages, rows and commits like
the engine's own. There is nothing else: no state machine, no time-out, retry, fence, bound,
history or log, and a message that is lost is lost for ever. What is left over from here to
the engine's figure is what its promises cost.

Guarantees: an order has ended only when its effects and its end are on disk.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import uvloop

from raysaga.actors.orphans import end_with_parent
from raysaga.actors.wire import pack_message, unpack_messages
from raysaga.bench.bed import SERVICES
from raysaga.bench.judge import RunRefusedError
from raysaga.bench.loops import COMPLETED, closed_loop, told
from raysaga.bench.measure import WARM_UP_SHARE
from raysaga.bench.meter import Meter, foreign_cores, machine_busy_s, used_between
from raysaga.bench.orders import ordinary
from raysaga.storage.lmdb_environment import Environment, WriteTransaction

RELEASE_EVERY_S = 0.1
"""As in the engine: ended orders are released many to a message."""

CONNECT_EVERY_S = 0.01
"""Pause between two tries to reach a process that starts."""

_LENGTH = struct.Struct("<I")
_SEQ = struct.Struct(">Q")

ACTION, RELEASE = 0, 1

SHARD = "shard/0"
"""As in the engine's results."""

Send = Callable[[bytes], None]
Message = list[Any]


class Frames(asyncio.Protocol):
    """One connection; hands each frame over, unpacked."""

    def __init__(
        self, received: Callable[[Send, list[Message]], None], lost: Callable[[], None]
    ) -> None:
        self._received = received
        self._lost = lost
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Fail: nothing here is made to go on."""
        self._lost()

    def send(self, content: bytes) -> None:
        """Send one frame."""
        self._transport.write(_LENGTH.pack(len(content)) + content)

    def data_received(self, data: bytes) -> None:
        """Cut what has come into frames."""
        self._buffer += data
        begin = 0
        while len(self._buffer) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(self._buffer, begin)[0]
            if len(self._buffer) < end:
                break
            content = bytes(memoryview(self._buffer)[begin + _LENGTH.size : end])
            self._received(self.send, unpack_messages(content))
            begin = end
        del self._buffer[:begin]


class Batches:
    """Commits what has come, all of it at once, in a thread; answers; and begins again."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._waiting: list[Message] = []
        self._is_busy = False
        self._thread = ThreadPoolExecutor(1)

    def take(self, items: Sequence[Message]) -> None:
        """Have `items` in the next commit."""
        self._waiting.extend(items)
        if not self._is_busy and self._waiting:
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        if len(batch) == 1:
            self._end(batch, self.environment.write(partial(self.write, batch)))
            return
        work = partial(self.environment.write, partial(self.write, batch))
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(lambda done: self._end(batch, done.result()))

    def _end(self, batch: list[Message], answers: list[Any]) -> None:
        self._is_busy = False
        self.take(())
        self.committed(batch, answers)

    def write(self, batch: list[Message], transaction: WriteTransaction) -> list[Any]:
        """Put the rows of `batch`; return what to say once they are on disk."""
        raise NotImplementedError

    def committed(self, batch: list[Message], answers: list[Any]) -> None:
        """Say it."""
        raise NotImplementedError


class Service(Batches):
    """A participant: a row by key, a row of its own, a line of the log, for each call."""

    TABLES = ("rows", "own", "effects", "released")

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._answer: Send = _nobody
        self._seq = 0

    def received(self, send: Send, messages: list[Message]) -> None:
        """Take calls."""
        self._answer = send
        self.take(messages)

    def write(self, batch: list[Message], transaction: WriteTransaction) -> list[Any]:
        """Put the rows of calls and releases; return the replies."""
        rows, own, effects, released, answers = [], [], [], [], []
        now_ms = int(time.time() * 1_000)
        for call in batch:
            if call[0] == RELEASE:
                for name in call[1]:
                    key = name.encode()
                    row = transaction.get("rows", key)
                    assert row is not None
                    rows.append((key, row[:-8] + _SEQ.pack(now_ms)))
                    released.append((_SEQ.pack(now_ms) + key, b""))
                continue
            _, call_id, name, operation, request, epoch, expires_at_ms = call
            key = name.encode()
            assert transaction.get("rows", key) is None, "the key was used before"
            asked = pack_message(request)
            result = {"id": f"{operation}-{call_id}", "at_ms": now_ms}
            fingerprint = blake2b(asked, digest_size=16).digest()
            held = (1, operation, fingerprint, epoch, now_ms, now_ms, expires_at_ms, result)
            rows.append((key, _checked(key, pack_message(held)) + _SEQ.pack(0)))
            own.append((key, asked))
            line = pack_message((1, operation, epoch, now_ms, name))
            effects.append((_SEQ.pack(self._seq), _checked(key, line)))
            self._seq += 1
            answers.append(pack_message((call_id, name, epoch, 1, result, "", "", True)))
        transaction.put_many("rows", sorted(rows))
        transaction.put_many("own", sorted(own))
        transaction.put_many("effects", effects, append=True)
        transaction.put_many("released", released)
        return answers

    def committed(self, _batch: list[Message], answers: list[Any]) -> None:
        """Reply."""
        if answers:
            self._answer(b"".join(answers))


class Shard(Batches):
    """Carries each order from service to service; its birth and its end are records."""

    TABLES = ("ids", "births", "states", "records", "active", "unreleased")

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.services: list[Send] = []
        self._caller: Send = _nobody
        self._orders: dict[int, list[Any]] = {}
        self._calls: list[list[bytes]] = [[] for _ in SERVICES]
        self._over: list[str] = []
        self._place = 0
        self._is_sending = False

    def asked(self, send: Send, messages: list[Message]) -> None:
        """Take orders."""
        self._caller = send
        for number, key, order in messages:
            self._orders[number] = [f"order:{key}", order, []]
            self.take([[number, 0, f"order:{key}", order, b""]])
            self._call(0, number)

    def answered(self, _send: Send, messages: list[Message]) -> None:
        """Take replies of services."""
        for number, _, _, _, result, _, _, _ in messages:
            name, _, results = self._orders[number]
            results.append(result)
            if len(results) < len(SERVICES):
                self._call(len(results), number)
            else:
                del self._orders[number]
                self.take([[number, 1, name, results, bytes(16)]])

    def release(self) -> None:
        """Tell every service which orders are over."""
        if self._over:
            over, self._over = self._over, []
            for service, send in zip(SERVICES, self.services, strict=True):
                send(pack_message((RELEASE, [f"{name}/{service}" for name in over])))

    def _call(self, i: int, number: int) -> None:
        name, order, _ = self._orders[number]
        expires_at_ms = int(time.time() * 1_000) + 60_000
        call = (ACTION, number, f"{name}/{SERVICES[i]}", SERVICES[i], order, 1, expires_at_ms)
        self._calls[i].append(pack_message(call))
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._is_sending = False
        for i, calls in enumerate(self._calls):
            if calls:
                self.services[i](b"".join(calls))
                calls.clear()

    def write(self, batch: list[Message], transaction: WriteTransaction) -> list[Any]:
        """Put the records of births and ends, and their rows in the indexes."""
        records, ids, births, states, active, unreleased = [], [], [], [], [], []
        now_ms = _SEQ.pack(int(time.time() * 1_000))
        for number, seq, name, what, chain in batch:
            body = chain + pack_message((seq, what))
            chain = blake2b(body, digest_size=16).digest()
            records.append((_SEQ.pack(self._place), _checked(name.encode(), body)))
            self._place += 1
            states.append((_SEQ.pack(number), now_ms + chain))
            if seq == 0:
                ids.append((name.encode(), _SEQ.pack(number)))
                births.append((_SEQ.pack(number), name.encode()))
                active.append((_SEQ.pack(number), b""))
            else:
                transaction.delete("active", _SEQ.pack(number))
                unreleased.append((now_ms + _SEQ.pack(number), b""))
        transaction.put_many("ids", sorted(ids))
        transaction.put_many("births", births)
        transaction.put_many("active", active)
        transaction.put_many("states", sorted(states))
        transaction.put_many("records", records, append=True)
        transaction.put_many("unreleased", sorted(unreleased))
        return []

    def committed(self, batch: list[Message], _answers: list[Any]) -> None:
        """Tell the caller."""
        news = []
        for number, seq, name, what, _ in batch:
            news.append(pack_message((number, seq, name, what if seq else None)))
            if seq:
                self._over.append(name)
        self._caller(b"".join(news))


class Caller:
    """Gives orders, and waits for each one's end."""

    def __init__(self) -> None:
        self.send: Send = _nobody
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._orders: list[bytes] = []

    async def order(self, number: int, key: str, order: dict[str, Any]) -> str:
        """Return how an order has ended."""
        loop = asyncio.get_running_loop()
        ended = self._waiting[number] = loop.create_future()
        if not self._orders:
            loop.call_soon(self._flush)
        self._orders.append(pack_message((number, key, order)))
        how: str = await ended
        return how

    def _flush(self) -> None:
        self.send(b"".join(self._orders))
        self._orders.clear()

    def lost(self) -> None:
        """Fail whoever waits."""
        for ended in self._waiting.values():
            if not ended.done():
                ended.set_exception(RunRefusedError("the shard of the bare bones has ended"))

    def told(self, _send: Send, messages: list[Message]) -> None:
        """Take news of orders."""
        for number, seq, _name, _results in messages:
            if seq:
                self._waiting.pop(number).set_result(COMPLETED)


async def run_skeleton(folder: Path, in_flight: int, seconds: float) -> dict[str, Any]:
    """Return the rate, latencies and processor time of bare orders, after a look at the rows.

    Raises:
        RunRefusedError: If a service does not hold each order that was given exactly once.
    """
    bones = Skeleton(folder)
    try:
        await bones.start()
        meter = Meter({process.pid or 0: name for name, process in bones.processes.items()})
        numbers = itertools.count()

        async def one(number: int) -> str:
            """Give one order."""
            return await bones.caller.order(number, *ordinary(number, "s"))

        await closed_loop(one, numbers, in_flight=in_flight, seconds=seconds * WARM_UP_SHARE)
        before, busy_s = meter.read(), machine_busy_s()
        loop = await closed_loop(one, numbers, in_flight=in_flight, seconds=seconds)
        used, busy_s = used_between(before, meter.read()), machine_busy_s() - busy_s
    finally:
        bones.stop()
    _count_rows(folder, next(numbers))
    by_process = {name: round(u.cpu_s * 1e3 / len(loop.ended), 4) for name, u in used.items()}
    return told(loop) | {
        "loop": "closed",
        "in_flight": in_flight,
        "participants": "bare processes with durable rows, and no promise",
        "cpu_ms_per_saga": round(sum(by_process.values()), 4),
        "cpu_ms_per_saga_by_process": by_process,
        "foreign_cores": foreign_cores(busy_s, used, loop.seconds),
        "audit": "rows agree",
    }


def _count_rows(folder: Path, orders: int) -> None:
    for service in SERVICES:
        environment = _opened(folder, service)
        with environment.read() as view:
            rows = view.count("rows")
        environment.close()
        if rows != orders:
            raise RunRefusedError(f"{service} holds {rows} rows of {orders} orders")


class Skeleton:
    """The five processes beside the caller, on a new folder.

    Attributes:
        caller: Gives orders.
        processes: Name to process.
    """

    def __init__(self, folder: Path) -> None:
        self.caller = Caller()
        folder.mkdir(parents=True)
        # A socket's path is bounded to a hundred bytes, a data folder's is not.
        self._sockets = tempfile.TemporaryDirectory(prefix="raysaga-")
        context = multiprocessing.get_context("spawn")
        self.processes = {
            name: context.Process(target=_run, args=(name, folder, self._sockets.name), daemon=True)
            for name in (*SERVICES, SHARD)
        }

    async def start(self) -> None:
        """Start them all, and return when the shard answers.

        Raises:
            RunRefusedError: If one has ended.
        """
        for process in self.processes.values():
            process.start()
        path = _socket(self._sockets.name, SHARD)
        caller = self.caller
        protocol = await _connected(path, lambda: Frames(caller.told, caller.lost), self._look)
        self.caller.send = protocol.send

    def stop(self) -> None:
        """End them all."""
        for process in self.processes.values():
            if process.pid is not None:
                process.terminate()
                process.join()
        self._sockets.cleanup()

    def _look(self) -> None:
        for name, process in self.processes.items():
            if process.exitcode is not None:
                raise RunRefusedError(f"the process {name} has ended")


def _run(name: str, folder: Path, sockets: str) -> None:
    end_with_parent()
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(name, folder, sockets))


def _opened(folder: Path, name: str) -> Environment:
    return Environment.open(
        folder / _file_name(name),
        tables=Service.TABLES if name in SERVICES else Shard.TABLES,
        map_bytes_first=64 << 20,
        map_bytes_max=16 << 30,
        reserve_bytes=16 << 20,
    )


def _file_name(name: str) -> str:
    return name.replace("/", "-")


def _socket(sockets: str, name: str) -> str:
    return f"{sockets}/{_file_name(name)}"


async def _serve(name: str, folder: Path, sockets: str) -> None:
    environment = _opened(folder, name)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_told)
    path = _socket(sockets, name)
    if name in SERVICES:
        service = Service(environment)
        await loop.create_unix_server(lambda: Frames(service.received, _end), path)
        await asyncio.Event().wait()
    shard = Shard(environment)
    for service_name in SERVICES:
        there = _socket(sockets, service_name)
        protocol = await _connected(there, lambda: Frames(shard.answered, _end))
        shard.services.append(protocol.send)
    await loop.create_unix_server(lambda: Frames(shard.asked, _end), path)
    while True:
        await asyncio.sleep(RELEASE_EVERY_S)
        shard.release()


def _end() -> None:
    """End this process, and with it its connections: the others end as well."""
    os._exit(1)


def _told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what went wrong in a callback, and end."""
    loop.default_exception_handler(context)
    _end()


async def _connected(
    path: str, make: Callable[[], Frames], look: Callable[[], None] = lambda: None
) -> Frames:
    """Return a connection to `path` once somebody listens there; `look` may give up before."""
    loop = asyncio.get_running_loop()
    while True:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            _, protocol = await loop.create_unix_connection(make, path)
            return protocol
        look()
        await asyncio.sleep(CONNECT_EVERY_S)


def _checked(owner: bytes, body: bytes) -> bytes:
    return body + crc32(body, crc32(owner)).to_bytes(4, "big")


def _nobody(_content: bytes) -> None:
    raise ConnectionError("nobody is connected yet")
