"""Tests in virtual time: a loop for each, and waiting for conditions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from raysaga.simulation.virtual_time import Life, VirtualClock, VirtualLoop

__all__ = [
    "Life",
    "VirtualClock",
    "VirtualLoop",
    "in_virtual_time",
    "turns",
    "until",
    "virtual_loop",
]


@contextlib.contextmanager
def virtual_loop() -> Iterator[VirtualLoop]:
    """Give a loop, and fail at the end if anything in it has failed unnoticed."""
    loop = VirtualLoop()
    try:
        yield loop
        assert not loop.unheard(), "\n".join(loop.troubles)
    finally:
        loop.close()


def in_virtual_time(test: Callable[..., Any]) -> Callable[..., Any]:
    """Make a coroutine function a plain test that runs in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with virtual_loop() as loop:
            loop.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], Any], *, within_s: float = 120.0) -> Any:
    """Return what `condition` gives once it is true; it is looked at every few milliseconds."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + within_s
    pause_s = 0.001
    while not (found := condition()):
        assert loop.time() < limit, f"{condition} did not come true within {within_s} s"
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.2, 0.05)
    return found


async def turns(count: int = 5) -> None:
    """Let everything that is ready run, without letting time pass."""
    for _ in range(count):
        await asyncio.sleep(0)
