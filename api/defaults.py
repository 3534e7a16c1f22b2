"""What holds when nothing else is said: where state is kept, and the order saga's services."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.services.settings import MAILDIR_USUAL

DATA_FOLDER = Path("raysaga-data")
"""Where state is kept."""

ORDER_PARTICIPANTS: Mapping[str, str] = {
    "inventory": "raysaga.actors.services.serve:serve",
    "payment": "raysaga.actors.services.serve:serve",
    "shipping": "raysaga.actors.services.serve:serve",
    "notification": "raysaga.actors.services.serve:serve",
}
"""The participants of the order saga, which every engine has unless told otherwise."""

ORDER_SERVICES: Mapping[str, Any] = {
    "inventory": {"stock": {"items": {}, "default": 1_000_000}},
    "notification": {"maildir": MAILDIR_USUAL},
}
"""How those are set: stock for all, and letters in the data folder."""
