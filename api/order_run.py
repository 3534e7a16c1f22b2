"""Drives every order of a file through the order saga, and can be done again at any time.

Guarantees: an order's id is its key, so a file that is run again finishes what is left of it
and begins nothing twice; what ended before is recognised by reading the data folder, at some
ten thousand orders a second. A line that is no valid order is rejected, with its number and
the reason, and the rest goes on. The same id with another body is such a line.
Refuses: to go on when the engine has no room or is gone; what was begun is on disk.
Costs: the file is read as a stream; about 100 bytes of memory an order, to tell repeated lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, NamedTuple

from raysaga.actors.archive import Archive
from raysaga.actors.errors import IdempotencyConflictError, OverloadedError
from raysaga.actors.gateway import fingerprint_of
from raysaga.api.client import Sagas
from raysaga.api.order_schema import ORDER_BYTES_MAX, Order, OrderInvalid, parse_order_line
from raysaga.statemachines.errors import SagaError, ValidationError
from raysaga.statemachines.ids import saga_id_of
from raysaga.statemachines.order import order_saga
from raysaga.statemachines.tables import PARKED, TERMINAL

BREATH_S: Final = 0.02
"""How long lines are read at a stretch before the answers of the engine are looked at."""

CHUNK_BYTES: Final = 1 << 20
"""What is read at once of the rest of a line that is too long."""

REPEATS_KNOWN_MAX: Final = 20_000_000
"""Ids that are remembered, at 2 GB; a line repeated later than that is counted as an order."""


class Line(NamedTuple):
    """A line of the file: its number, counted from 1, and its bytes.

    One that is too long for an order is cut, and still too long.
    """

    number: int
    raw: bytes


class Reject(NamedTuple):
    """A line that did not become a saga.

    Attributes:
        line: Its number.
        order_id: The order's, None if the line is no order.
        code: Stable code of the reason.
        reason: The same for people.
    """

    line: int
    order_id: str | None
    code: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Tally:
    """What has become of the lines so far.

    Attributes:
        lines: Lines read.
        begun: Sagas that this run began.
        known: Orders that had ended before this run came to them.
        completed: Orders that completed, in this run or before.
        compensated: Orders that were undone, by code and step.
        parked: Orders that wait for a person, by code and step.
        rejected: Lines without a saga, by code.
        repeated: Lines that are the same order again.
    """

    lines: int = 0
    begun: int = 0
    known: int = 0
    completed: int = 0
    compensated: Counter[tuple[str, str]] = field(default_factory=Counter)
    parked: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    repeated: int = 0

    @property
    def ended(self) -> int:
        """Orders whose end is known, parked ones included."""
        return self.completed + self.compensated.total() + self.parked.total()

    @property
    def settled(self) -> int:
        """Lines that need no more work."""
        return self.ended + self.rejected.total() + self.repeated

    def count(self, phase: str, code: str, step: str) -> None:
        """Count the end of an order."""
        if phase == "completed":
            self.completed += 1
        elif phase == "compensated":
            self.compensated[code, step] += 1
        else:
            self.parked[code, step] += 1

    def to_data(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {
            "lines": self.lines,
            "begun": self.begun,
            "known": self.known,
            "completed": self.completed,
            "compensated": _rows(self.compensated),
            "parked": _rows(self.parked),
            "rejected": dict(sorted(self.rejected.items())),
            "repeated": self.repeated,
        }


def _rows(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"code": code, "step": step, "count": n} for (code, step), n in ordered]


def order_lines(file: BinaryIO, limit: int | None = None) -> Iterator[Line]:
    """Yield the lines of a file that are not blank, at most `limit`; bounded in memory."""
    number = yielded = 0
    while limit is None or yielded < limit:
        raw = file.readline(ORDER_BYTES_MAX + 2)
        if not raw:
            return
        number += 1
        if not raw.endswith(b"\n") and len(raw) > ORDER_BYTES_MAX:
            while (rest := file.readline(CHUNK_BYTES)) and not rest.endswith(b"\n"):
                pass
        if raw.strip():
            yielded += 1
            yield Line(number, raw)


class OrderRun:
    """One pass over the lines of a file; use it once.

    Attributes:
        tally: What has become of the lines so far.
        failure: Why it stopped by itself; None if it did not.
        left_count: Orders under way that it no longer waits for.
    """

    def __init__(
        self,
        sagas: Sagas,
        archive: Archive,
        *,
        in_flight_max: int,
        dedicated: bool,
        reject: Callable[[Reject], None],
    ) -> None:
        """Make a run.

        Args:
            sagas: The engine.
            archive: Its data folder, to recognise what has ended already.
            in_flight_max: Orders under way at one time.
            dedicated: Whether each gets an actor of its own.
            reject: Told of each line that is rejected.
        """
        assert in_flight_max >= 1
        self.tally = Tally()
        self.failure: SagaError | None = None
        self.left_count = 0
        self._sagas = sagas
        self._archive = archive
        self._dedicated = dedicated
        self._tell_reject = reject
        self._room = asyncio.Semaphore(in_flight_max)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._crash: BaseException | None = None
        self._seen: set[int] = set()
        self._chance = random.Random()

    @property
    def is_stopping(self) -> bool:
        """Whether no more lines are taken."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Take no more lines; what is under way goes on."""
        self._stopping.set()

    async def drive(self, lines: Iterator[Line], *, drain_s: float) -> None:
        """Return when every line is settled; or, once stopped, when nothing is under way.

        Args:
            lines: From `order_lines`.
            drain_s: How long to wait for what is under way, once stopped.
        """
        loop = asyncio.get_running_loop()
        breath_at_s = loop.time() + BREATH_S
        for line in lines:
            if self.is_stopping:
                break
            self.tally.lines += 1
            await self._take(line)
            if loop.time() >= breath_at_s:
                # Lines that were settled before would otherwise keep the loop for themselves.
                await asyncio.sleep(0)
                breath_at_s = loop.time() + BREATH_S
        await self._drain(drain_s)
        if self._crash is not None:
            raise self._crash

    async def _drain(self, drain_s: float) -> None:
        stopped = asyncio.ensure_future(self._stopping.wait())
        while self._tasks and not stopped.done():
            await asyncio.wait({stopped, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=drain_s)
        self.left_count = len(self._tasks)
        for task in list(self._tasks):
            task.cancel()

    async def _take(self, line: Line) -> None:
        try:
            order = parse_order_line(line.raw.rstrip(b"\r\n"))
        except OrderInvalid as error:
            self._reject(Reject(line.number, None, error.code, str(error)))
            return
        repeats = self._is_repeated(order.order_id)
        if self._was_settled(line, order, repeats):
            return
        await self._room.acquire()
        if self.is_stopping:
            self._room.release()
            return
        task = asyncio.ensure_future(self._drive_one(line, order, repeats))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        crash = None if task.cancelled() else task.exception()
        if crash is not None:
            self._crash = self._crash or crash
            self.stop()

    def _is_repeated(self, order_id: str) -> bool:
        digest = hashlib.blake2b(order_id.encode(), digest_size=8).digest()
        mark = int.from_bytes(digest, "big")
        if mark in self._seen:
            return True
        if len(self._seen) < REPEATS_KNOWN_MAX:
            self._seen.add(mark)
        return False

    def _was_settled(self, line: Line, order: Order, repeats: bool) -> bool:
        """Settle a line whose order is over or another one's; return whether it was."""
        known = self._archive.known(saga_id_of(order_saga.name, order.order_id))
        if known is None:
            return False
        if known.fingerprint != fingerprint_of(order_saga, order.to_request()):
            self._refuse(line, order, IdempotencyConflictError(order.order_id))
            return True
        if known.phase not in TERMINAL | PARKED:
            return False
        if repeats:
            self.tally.repeated += 1
        else:
            self.tally.known += 1
            self.tally.count(known.phase, known.code, known.step)
        return True

    async def _drive_one(self, line: Line, order: Order, repeats: bool) -> None:
        while True:
            try:
                handle = await self._sagas.submit(
                    order_saga, order, key=order.order_id, dedicated=self._dedicated
                )
                self.tally.begun += handle.is_new
                if repeats:
                    self.tally.repeated += 1
                    return
                outcome = await handle.result()
                self.tally.count(outcome.status, outcome.code, outcome.step)
            except OverloadedError as error:
                if self.is_stopping:
                    return
                # Jitter keeps those that were turned away together from coming back together.
                await asyncio.sleep(error.retry_after_ms * (0.5 + self._chance.random()) / 1_000)
                continue
            except (ValidationError, IdempotencyConflictError) as error:
                self._refuse(line, order, error)
            except SagaError as error:
                self.failure = self.failure or error
                self.stop()
            return

    def _refuse(self, line: Line, order: Order, error: SagaError) -> None:
        self._reject(Reject(line.number, order.order_id, error.code, str(error)))

    def _reject(self, rejected: Reject) -> None:
        self.tally.rejected[rejected.code] += 1
        self._tell_reject(rejected)
