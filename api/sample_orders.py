"""Finds the sample of a thousand orders that comes with the package.

The orders and their stock are in `sample/`, and `sample/ATTRIBUTION.md` says where they
are from. Processed in order, about one in twelve is refused, because the stock is short of
the items that are wanted most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "sample"


def sample_paths() -> tuple[Path, Path]:
    """Return the paths of the orders (JSON lines) and of the stock file."""
    return _FOLDER / "orders.jsonl", _FOLDER / "stock.json"
