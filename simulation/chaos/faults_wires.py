"""Faults of what is carried between actors: lost, doubled, late, cut, and sent again much later.

Over the sockets of one node a man in the middle does it; for Ray calls, Ray's own switches.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar

from raysaga.actors.local_wire import LocalWire
from raysaga.actors.wire import pack_message, unpack_messages
from raysaga.simulation.chaos.fault import Blow, Fault, NeverHappenedError, now_ms
from raysaga.simulation.chaos.frames import Fate, Middle
from raysaga.simulation.chaos.orders import SERVICES
from raysaga.simulation.chaos.stage import Launch, Stage
from raysaga.simulation.chaos.trouble import CallLog
from raysaga.statemachines.calls import ACTION, StepCall, StepReply

CARRIED_S = (4.0, 8.0)
"""Bounds of how long a wire is broken."""


class _OnTheWire(Fault):
    """A man in the middle between the shards and one service."""

    seconds: ClassVar[float] = 16.0

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:
        """Return what becomes of a frame, and how long it is held."""
        raise NotImplementedError

    def evidence(self, calls: CallLog) -> int:
        """Return how often what was done to frames has shown at the service."""
        return calls.repeated()

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Stand in the middle, have the shards connect anew, and wait for what it does."""
        service = blow.chance.choice(SERVICES)
        is_on = False

        def decide(to_door: bool, _length: int) -> tuple[Fate, float]:
            return self.decide(blow.chance, to_door) if is_on else (Fate.PASS, 0.0)

        async with Middle.before(stage.socket(f"participant/{service}"), decide) as middle:
            for role, pid in stage.roles().items():
                if role.startswith("shard/"):
                    os.kill(pid, signal.SIGKILL)
                    await stage.replaced(role, pid)
            await stage.until(lambda: middle.passed > 20, f"calls go to {service} through here")
            calls = CallLog(stage.workplace, service)
            is_on = True
            blow.inflicted(f"the wires to {service}")
            await asyncio.sleep(blow.chance.uniform(*CARRIED_S))
            found = await stage.until(lambda: self.evidence(calls), f"it shows at {service}", 30.0)
            met = middle.met
            is_on = False
        blow.bit(f"{met} frames met it; {found} calls came again")
        blow.healed()


class CutSockets(_OnTheWire):
    """Connections break in the middle of exchanges."""

    name: ClassVar[str] = "cut-sockets"
    numbers: ClassVar[tuple[int, ...]] = (16,)
    what: ClassVar[str] = "breaks the connections between shards and a service"

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:  # noqa: ARG002
        """Cut at one frame in ten, whichever way it goes."""
        return (Fate.CUT if chance.random() < 0.1 else Fate.PASS), 0.0


class LoseFrames(_OnTheWire):
    """Requests and answers are lost without a word."""

    name: ClassVar[str] = "lose-frames"
    numbers: ClassVar[tuple[int, ...]] = (16,)
    what: ClassVar[str] = "loses requests and answers between shards and a service"

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:  # noqa: ARG002
        """Lose one frame in ten."""
        return (Fate.LOSE if chance.random() < 0.1 else Fate.PASS), 0.0


class OneWay(_OnTheWire):
    """Nothing comes back for a while, though everything arrives."""

    name: ClassVar[str] = "one-way"
    numbers: ClassVar[tuple[int, ...]] = (12, 16)
    what: ClassVar[str] = "lets nothing come back from a service"

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:  # noqa: ARG002
        """Lose every answer."""
        return (Fate.PASS if to_door else Fate.LOSE), 0.0


class DoubleFrames(_OnTheWire):
    """Every second request arrives twice."""

    name: ClassVar[str] = "double-frames"
    numbers: ClassVar[tuple[int, ...]] = (14,)
    what: ClassVar[str] = "has requests arrive twice"

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:
        """Double every second frame on its way there."""
        is_met = to_door and chance.random() < 0.5
        return (Fate.DOUBLE if is_met else Fate.PASS), 0.0

    def evidence(self, calls: CallLog) -> int:
        """Count calls that arrived twice in every respect; those that joined are not seen."""
        arrived = Counter(tuple(line[1:]) for line in calls.arrived())
        return sum(count - 1 for count in arrived.values())


class DelayFrames(_OnTheWire):
    """Frames are held for up to three seconds: longer than calls wait."""

    name: ClassVar[str] = "delay-frames"
    numbers: ClassVar[tuple[int, ...]] = (17,)
    what: ClassVar[str] = "holds frames for up to three seconds"

    def decide(self, chance: random.Random, to_door: bool) -> tuple[Fate, float]:  # noqa: ARG002
        """Hold one frame in three, and what comes behind it on the same connection."""
        return Fate.PASS, (chance.uniform(0.0, 3.0) if chance.random() < 0.3 else 0.0)


