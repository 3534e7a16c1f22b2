"""Carries exchanges between two processes of one machine over a unix socket.

Ray places and supervises the actors; where both ends run on one node, the bytes
need not go through it: a round trip takes some fifty microseconds of a socket,
and more than a millisecond as a Ray call (measured). What is carried means the
same, and so does its loss: a connection that ends fails the exchanges under way.

Guarantees: an answer belongs to its exchange. Nothing about delivery; see `lane`.
Refuses: a frame that is too large, and a folder of sockets that another user
could reach: whoever can connect can give orders.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

from raysaga.actors.wire import BATCH_BYTES_MAX, MESSAGE_BYTES_MAX
from raysaga.statemachines.errors import SagaError

_HEADER = struct.Struct("<IBQ")
"""Length of what follows, what it is, and the number of the exchange."""

_BATCH, _REFUSED = 0, 1

_FRAME_BYTES_MAX = BATCH_BYTES_MAX + MESSAGE_BYTES_MAX

Exchange = Callable[[bytes], Awaitable[bytes]]


def socket_path(name: str) -> Path:
    """Return where the socket of the actor `name` is, the same in each of its incarnations.

    In the machine's folder for temporary files, since a socket's path is bounded to a hundred
    bytes (sockaddr_un) and a data folder's is not.

    Raises:
        PermissionError: If the folder of the sockets is not this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"raysaga-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{folder} is open to other users")
    if not stat.S_ISDIR(status.st_mode):
        raise PermissionError(f"{folder} is no folder")
    return folder / f"{hashlib.blake2b(name.encode(), digest_size=12).hexdigest()}.sock"


class LocalDoor:
    """The responder's end: a socket on which exchanges arrive."""

    def __init__(self, path: Path, server: asyncio.AbstractServer) -> None:
        self.path = path
        self._server = server
        self._place = path.stat().st_ino

    @classmethod
    async def open(cls, path: Path, exchange: Exchange) -> LocalDoor:
        """Listen at `path`, in place of whoever did so before.

        Raises:
            OSError: If that is not possible.
        """
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - in memory, and before anything is served
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _Guest(exchange), str(path))
        return cls(path, server)

    def close(self) -> None:
        """Take no more connections; those that are open go with the process."""
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            # A newer incarnation may have taken the place already.
            if self.path.stat().st_ino == self._place:
                self.path.unlink()


class _Frames(asyncio.Protocol):
    """One connection, cut into frames."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What uvloop makes says that it is no `asyncio.Transport`, and has the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        for kind, number, content in self._frames():
            self.frame_received(kind, number, content)

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        begin = 0
        while len(self._received) - begin >= _HEADER.size:
            length, kind, number = _HEADER.unpack_from(self._received, begin)
            if length > _FRAME_BYTES_MAX:
                self.hang_up()
                return
            end = begin + _HEADER.size + length
            if len(self._received) < end:
                break
            yield kind, number, bytes(memoryview(self._received)[begin + _HEADER.size : end])
            begin = end
        del self._received[:begin]

    def frame_received(self, _kind: int, _number: int, _content: bytes) -> None:
        """Do with one frame what this end does."""
        raise NotImplementedError

    def write(self, kind: int, number: int, content: bytes) -> None:
        """Send one frame; it is lost if the connection is."""
        if self._transport is not None:
            self._transport.write(_HEADER.pack(len(content), kind, number) + content)

    def hang_up(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()


class _Guest(_Frames):
    """The responder's end of one connection."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange
        self._answering: set[asyncio.Task[None]] = set()

    def frame_received(self, _kind: int, number: int, content: bytes) -> None:
        """Begin to answer an exchange."""
        task = asyncio.get_running_loop().create_task(self._answer(number, content))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, number: int, batch: bytes) -> None:
        try:
            answer = await self._exchange(batch)
        except SagaError as error:
            self.write(_REFUSED, number, f"{error.code}: {error}".encode())
        else:
            self.write(_BATCH, number, answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail or abandon what is under way."""
        super().connection_lost(exc)
        for task in self._answering:
            task.cancel()


class LocalWire(_Frames):
    """The sender's end: one connection to one door."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0

    @classmethod
    async def connect(cls, path: str) -> LocalWire:
        """Return a connection to the door at `path`.

        Raises:
            OSError: If nobody listens there.
        """
        _, wire = await asyncio.get_running_loop().create_unix_connection(cls, path)
        return wire

    async def exchange(self, batch: bytes) -> bytes:
        """Carry `batch` there and the answer back.

        Raises:
            ConnectionError: If the connection ended, or the other end refused the batch; in
                the first case it may have been taken.
        """
        if self._transport is None:
            raise ConnectionError("the connection has ended")
        self._number += 1
        number = self._number
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self.write(_BATCH, number, batch)
        try:
            return await answer
        finally:
            del self._asked[number]

    def frame_received(self, kind: int, number: int, content: bytes) -> None:
        """Give an exchange its answer; one that has been given up gets none."""
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return
        if kind == _BATCH:
            answer.set_result(content)
        else:
            answer.set_exception(ConnectionError(content.decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail or abandon what is under way."""
        super().connection_lost(exc)
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ConnectionError("the connection has ended"))
