"""An event loop whose time jumps to the next timer, and lives whose end leaves nothing running.

A test waits for no real second and sees the same order of things each time. If
nothing is ready and no timer is set, a real loop would wait for ever; this one
says so at once. What is scheduled within a `Life` is dropped once it has ended,
as with a process that was killed: no callback, no timer, no `finally`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any

START_MS = 1_700_000_000_000
"""Unix time at the beginning of each test."""

SECONDS_MAX = 4 * 3_600.0
"""How far a test's time may run; what takes longer waits for something that never comes."""


class Life:
    """What a process is to the machine: all that it has scheduled ends with it."""

    current: ContextVar[Life | None] = ContextVar("life", default=None)

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False
        self._asked: set[asyncio.Future[Any]] = set()

    def end(self) -> None:
        """End it at once; who waits for an answer of it learns that there will be none."""
        self.is_over = True
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ConnectionError(f"{self.name} has died"))

    async def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine within this life, and return its result to the caller's.

        Raises:
            ConnectionError: If this life is over, or ends meanwhile.
        """
        if self.is_over:
            coroutine.close()
            raise ConnectionError(f"{self.name} is dead")
        answer = asyncio.get_running_loop().create_future()
        self._asked.add(answer)

        def settle(task: asyncio.Task[Any]) -> None:
            if not answer.done():
                if task.cancelled():
                    answer.set_exception(ConnectionError(f"{self.name} broke off"))
                elif task.exception() is not None:
                    answer.set_exception(task.exception())
                else:
                    answer.set_result(task.result())

        task = self.task(coroutine)
        task.add_done_callback(settle)
        try:
            return await answer
        finally:
            self._asked.discard(answer)

    def context(self) -> Context:
        """Return a context in which everything belongs to this life."""
        context = copy_context()
        context.run(Life.current.set, self)
        return context

    def run(self, call: Callable[[], Any]) -> Any:
        """Call within this life."""
        return self.context().run(call)

    def task(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run a coroutine within this life."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context())


def _if_alive(life: Life, callback: Callable[..., Any], *args: Any) -> None:
    if not life.is_over:
        callback(*args)


class _Leap(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for nothing: moves the clock to where the loop would wake up."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: this would wait for ever")
        self.loop.instant += max(timeout, 0.0)
        if self.loop.instant > SECONDS_MAX:
            raise RuntimeError(f"{SECONDS_MAX} seconds of virtual time have passed")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the head of this module."""

    def __init__(self) -> None:
        self.instant = 0.0
        self.troubles: list[str] = []
        self.expected: list[BaseException] = []
        self._made: list[tuple[asyncio.Task[Any], Life | None]] = []
        leap = _Leap()
        leap.loop = self
        super().__init__(leap)
        self.set_exception_handler(self._note_trouble)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self.instant

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(_if_alive, life, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, _if_alive, life, callback, *args, context=context)

    def run(self, main: Awaitable[Any]) -> Any:
        """Run `main`; fail if anything beside it has failed unnoticed."""
        try:
            asyncio.set_event_loop(self)
            return self.run_until_complete(main)
        finally:
            self._bury()
            asyncio.set_event_loop(None)

    def assert_no_trouble(self) -> None:
        """Fail if a task or a callback that nobody waited for has raised."""
        for task, life in self._made:
            if life is not None and life.is_over:
                continue
            # Who asked one that died, and was not there any more to hear it, is no trouble.
            error = None if _is_forgettable(task) or not task.done() else task.exception()
            if error not in (None, *self.expected) and not isinstance(error, ConnectionError):
                self.troubles.append(f"{task!r}")
        assert not self.troubles, "\n".join(self.troubles)

    def _make_task(self, loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        # Kept, so that no collector closes the coroutines of the dead in another's time.
        task = asyncio.Task(coro, loop=loop, **kwargs)
        context = kwargs.get("context")
        life = Life.current.get() if context is None else context.get(Life.current)
        self._made.append((task, life))
        if len(self._made) > 4_096:
            self._made = [item for item in self._made if not _is_forgettable(item[0])]
        return task

    def _note_trouble(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error not in self.expected:
            self.troubles.append(f"{context['message']} {error!r}")

    def _bury(self) -> None:
        """Close what still runs, without letting it do anything any more."""
        for task, _ in self._made:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coroutine = task.get_coro()
                with contextlib.suppress(BaseException):
                    coroutine.close()  # type: ignore[union-attr]


def _is_forgettable(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is over, and its error, if any, was heard by somebody."""
    return task.done() and (task.cancelled() or not getattr(task, "_log_traceback", False))


class VirtualClock:
    """A `Clock` on the loop's time; the wall clock can be moved against it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wall_offset_ms = 0

    def now_ms(self) -> int:
        return START_MS + self.wall_offset_ms + int(self._loop.instant * 1_000)

    def monotonic_ms(self) -> float:
        return self._loop.instant * 1_000

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(max(delay_ms, 0.0) / 1_000)


@contextlib.contextmanager
def virtual_loop() -> Iterator[VirtualLoop]:
    """Give a loop, and fail at the end if anything in it has failed unnoticed."""
    loop = VirtualLoop()
    try:
        yield loop
        loop.assert_no_trouble()
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
