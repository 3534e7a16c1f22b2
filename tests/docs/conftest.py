"""Lets the tests of this folder find their own modules, and those of others that they share."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in ("cluster", "console", "docs"):
    here = str(TESTS / folder)
    if here not in sys.path:
        sys.path.insert(0, here)
