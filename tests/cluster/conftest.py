"""One real engine on a real local Ray for all tests of this folder; each has its own orders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    # Ray's workers import the troubled services by name, and so do we.
    sys.path.insert(0, HERE)

from cluster_engine import Engine, start_engine  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _workers_find_the_troubled_services() -> None:
    paths = [HERE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


@pytest.fixture(scope="session")
def _shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine") / "data"


@pytest.fixture(scope="module")
def engine(_shared_folder: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine that the tests of a module share; whatever a test breaks in it, it must mend."""
    connection, found = start_engine(_shared_folder, request.module.__name__[-6:].strip("_"))
    yield found
    connection.__exit__(None, None, None)
