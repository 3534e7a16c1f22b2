"""One process of ours that is talked to in lines of JSON, and ended for certain.

It is told its facts as its first line, says `{"ready": …}` when it is, and answers each order
`{"id", "verb", …}` with `{"id", "ok"}` or `{"id", "error"}`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from raysaga.simulation.chaos.fault import NeverHappenedError
from raysaga.statemachines.errors import SagaError

LINE_BYTES_MAX = 16 << 20


class ChildGoneError(SagaError):
    """The process has ended, or refused.

    Attributes:
        what: What is known of it.
    """

    code = "CHILD_GONE"

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return self.what


class Child:
    """One process.

    Attributes:
        pid: Its process id.
        expected: Whether its end is no surprise.
        heard: The last value of each thing that it told without being asked.
    """

    def __init__(self, process: Process) -> None:
        self.pid = process.pid
        self.expected = False
        self.heard: dict[str, Any] = {}
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        told: Mapping[str, Any],
        log: Path,
    ) -> Child:
        """Start `command` in a session of its own; what it writes to standard error is kept."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                env=dict(environment),
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        child = cls(process)
        child._write(told)
        return child

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._reading.done()

    def _write(self, line: Mapping[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(ConnectionError, RuntimeError):
            stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while line := await stdout.readline():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if not isinstance(said, dict):
                continue
            asked = self._asked.pop(said.get("id", 0), None)
            if asked is not None and not asked.done():
                if "error" in said:
                    asked.set_exception(ChildGoneError(said["error"]))
                else:
                    asked.set_result(said.get("ok"))
            elif "id" not in said:
                self.heard |= said
                self._news.set()
        await self._process.wait()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ChildGoneError(f"process {self.pid} has ended"))
        self._news.set()

    async def hears(self, what: str, timeout_s: float) -> Any:
        """Return what the process tells under the name `what`, once it has.

        Raises:
            NeverHappenedError: If it ends before, or takes too long.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while what not in self.heard and not self.has_ended:
                    self._news.clear()
                    await self._news.wait()
        if what not in self.heard:
            ended = ", and it has ended" if self.has_ended else ""
            raise NeverHappenedError(f"process {self.pid} says {what}{ended}", timeout_s)
        return self.heard[what]

    async def ask(self, verb: str, facts: Mapping[str, Any], timeout_s: float) -> Any:
        """Give an order; return the answer.

        Raises:
            ChildGoneError: If it ends before, or says that it cannot.
            NeverHappenedError: If it does not answer.
        """
        if self.has_ended:
            raise ChildGoneError(f"process {self.pid} has ended")
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._write({"id": number, "verb": verb, **facts})
        try:
            return await asyncio.wait_for(asked, timeout_s)
        except TimeoutError:
            raise NeverHappenedError(f"process {self.pid} answers {verb}", timeout_s) from None
        finally:
            self._asked.pop(number, None)

    async def stop(self, timeout_s: float) -> None:
        """Have it end by itself, or kill it; its children may go on."""
        self.expected = True
        if not self.has_ended:
            self._write({"id": 0, "verb": "stop"})
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), timeout_s)
        await self.close()

    async def close(self) -> None:
        """Kill it if it still runs, and wait until it is gone."""
        self.expected = True
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        # A descendant may hold the other end open; nothing more is expected from it.
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reading), 5.0)
        self._reading.cancel()
        await self._process.wait()
