"""Tunes Python's garbage collector for a process through which many sagas pass.

Needs the standard library alone.
"""

from __future__ import annotations

import gc


def spare_collections() -> None:
    """Let the collector look at new objects only, and seldom.

    Sagas come and go without cycles. A caller's process holds a hundred thousand objects of
    Ray, and to look at all of them again and again took a third of its time (measured).
    """
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
