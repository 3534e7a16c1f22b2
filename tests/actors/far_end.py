"""A dispatcher, and a participant at the far end of it that does what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raysaga.actors.dispatcher import Dispatcher
from raysaga.actors.lane import Landing
from raysaga.actors.settings import EngineSettings
from raysaga.statemachines.calls import ACTION, Outcome, StepCall, StepReply, reply_to

from .virtual_time import VirtualClock, until

QUICK = EngineSettings(exchange_hold_ms=100, exchange_grace_ms=100)


class Desk:
    """A dispatcher, and a participant at the other end that does what the test says.

    Attributes:
        arrived: Calls in the order in which they came.
        respond: What is said to a call; None for nothing.
        delay_s: How long that takes.
        answers: Replies by call id; a second one to the same call fails the test at once.
    """

    def __init__(self, bounds: EngineSettings = QUICK) -> None:
        loop = asyncio.get_running_loop()
        self.clock = VirtualClock(loop)  # type: ignore[arg-type]
        self.arrived: list[StepCall] = []
        self.arrived_at_ms: list[float] = []
        self.respond: Callable[[StepCall], StepReply | None] = done
        self.delay_s: Callable[[StepCall], float] = lambda _call: 0.0
        self.answers: dict[int, StepReply] = {}
        self.answered_at_ms: dict[int, float] = {}
        self.is_cut = False
        self.defects: list[BaseException] = []
        self.lose_answers = 0
        self.landing = Landing(self._received, bounds)
        self.dispatcher = Dispatcher(
            participant="p",
            sender="s",
            exchange=self._exchange,
            defect=self.defects.append,
            clock=self.clock,
            settings=bounds,
        )

    async def _exchange(self, batch: bytes) -> bytes:
        await asyncio.sleep(0.001)
        if self.is_cut:
            raise ConnectionError("cut")
        answer = await self.landing.exchange(batch)
        await asyncio.sleep(0.001)
        if answer and self.lose_answers:
            self.lose_answers -= 1
            raise ConnectionError("the answer is lost")
        return answer

    def _received(self, sender: str, messages: list[list[Any]]) -> None:
        loop = asyncio.get_running_loop()
        for fields in messages:
            call = StepCall._make(fields)
            self.arrived.append(call)
            self.arrived_at_ms.append(self.clock.monotonic_ms())
            reply = self.respond(call)
            if reply is not None:
                loop.call_later(self.delay_s(call), self.landing.push, sender, reply)

    def send(self, call: StepCall) -> None:
        """Send, and see to it that it is not answered before this returns, nor twice."""
        is_sent = False

        def answered(reply: StepReply) -> None:
            assert is_sent, "answered while it was being sent"
            assert call.call_id not in self.answers, f"{call} was answered twice"
            self.answers[call.call_id] = reply
            self.answered_at_ms[call.call_id] = self.clock.monotonic_ms()

        self.dispatcher.send(call, answered)
        is_sent = True

    async def answer(self, call_id: int, within_s: float = 60.0) -> StepReply:
        await until(lambda: call_id in self.answers, within_s=within_s)
        return self.answers[call_id]


def call_of(
    call_id: int, verb: int = ACTION, *, attempt: int = 1, timeout_ms: int = 5_000, **more: Any
) -> StepCall:
    request = more.get("request", {})
    return StepCall(
        call_id, verb, "u", f"d:{call_id}", "s", "do", request, "u/0", 3, attempt, 9, timeout_ms
    )


def done(call: StepCall) -> StepReply:
    return reply_to(call, Outcome.SUCCEEDED, result={"n": call.call_id}, stored=True)
