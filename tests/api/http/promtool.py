"""Where promtool is: on the path, or where `install.sh` puts it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")

PROMTOOL = shutil.which("promtool") or shutil.which(_CACHE / "raysaga/promtool/promtool") or ""

needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="there is no promtool; Prometheus has it")