class Replay(Fault):
    """Calls of earlier are sent again: the same, those of undone steps, those of past owners."""

    name: ClassVar[str] = "replay"
    numbers: ClassVar[tuple[int, ...]] = (14, 15)
    what: ClassVar[str] = "sends calls again that were made before"
    combines: ClassVar[bool] = True
    seconds: ClassVar[float] = 6.0

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Send them; bitten when each was answered without anything being done again."""
        service = blow.chance.choice(SERVICES)
        old = list(_whole_calls(stage, service))[-400:]
        if not old:
            raise NeverHappenedError(f"whole calls of {service} were noted", 0.0)
        blow.inflicted(f"{len(old)} calls to {service}")
        wire = await _wire(stage, f"participant/{service}")
        replies = await _exchanged(wire, f"a replay {blow.number}", old)
        wire.hang_up()
        counts: Counter[str] = Counter()
        for reply in replies:
            again = "given again" if reply.duplicate else ""
            counts[again or reply.code or "done"] += 1
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        if sum(counts.values()) - counts["done"] > 0:
            blow.bit(f"{len(replies)} answers: {told}")
        blow.healed()


def _whole_calls(stage: Stage, service: str) -> Iterator[StepCall]:
    """Yield calls of earlier as they were made; late actions as if they had been slow only.

    An action's expiry is moved, so that the ledger and not the clock must refuse it.
    """
    for path in sorted((stage.workplace / "calls").glob(f"{service}-*.whole")):
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                call = StepCall._make(json.loads(line))
                if call.verb == ACTION:
                    call = call._replace(expires_at_ms=now_ms() + 60_000)
                yield call


async def _wire(stage: Stage, role: str) -> LocalWire:
    try:
        return await LocalWire.connect(str(stage.socket(role)))
    except OSError as error:
        raise NeverHappenedError(f"{role} listens", 0.0) from error


async def _exchanged(wire: LocalWire, sender: str, calls: list[StepCall]) -> list[StepReply]:
    """Send calls as a host would, and return the replies that come within some seconds."""
    numbered = [call._replace(call_id=i) for i, call in enumerate(calls, 1)]
    batch, number = b"".join(map(pack_message, numbered)), 0
    replies: list[StepReply] = []
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(5.0):
            while len(replies) < len(numbered):
                number += 1
                answer = await wire.exchange(pack_message((sender, number)) + batch)
                _outbox, *found = unpack_messages(answer)
                replies += [StepReply._make(fields) for fields in found]
                batch = b""
    return replies


class _OtherRay(Fault):
    """The engine is started again on a Ray that breaks its own calls, and carries all by them."""

    seconds: ClassVar[float] = 60.0
    environment: ClassVar[dict[str, str]]

    async def strike(self, stage: Stage, blow: Blow) -> None:
        """Run so for a while; bitten when calls came again."""
        before = stage.launch
        await stage.stop()
        try:
            await stage.start(Launch(environment=self.environment, settings={"wire": "ray"}))
            logs = [CallLog(stage.workplace, service) for service in SERVICES]
            blow.inflicted(next(iter(self.environment)))
            await asyncio.sleep(10.0)
            await stage.until(lambda: sum(log.repeated() for log in logs), "calls come again")
            repeated = sum(log.repeated() for log in logs)
            again = sum(log.from_the_ledger() for log in logs)
            blow.bit(f"{repeated} calls came again, {again} were answered from a ledger")
        finally:
            # Such a Ray takes a minute to stop in good order.
            await stage.kill()
            await stage.start(before)
        blow.healed()


class RayLosesCalls(_OtherRay):
    """Ray loses calls, their answers, and connections."""

    name: ClassVar[str] = "ray-loses-calls"
    numbers: ClassVar[tuple[int, ...]] = (14, 16)
    what: ClassVar[str] = "has Ray lose calls and answers"
    environment: ClassVar[dict[str, str]] = {
        "RAY_testing_rpc_failure": json.dumps(
            {
                "CoreWorkerService.grpc_client.PushTask": {
                    "num_failures": 100_000,
                    "req_failure_prob": 2,
                    "resp_failure_prob": 2,
                    "in_flight_failure_prob": 2,
                }
            }
        )
    }


class RayIsSlow(_OtherRay):
    """Ray's event loops take their time."""

    name: ClassVar[str] = "ray-is-slow"
    numbers: ClassVar[tuple[int, ...]] = (17,)
    what: ClassVar[str] = "delays what Ray does"
    environment: ClassVar[dict[str, str]] = {
        "RAY_testing_asio_delay_us": "CoreWorkerService.grpc_server.PushTask=0:3000000"
    }


FAULTS: tuple[Fault, ...] = (
    CutSockets(),
    LoseFrames(),
    OneWay(),
    DoubleFrames(),
    DelayFrames(),
    Replay(),
    RayLosesCalls(),
    RayIsSlow(),
)
