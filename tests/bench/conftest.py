"""Where the results are that the project keeps."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root_results() -> list[Path]:
    return sorted((Path(__file__).parents[2] / "bench" / "results").glob("*.jsonl"))
