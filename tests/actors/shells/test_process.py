"""How a process of the engine ends when it must."""

from __future__ import annotations

import subprocess
import sys

from raysaga.actors.shells.process import EXIT_FATAL

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
