"""Chance that depends on what it is for, and not on how often it was asked before.

Each draw is a hash of the seed and of what is drawn for. So a history keeps its
shape when a part of it is taken away, which is what shrinking needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b


class Draws:
    """All chance of one history.

    Attributes:
        is_calm: Whether nothing strikes any more.
        struck: How often each fault did.
    """

    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        self._seed = seed
        self._rates = rates
        self._asked: dict[tuple[object, ...], int] = {}
        self.is_calm = False
        self.struck: dict[str, int] = {}

    def draw(self, *what: object) -> float:
        """Return a number from [0, 1) for `what`, always the same."""
        digest = blake2b(repr((self._seed, *what)).encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big") / (1 << 56)

    def strikes(self, fault: str, *what: object) -> bool:
        """Return whether `fault` strikes `what`, always the same while nothing is calm."""
        rate = self._rates.get(fault, 0.0)
        if not rate or self.is_calm or self.draw(fault, *what) >= rate:
            return False
        self.struck[fault] = self.struck.get(fault, 0) + 1
        return True

    def strikes_anew(self, fault: str, *what: object) -> bool:
        """Return whether `fault` strikes `what` this time."""
        if not self._rates.get(fault) or self.is_calm:
            return False
        return self.strikes(fault, *what, self.turn(fault, *what))

    def turn(self, *what: object) -> int:
        """Return how often this was asked before, for the same."""
        count = self._asked.get(what, 0)
        self._asked[what] = count + 1
        return count
