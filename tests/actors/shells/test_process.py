"""How a process of the engine commits, and how it ends when it must."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysaga.actors.shells.process import EXIT_FATAL, CommitThread
from raysaga.storage.lmdb_environment import Environment

MUST_STOP = """
from raysaga.actors.shells.process import exit_fatally
try:
    exit_fatally(RuntimeError("the outcome of a commit is unknown"))
except BaseException as error:
    print("it goes on, with", repr(error))
"""


def test_a_process_that_must_stop_does_so_though_it_cannot_say_why() -> None:
    """Method: standard error on a disk that is full."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", MUST_STOP], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert (done.returncode, done.stdout) == (EXIT_FATAL, b"")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    opened = Environment.open(
        tmp_path, tables=("t",), map_bytes_first=1 << 20, map_bytes_max=1 << 24, reserve_bytes=0
    )
    yield opened
    opened.close()


async def test_a_commit_runs_in_the_event_loop_unless_the_disk_is_slow(
    environment: Environment,
) -> None:
    thread = CommitThread("commit", environment)
    here = threading.get_ident()
    assert await thread.commit(threading.get_ident) == here
    environment.flush_ms = 1e6
    assert await thread.commit(threading.get_ident) != here
    thread.close()


async def test_a_commit_never_overtakes_what_the_thread_does(environment: Environment) -> None:
    thread = CommitThread("commit", environment)
    may_end = threading.Event()
    began: list[str] = []

    def long() -> None:
        began.append("long")
        may_end.wait(30)

    first = asyncio.ensure_future(thread(long))
    second = asyncio.ensure_future(thread.commit(lambda: began.append("commit")))
    await asyncio.sleep(0)
    assert "commit" not in began
    may_end.set()
    await asyncio.gather(first, second)
    assert began == ["long", "commit"]
    # The thread is idle again.
    assert await thread.commit(threading.get_ident) == threading.get_ident()
    thread.close()


@pytest.mark.parametrize("flush_ms", [0.0, 1e6])
async def test_what_a_commit_raises_reaches_who_waits_for_it(
    environment: Environment, flush_ms: float
) -> None:
    environment.flush_ms = flush_ms
    thread = CommitThread("commit", environment)

    def fail() -> None:
        raise KeyError("of the commit")

    with pytest.raises(KeyError, match="of the commit"):
        await thread.commit(fail)
    thread.close()


async def test_how_long_flushes_take_is_measured(environment: Environment) -> None:
    assert environment.flushes_quickly, "until one was slow"
    environment.write(lambda transaction: transaction.put("t", b"k", b"v"))
    after_one = environment.flush_ms
    assert after_one > 0
    environment.write(lambda transaction: transaction.get("t", b"k"))
    assert environment.flush_ms == after_one, "what changes nothing waits for no disk"
    environment.flush_ms = 1e6
    assert not environment.flushes_quickly
    environment.write(lambda transaction: transaction.put("t", b"k", b"w"))
    assert environment.flush_ms < 1e6, "a disk that has recovered is noticed"


COLLECTS = """
import gc
from raysaga.actors.collector import spare_collections
before = len(gc.get_objects())
spare_collections()
print(len(gc.get_objects()) < before, gc.get_freeze_count() > 0, gc.isenabled())
"""


def test_old_objects_are_spared_by_the_collector_and_new_ones_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTS], capture_output=True, check=True)
    assert done.stdout.split() == [b"True", b"True", b"True"]
