"""Ends a process that was made with `multiprocessing` when the one that made it is gone.

A process that is killed ends none of its own; they would wait for work for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Have this process end as soon as its parent has; costs a thread that sleeps."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was made in another way"

    def wait_and_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()
