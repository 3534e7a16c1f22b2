"""Makes a service slow and unreliable on purpose, as configuration, and never incorrect.

Guarantees: whether a call meets trouble is a function of the seed, the call's key, direction
and attempt, and of the kind of trouble, so that a run meets the same trouble however its
calls interleave. Trouble only delays, drops or replaces answers; what is done is done
through the ledger, a refusal by chance included.
Refuses: unknown settings, and chances outside 0 to 1.
Costs: a hash of some bytes for each kind of trouble whose chance is not 0; nothing without.

Faults can also be scripted: "the next two charges are unavailable". Those count calls in
the order in which they arrive; name a saga to make them independent of it.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterable
from enum import StrEnum
from statistics import NormalDist
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysaga.actors.clock import Clock, SystemClock
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    Code,
    Outcome,
    StepCall,
    StepReply,
    reply_to,
)

DELAY_MS_MAX: Final = 60_000
"""Longest simulated wait; beyond any step's usual timeout, so that nothing new is learned."""

_STANDARD_NORMAL: Final = NormalDist()
_DRAWS: Final = float(1 << 53)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoLatency(_Settings):
    """Answers as fast as it can."""

    distribution: Literal["none"] = "none"

    def delay_ms(self, draw: float) -> float:  # noqa: ARG002 - one signature for all
        """Return 0."""
        return 0.0


class ConstantLatency(_Settings):
    """Always the same delay."""

    distribution: Literal["constant"] = "constant"
    constant_ms: float = Field(ge=0, le=DELAY_MS_MAX)

    def delay_ms(self, draw: float) -> float:  # noqa: ARG002 - one signature for all
        """Return the delay, whatever the draw."""
        return self.constant_ms


class UniformLatency(_Settings):
    """Any delay between two bounds, each as likely."""

    distribution: Literal["uniform"] = "uniform"
    low_ms: float = Field(ge=0, le=DELAY_MS_MAX)
    high_ms: float = Field(ge=0, le=DELAY_MS_MAX)

    @model_validator(mode="after")
    def _in_order(self) -> UniformLatency:
        if self.low_ms > self.high_ms:
            raise ValueError("low_ms must not exceed high_ms")
        return self

    def delay_ms(self, draw: float) -> float:
        """Return the delay at `draw`, which is in [0, 1)."""
        return self.low_ms + (self.high_ms - self.low_ms) * draw


class ExponentialLatency(_Settings):
    """The delays of a memoryless server: mostly short, now and then long."""

    distribution: Literal["exponential"] = "exponential"
    mean_ms: float = Field(ge=0, le=DELAY_MS_MAX)

    def delay_ms(self, draw: float) -> float:
        """Return the delay at `draw`, which is in [0, 1)."""
        return -self.mean_ms * math.log1p(-draw)


class LognormalLatency(_Settings):
    """What services measure in practice: a hump, and a long tail to the right."""

    distribution: Literal["lognormal"] = "lognormal"
    median_ms: float = Field(ge=0, le=DELAY_MS_MAX)
    sigma: float = Field(default=0.5, ge=0, le=5)

    def delay_ms(self, draw: float) -> float:
        """Return the delay at `draw`, which is in [0, 1)."""
        if draw <= 0.0:
            return 0.0
        return self.median_ms * math.exp(self.sigma * _STANDARD_NORMAL.inv_cdf(draw))


Latency = Annotated[
    NoLatency | ConstantLatency | UniformLatency | ExponentialLatency | LognormalLatency,
    Field(discriminator="distribution"),
]


class Trouble(StrEnum):
    """Ways in which a call can go wrong."""

    UNAVAILABLE = "unavailable"
    """Answered unknown before anything is done."""
    SLOW = "slow"
    """Takes `slow_factor` times as long."""
    HANG = "hang"
    """Nothing is done and nothing answered until the caller has long gone."""
    REFUSE = "refuse"
    """A stored business refusal; actions only."""
    LOSE_REPLY = "lose_reply"
    """Done, and not answered."""


class ScriptedFault(_Settings):
    """Trouble for the next calls that match, whatever the chances say.

    Attributes:
        trouble: Which.
        calls: How many calls meet it.
        operation: Only calls of this operation, such as `charge` or `refund`; None for all.
        saga_id: Only calls of this saga; None for all.
    """

    trouble: Trouble
    calls: int = Field(default=1, ge=1, le=1_000_000)
    operation: str | None = None
    saga_id: str | None = None

    def matches(self, call: StepCall) -> bool:
        """Return whether the fault is meant for `call`."""
        return self.operation in (None, call.operation) and self.saga_id in (None, call.saga_id)


Chance = Annotated[float, Field(ge=0, le=1)]


class ServiceBehaviour(_Settings):
    """How one service behaves. Unknown names are refused.

    Attributes:
        latency: Delay before a call is looked at.
        slow_factor: What a slow call's delay is multiplied by.
        slow_ms_min: What a slow call takes at least, so that it shows without latency too.
        hang_ms: After this a hanging call is given up, so that it cannot leak; milliseconds.
        chance_unavailable: Of each attempt, like the others but `chance_refuse`.
        chance_slow: See `Trouble`.
        chance_hang: See `Trouble`.
        chance_lose_reply: See `Trouble`.
        chance_refuse: Of each action; the same on each attempt of it.
        compensations_spared: Whether compensations meet latency only.
        scripted: Faults to begin with.
    """

    latency: Latency = NoLatency()
    slow_factor: float = Field(default=10.0, ge=1, le=1_000)
    slow_ms_min: float = Field(default=50.0, ge=0, le=DELAY_MS_MAX)
    hang_ms: float = Field(default=600_000, ge=1, le=3_600_000)
    chance_unavailable: Chance = 0.0
    chance_slow: Chance = 0.0
    chance_hang: Chance = 0.0
    chance_lose_reply: Chance = 0.0
    chance_refuse: Chance = 0.0
    compensations_spared: bool = False
    scripted: tuple[ScriptedFault, ...] = ()

    @property
    def is_calm(self) -> bool:
        """Whether nothing is ever delayed or goes wrong by chance."""
        chances = (self.chance_unavailable, self.chance_slow, self.chance_hang)
        others = (self.chance_lose_reply, self.chance_refuse)
        return not (any(chances) or any(others)) and isinstance(self.latency, NoLatency)


