"""What holds for all tests: they run Python's own form of every module.

Tests that break the engine on purpose replace functions by others, which calls inside
compiled modules would not see. What is compiled is held to the same by
`tests/simulation/test_histories.py`. RAYSAGA_PURE= in the environment runs all tests on
what `raysaga compile` has made.
"""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("RAYSAGA_PURE", "1")

# A shell that starts its jobs in the background has them ignore it, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class ByFolder(LoadScopeScheduling):
    """Keeps the tests of a folder in one process: they share engines, brokers and browsers."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    """Divide the tests among processes, if there are several.

    Not by marks of groups: pytest-xdist 3.8 cannot tell them to the other end with pytest 9.2.
    """
    return ByFolder(config, log)
