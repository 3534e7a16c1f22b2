"""What every process of the engine does first, and how it ends when it must.

A process that was fenced out, or does not know whether a commit reached the
disk, stops without answering anybody: what it held in memory never happened.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from raysaga.actors.collector import spare_collections
from raysaga.storage.lmdb_environment import Environment

EXIT_FATAL = 70
"""Exit status of a process that had to stop; EX_SOFTWARE of sysexits.h."""

PARENT_LOOK_S = 0.5
"""Pause between two looks whether the Ray that a process belongs to is still there."""

SWITCH_INTERVAL_S = 0.0005
"""A thread that commits, as on a slow disk, hands the interpreter over at every row that it reads
or deletes; beside a busy loop it would wait for Python's default of 5 ms each time."""


def prepare_process() -> None:
    """Tune the interpreter for one busy loop and one committing thread."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    spare_collections()


def end_with_ray() -> None:
    """End this process soon after the Ray node that started it, however that one ended.

    Ray's workers ask whether the process id of their node still exists. Where nobody reaps
    the dead, as in a container whose first process is no init, a killed node keeps its id, and
    its workers would hold the data folder for ever (Ray 2.60).
    """
    node = os.getppid()

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == node:
            pause.wait(PARENT_LOOK_S)
        exit_fatally(ProcessLookupError(f"the Ray node in process {node} is gone"))

    threading.Thread(target=watch, name="end-with-ray", daemon=True).start()


def exit_fatally(error: BaseException) -> NoReturn:
    """Write why to standard error if that is possible, and end the process at once."""
    try:
        sys.stderr.write(f"raysaga: process {os.getpid()} stops: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(EXIT_FATAL)


def owner_name() -> str:
    """Return who this process is, for people: host name and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class CommitThread:
    """One thread that runs blocking calls in order; LMDB binds a write to its thread."""

    def __init__(self, name: str, environment: Environment) -> None:
        """Make the thread's queue.

        Args:
            name: The thread's.
            environment: Where it commits.
        """
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._environment = environment
        self._under_way = 0

    def __call__(self, call: Callable[[], Any]) -> Awaitable[Any]:
        """Run `call` in the thread."""
        self._under_way += 1
        done = asyncio.get_running_loop().run_in_executor(self._executor, call)
        done.add_done_callback(self._is_over)
        return done

    def commit(self, call: Callable[[], Any]) -> Awaitable[Any]:
        """Run a short `call` that ends with a flush: here if that is quicker, else in the thread.

        Never beside what the thread does, for whose write it would have to wait.
        """
        if self._under_way or not self._environment.flushes_quickly:
            return self(call)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            done.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed on to who waits for the call
            done.set_exception(error)
        return done

    def _is_over(self, _done: object) -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._executor.shutdown(wait=False)