class _Script:
    """The scripted faults that are left. Handlers ask from the thread that writes."""

    def __init__(self, faults: Iterable[ScriptedFault]) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[ScriptedFault, int]] = []
        self._refused: set[tuple[str, str, str]] = set()
        for fault in faults:
            self.add(fault)

    def add(self, fault: ScriptedFault) -> None:
        with self._lock:
            self._left.append((fault, fault.calls))

    def take(self, trouble: Trouble, call: StepCall) -> bool:
        if not self._left:
            return False
        with self._lock:
            for i, (fault, calls) in enumerate(self._left):
                if fault.trouble is trouble and fault.matches(call):
                    if calls > 1:
                        self._left[i] = (fault, calls - 1)
                    else:
                        del self._left[i]
                    return True
        return False

    def refuses(self, call: StepCall) -> bool:
        # A handler may run again for a call whose transaction came to nothing, and must
        # then say the same. As many keys are remembered as were scripted to be refused.
        key = (call.journal_uuid, call.saga_id, call.step)
        if key in self._refused:
            return True
        if self.take(Trouble.REFUSE, call):
            self._refused.add(key)
            return True
        return False

    def clear(self) -> None:
        with self._lock:
            self._left.clear()
            self._refused.clear()

    def left(self) -> int:
        with self._lock:
            return sum(calls for _, calls in self._left)


class SeededBehaviour:
    """Plays `ServiceBehaviour` around a participant; reproducible by its seed."""

    def __init__(
        self, settings: ServiceBehaviour, *, seed: int = 0, clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._seed = seed
        self._clock: Clock = clock or SystemClock()
        self._script = _Script(settings.scripted)

    def script(self, fault: ScriptedFault) -> None:
        """Add trouble for the next calls that match."""
        self._script.add(fault)

    def clear_script(self) -> None:
        """Forget the scripted faults that have not struck yet."""
        self._script.clear()

    @property
    def is_calm(self) -> bool:
        """Whether nothing is played, and nothing is scripted."""
        return self._settings.is_calm and not self._script.left()

    @property
    def scripted_calls_left(self) -> int:
        """How many calls will still meet scripted trouble."""
        return self._script.left()

    async def before(self, call: StepCall) -> StepReply | None:
        """Delay, hang until cancelled, or answer that the service is unavailable."""
        if call.verb not in (ACTION, COMPENSATION):
            return None
        delay_ms = self._delay_ms(call)
        if delay_ms > 0:
            await self._clock.sleep_ms(delay_ms)
        if self._strikes(Trouble.UNAVAILABLE, call, self._settings.chance_unavailable):
            return reply_to(
                call,
                Outcome.UNKNOWN,
                code=Code.SERVICE_UNAVAILABLE,
                message="simulated: the service is unavailable",
            )
        if self._strikes(Trouble.HANG, call, self._settings.chance_hang):
            await self._clock.sleep_ms(self._settings.hang_ms)
            return reply_to(
                call, Outcome.UNKNOWN, code=Code.TIMEOUT, message="simulated: the call hung"
            )
        return None

    async def after(self, call: StepCall, reply: StepReply) -> StepReply | None:
        """Return the reply, or None to lose it."""
        if call.verb not in (ACTION, COMPENSATION):
            return reply
        if self._strikes(Trouble.LOSE_REPLY, call, self._settings.chance_lose_reply):
            return None
        return reply

    def refuses(self, call: StepCall) -> bool:
        """Return whether the action's handler should refuse; the same on every attempt."""
        if call.verb != ACTION:
            return False
        if self._script.refuses(call):
            return True
        chance = self._settings.chance_refuse
        return chance > 0.0 and self._draw(Trouble.REFUSE, call, attempt=0) < chance

    def _delay_ms(self, call: StepCall) -> float:
        settings = self._settings
        is_slow = self._strikes(Trouble.SLOW, call, settings.chance_slow)
        if isinstance(settings.latency, NoLatency):
            delay_ms = 0.0
        else:
            delay_ms = settings.latency.delay_ms(self._draw("latency", call, call.attempt))
        if is_slow:
            delay_ms = max(delay_ms * settings.slow_factor, settings.slow_ms_min)
        return min(delay_ms, DELAY_MS_MAX)

    def _strikes(self, trouble: Trouble, call: StepCall, chance: float) -> bool:
        if self._script.take(trouble, call):
            return True
        if chance <= 0.0 or (call.verb == COMPENSATION and self._settings.compensations_spared):
            return False
        return self._draw(trouble, call, call.attempt) < chance

    def _draw(self, purpose: str, call: StepCall, attempt: int) -> float:
        """Return a number in [0, 1) that only the seed and the arguments decide."""
        text = f"{self._seed}|{call.saga_id}/{call.step}|{call.verb}|{attempt}|{purpose}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        # The 53 bits that a float holds exactly, so that 1.0 is never drawn.
        return (int.from_bytes(digest, "big") >> 11) / _DRAWS


CALM: Final = ServiceBehaviour()
"""No delay and no trouble."""
