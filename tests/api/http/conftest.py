"""What the tests of this folder and of the console share is imported by name."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from serving_within import Served, served  # noqa: E402


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    """A server without tokens on a new engine."""
    async with served(tmp_path / "data") as found:
        yield found
