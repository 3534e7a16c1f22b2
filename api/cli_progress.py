"""Shows how far a command is: a bar where a person watches, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from raysaga.api.cli_terminal import Terminal

BAR_EVERY_S = 0.2
"""How often a bar moves."""

TOLD_EVERY_S = 10.0
"""Pause between two lines where nobody watches a bar."""

Part = Callable[[str, int, int], None]
"""Takes the name of a part, how much of it is done, and how much there is."""

SoFar = Callable[[], tuple[int, str]]
"""Gives how much is done, and what to say of it."""


@contextmanager
def parts_shown(terminal: Terminal) -> Iterator[Part]:
    """Show a bar for each part that is told, if a person is there to see it."""
    if not terminal.is_watched:
        yield _tell_nobody
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def tell(part: str, done: int, there_are: int) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task(part, total=there_are)
            progress.update(tasks[part], completed=done, total=there_are)

        yield tell


def _tell_nobody(_part: str, _done: int, _there_are: int) -> None:
    pass


@asynccontextmanager
async def count_shown(terminal: Terminal, total: int | None, so_far: SoFar) -> AsyncIterator[None]:
    """Show how many of `total` are done, for as long as the block runs."""
    if not terminal.is_watched:
        of = "" if total is None else f" of {total:,}"

        def say() -> None:
            done, told = so_far()
            terminal.note(f"{done:,}{of} lines settled: {told}")

        async with _again_and_again(say, TOLD_EVERY_S):
            yield
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=terminal.err, transient=True) as progress:
        task = progress.add_task("", total=total)

        def show() -> None:
            done, told = so_far()
            progress.update(task, completed=done, description=told)

        async with _again_and_again(show, BAR_EVERY_S):
            yield


@asynccontextmanager
async def _again_and_again(tell: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    async def loop() -> None:
        while True:
            await asyncio.sleep(every_s)
            tell()

    telling = asyncio.ensure_future(loop())
    try:
        yield
    finally:
        telling.cancel()
