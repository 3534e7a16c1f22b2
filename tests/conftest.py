"""What holds for all tests: they run Python's own form of every module.

Tests that break the engine on purpose replace functions by others, which calls inside
compiled modules would not see. What is compiled is held to the same by
`tests/simulation/test_histories.py`. RAYSAGA_PURE= in the environment runs all tests on
what `raysaga compile` has made.
"""

import os
import signal

import pytest

os.environ.setdefault("RAYSAGA_PURE", "1")

# A shell that starts its jobs in the background has them ignore it, and so would what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a folder in one process: they share engines, brokers and browsers."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.parent.name))
