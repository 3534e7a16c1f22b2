"""Lets the tests of this folder find their own modules, and the browser of the console's."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in ("console", "docs"):
    here = str(TESTS / folder)
    if here not in sys.path:
        sys.path.insert(0, here)
