"""What a fault is to the nemesis: something that breaks, proves that it bit, and heals.

A fault is one coroutine. It breaks something on the stage and says so (`inflicted`), waits
until it has seen that this had an effect (`bit`), mends it, and says so (`healed`). What it
opened it closes in a `finally`: it may be cancelled at any await.

Guarantees: a fault whose condition never came true is told as one that did not bite, and
never as a failure of the engine; the checker alone decides that.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from raysaga.statemachines.errors import SagaError

if TYPE_CHECKING:
    from raysaga.simulation.chaos.stage import Stage

STRIKE_S_MAX = 180.0
"""How long a strike may take from beginning to end before it is cancelled, unless it says so."""


class NeverHappenedError(SagaError):
    """What was waited for on the stage did not come to pass in time.

    Attributes:
        what: It, as the end of a sentence.
        timeout_s: How long was waited.
    """

    code = "NEVER_HAPPENED"

    def __init__(self, what: str, timeout_s: float) -> None:
        super().__init__(what, timeout_s)
        self.what = what
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"not within {self.timeout_s:g} s: {self.what}"


@dataclass(slots=True, kw_only=True)
class Blow:
    """One strike of a fault, and what it notes of itself.

    Attributes:
        fault: Name of the fault.
        number: Which strike of the run, from 1.
        chance: The only source of draws of the strike; seeded by the run's seed and `number`.
        told: Called after each note, with what was noted and a text for people.
        target: What was broken.
        inflicted_at_ms: When, Unix time; 0: not (yet).
        bit_at_ms: When its effect was first seen; 0: not (yet).
        healed_at_ms: When it was mended; 0: not (yet).
        evidence: What has shown that it bit.
        broken: Promises that the engine was seen to break under it; a violation each.
        misfortune: Why it did not bite, or could not be played.
    """

    fault: str
    number: int
    chance: random.Random
    told: Callable[[str, str], None] = lambda _what, _text: None
    target: str = ""
    inflicted_at_ms: int = 0
    bit_at_ms: int = 0
    healed_at_ms: int = 0
    evidence: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    misfortune: str = ""

    def inflicted(self, target: str) -> None:
        """Note that something is broken from now on."""
        self.target = f"{self.target}, {target}" if self.target else target
        self.inflicted_at_ms = self.inflicted_at_ms or now_ms()
        self.told("inflicted", target)

    def bit(self, evidence: str) -> None:
        """Note what has shown that it had an effect; every piece of evidence counts."""
        self.evidence.append(evidence)
        self.bit_at_ms = self.bit_at_ms or now_ms()
        self.told("bit", evidence)

    def broke(self, promise: str) -> None:
        """Note that the engine broke a promise which the checker of the whole run cannot see."""
        self.broken.append(promise)
        self.told("broke", promise)

    def healed(self, text: str = "") -> None:
        """Note that it is mended, as far as the fault has to do with it."""
        self.healed_at_ms = now_ms()
        self.told("healed", text)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "fault": self.fault,
            "number": self.number,
            "target": self.target,
            "inflicted_at_ms": self.inflicted_at_ms,
            "bit_at_ms": self.bit_at_ms,
            "healed_at_ms": self.healed_at_ms,
            "evidence": list(self.evidence),
            "broken": list(self.broken),
            "misfortune": self.misfortune,
        }


class Fault(ABC):
    """One way to break a running engine.

    Attributes:
        name: As `--faults` has it; lower case and hyphens.
        numbers: Its rows in the fault matrix of `docs/CHAOS.md`.
        what: What it does, as the end of a sentence; for the table and the report.
        seconds: What a strike usually takes, from beginning to healed; for the plan of a run.
        strike_s_max: After so long a strike is cancelled, and has not bitten.
        combines: Whether another such fault may strike at the same time.
    """

    name: ClassVar[str]
    numbers: ClassVar[tuple[int, ...]]
    what: ClassVar[str]
    seconds: ClassVar[float] = 5.0
    strike_s_max: ClassVar[float] = STRIKE_S_MAX
    combines: ClassVar[bool] = False

    def missing(self) -> str:
        """Return what this machine lacks for it, as a sentence; empty if nothing."""
        return ""

    @abstractmethod
    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Break, wait until it is seen to bite, and mend.

        Raises:
            NeverHappenedError: If it was not seen to bite in time; what was broken is mended.
        """


def now_ms() -> int:
    """Return the instant, Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
