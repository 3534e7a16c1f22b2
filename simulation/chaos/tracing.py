"""Makes system calls of a running process fail, by strace(1), on one file only.

Guarantees: the call fails without being carried out, and strace writes that down; when the
`with` is left the process is let go, and strace is gone.
Costs: the process is stopped twice at each of its system calls for as long as this lasts.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from raysaga.simulation.chaos.fault import NeverHappenedError

ATTACH_S_MAX = 20.0
LET_GO_S_MAX = 3.0

_INJECTED = re.compile(r"\(INJECTED\)")


class Tracing:
    """One attachment.

    Attributes:
        rule: What fails, in words of strace's `inject`.
    """

    def __init__(self, rule: str, notes: Path) -> None:
        self.rule = rule
        self._notes = notes

    def struck(self) -> list[str]:
        """Return the calls that were made to fail so far, as strace writes them."""
        with suppress(FileNotFoundError):
            text = self._notes.read_text(encoding="utf-8", errors="replace")
            return [line for line in text.splitlines() if _INJECTED.search(line)]
        return []


@asynccontextmanager
async def failing(
    pid: int, syscall: str, error: str, *, when: int, file: Path, notes: Path
) -> AsyncIterator[Tracing]:
    """Make the `when`th call from now on fail that a process makes with `file`.

    Args:
        pid: The process, with all its threads.
        syscall: Such as `fdatasync`.
        error: Such as `EIO`.
        when: Which call fails, counted from 1; only that one.
        file: The file that the call must be about.
        notes: What strace writes to; made anew.

    Raises:
        NeverHappenedError: If strace does not get hold of the process.
    """
    rule = f"{syscall}:error={error}:when={when}"
    command = ["strace", "-f", "-p", str(pid), "-P", str(file), "-o", str(notes)]
    command += ["-e", f"trace={syscall}", "-e", f"inject={rule}"]
    strace = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    try:
        await _attached(strace, pid)
        yield Tracing(rule, notes)
    finally:
        await _let_go(strace)


async def _let_go(strace: Process) -> None:
    """End strace, which may wait for ever for a process that died while it was traced."""
    for end in (strace.terminate, strace.kill):
        if strace.returncode is None:
            with suppress(ProcessLookupError):
                end()
        with suppress(TimeoutError):
            await asyncio.wait_for(strace.wait(), LET_GO_S_MAX)
            return


async def _attached(strace: Process, pid: int) -> None:
    assert strace.stderr is not None
    said = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(ATTACH_S_MAX):
            while line := await strace.stderr.readline():
                said += line
                if b"attached" in line:
                    return
    what = said.decode(errors="replace").strip()
    raise NeverHappenedError(f"strace is attached to process {pid}: {what}", ATTACH_S_MAX)
