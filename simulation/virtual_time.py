"""An event loop whose time jumps to the next timer, and lives whose end leaves nothing running.

Nobody waits for a real second, and the order of things is the same each time. If
nothing is ready and no timer is set, a real loop would wait for ever; this one
says so at once. What is scheduled within a `Life` is dropped once it has ended,
as with a process that was killed: no callback, no timer, no `finally`. While it
is paused, everything of it waits, as with a process that was stopped by a signal.

Costs: no system call at all; some ten microseconds for each callback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

START_MS = 1_700_000_000_000
"""Unix time at the beginning of each history."""

SECONDS_MAX = 4 * 3_600.0
"""How far time may run; what takes longer waits for something that never comes."""

_MADE_MAX = 4_096
"""Tasks that are remembered before those that are over are let go."""


class Life:
    """What a process is to the machine: all that it has scheduled ends with it."""

    current: ContextVar[Life | None] = ContextVar("life", default=None)

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_over = False
        self._held: list[tuple[Context, Callable[..., Any], tuple[Any, ...]]] | None = None
        # In the order in which they asked: a set would be ordered by address.
        self._asked: dict[asyncio.Future[Any], None] = {}

    @property
    def is_paused(self) -> bool:
        """Whether it stands still."""
        return self._held is not None

    def end(self) -> None:
        """End it at once; who waits for an answer of it learns that there will be none."""
        self.is_over = True
        self._held = None
        for answer in self._asked:
            if not answer.done():
                answer.set_exception(ConnectionError(f"{self.name} has died"))

    def pause(self) -> None:
        """Stand still from now on; time goes on."""
        if not self.is_over and self._held is None:
            self._held = []

    def wake(self) -> None:
        """Do all that has become due meanwhile, in its order."""
        held, self._held = self._held, None
        loop = asyncio.get_running_loop()
        for context, callback, args in held or ():
            loop.call_soon(callback, *args, context=context)

    async def ask(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine within this life, and return its result to the caller's.

        Raises:
            ConnectionError: If this life is over, or ends meanwhile.
        """
        if self.is_over:
            coroutine.close()
            raise ConnectionError(f"{self.name} is dead")
        answer = asyncio.get_running_loop().create_future()
        self._asked[answer] = None

        def settle(task: asyncio.Task[Any]) -> None:
            if not answer.done():
                if task.cancelled():
                    answer.set_exception(ConnectionError(f"{self.name} broke off"))
                elif (error := task.exception()) is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(task.result())

        task = self.task(coroutine)
        task.add_done_callback(settle)
        try:
            return await answer
        finally:
            self._asked.pop(answer, None)

    def context(self) -> Context:
        """Return a context in which everything belongs to this life."""
        context = copy_context()
        context.run(Life.current.set, self)
        return context

    def run(self, call: Callable[[], Any]) -> Any:
        """Call within this life."""
        return self.context().run(call)

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call within this life, in the next turn, unless it is over by then."""
        asyncio.get_running_loop().call_soon(callback, *args, context=self.context())

    def task(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run a coroutine within this life."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context())

    def _do(self, callback: Callable[..., Any], *args: Any) -> None:
        if self._held is not None:
            self._held.append((copy_context(), callback, args))
        elif not self.is_over:
            callback(*args)


class _Leap:
    """Waits for nothing: moves the clock to where the loop would wake up."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing is ready and no timer is set: this would wait for ever")
        if timeout > 0:
            self._loop.instant += timeout
            if self._loop.instant > SECONDS_MAX:
                raise RuntimeError(f"{SECONDS_MAX} seconds of virtual time have passed")
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """See the head of this module. It has no files, sockets or threads.

    Attributes:
        instant: Seconds since the beginning.
        troubles: What has failed without anybody to hear it.
        expected: Errors that are none of them.
    """

    def __init__(self) -> None:
        self.instant = 0.0
        self.troubles: list[str] = []
        self.expected: list[BaseException] = []
        self._made: list[tuple[asyncio.Task[Any], Life | None]] = []
        super().__init__()
        self._selector = _Leap(self)
        self.set_exception_handler(self._note_trouble)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        """Return seconds since the beginning."""
        return self.instant

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """See `asyncio`."""
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(life._do, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        """See `asyncio`."""
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, life._do, callback, *args, context=context)

    def run(self, main: Awaitable[Any]) -> Any:
        """Run `main`, and close what it leaves running."""
        try:
            asyncio.set_event_loop(self)
            return self.run_until_complete(main)
        finally:
            self._bury()
            asyncio.set_event_loop(None)

    def unheard(self) -> list[str]:
        """Return what failed in a task or a callback that nobody waited for."""
        for task, life in self._made:
            if life is not None and life.is_over:
                continue
            # Who asked one that died, and was not there any more to hear it, is no trouble.
            error = None if _is_forgettable(task) or not task.done() else task.exception()
            if error not in (None, *self.expected) and not isinstance(error, ConnectionError):
                self.troubles.append(f"{task!r}")
        return self.troubles

    def _process_events(self, _events: Any) -> None:
        """Take note of nothing: there is nothing outside."""

    def _write_to_self(self) -> None:
        """Wake nobody: there are no other threads."""

    def _make_task(self, loop: Any, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        # Kept, so that no collector closes the coroutines of the dead in another's time.
        task = asyncio.Task(coro, loop=loop, **kwargs)
        context = kwargs.get("context")
        life = Life.current.get() if context is None else context.get(Life.current)
        self._made.append((task, life))
        if len(self._made) > _MADE_MAX:
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
                    coroutine.close()


def _is_forgettable(task: asyncio.Task[Any]) -> bool:
    """Return whether a task is over, and its error, if any, was heard by somebody."""
    return task.done() and (task.cancelled() or not getattr(task, "_log_traceback", False))


class VirtualClock:
    """A `Clock` on the loop's time; its wall clock can be moved against it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wall_offset_ms = 0

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""
        return START_MS + self.wall_offset_ms + int(self._loop.instant * 1_000)

    def monotonic_ms(self) -> float:
        """Return milliseconds since the beginning."""
        return self._loop.instant * 1_000

    async def sleep_ms(self, delay_ms: float) -> None:
        """Return after `delay_ms`."""
        await asyncio.sleep(max(delay_ms, 0.0) / 1_000)
