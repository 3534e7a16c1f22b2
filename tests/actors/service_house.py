"""One service at work on a real ledger: what tests call, crash and open again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from raysaga.actors.clock import SystemClock
from raysaga.actors.participant_server import ParticipantLimits, ParticipantServer, open_ledger
from raysaga.actors.services.service import Service
from raysaga.statemachines.calls import (
    ACTION,
    COMPENSATION,
    QUESTION,
    RELEASE,
    StepCall,
    StepReply,
)
from raysaga.statemachines.order import order_saga
from raysaga.storage.ledger import Ledger

JOURNAL = "journal-1"
STEPS = {step.participant: step.name for step in order_saga.steps}
HOUR_MS = 3_600_000

ORDER: Mapping[str, Any] = {
    "order_id": "o-1",
    "customer_id": "c-7",
    "items": [{"item_id": "milk", "quantity": 2}],
    "payment": {"token": "tok_abc", "amount_minor": 378, "currency": "USD"},
}


def order(**changed: Any) -> dict[str, Any]:
    return {**ORDER, **changed}


def items(**quantities: int) -> list[dict[str, Any]]:
    return [{"item_id": name, "quantity": count} for name, count in quantities.items()]


class House:
    """A service, its ledger and its server; made anew by each `open`."""

    def __init__(
        self,
        build: Callable[[], Service],
        path: Path,
        limits: ParticipantLimits | None = None,
    ) -> None:
        self._build = build
        self._path = path
        self._limits = limits
        self._numbers = itertools.count(1)
        self._clock = SystemClock()
        self.service: Service
        self.ledger: Ledger
        self.server: ParticipantServer
        self.fatal: list[BaseException] = []
        self.is_open = False

    async def open(self) -> House:
        self.service = self._build()
        self.ledger = open_ledger(self.service, self._path, clock=self._clock)
        self.is_open = True
        self.service.prepare(self.ledger)
        self.server = ParticipantServer(
            participant=self.service,
            ledger=self.ledger,
            clock=self._clock,
            on_fatal=self.fatal.append,
            behaviour=self.service.behaviour,
            limits=self._limits,
        )
        await self.server.start()
        return self

    async def close(self) -> None:
        if self.is_open:
            self.is_open = False
            if hasattr(self, "server"):
                await self.server.stop()
            self.ledger.close()

    async def reopen(self) -> None:
        await self.close()
        await self.open()

    @property
    def step(self) -> str:
        return STEPS[self.service.name]

    @property
    def action(self) -> str:
        return next(iter(self.service.operations))

    @property
    def undo_name(self) -> str:
        name = self.service.operations[self.action].undo_name
        assert name is not None
        return name

    def call(
        self,
        verb: int,
        saga: str,
        request: Mapping[str, Any],
        *,
        operation: str,
        attempt: int = 1,
        timeout_ms: int = 30_000,
    ) -> StepCall:
        expires_at_ms = self._clock.now_ms() + HOUR_MS if verb == ACTION else None
        return StepCall(
            call_id=next(self._numbers),
            verb=verb,
            journal_uuid=JOURNAL,
            saga_id=f"order:{saga}",
            step=self.step,
            operation=operation,
            request=request,
            scope=f"{JOURNAL}/shard-0",
            epoch=1,
            attempt=attempt,
            expires_at_ms=expires_at_ms,
            timeout_ms=timeout_ms,
        )

    async def send(self, call: StepCall) -> StepReply:
        """Deliver one call, and wait for its reply."""
        answered: asyncio.Future[StepReply] = asyncio.get_running_loop().create_future()
        self.server.deliver([call], answered.set_result)
        return await answered

    async def act(self, saga: str, request: Mapping[str, Any], **more: Any) -> StepReply:
        return await self.send(self.call(ACTION, saga, request, operation=self.action, **more))

    async def undo(self, saga: str, request: Mapping[str, Any], **more: Any) -> StepReply:
        undo_name = self.undo_name
        return await self.send(self.call(COMPENSATION, saga, request, operation=undo_name, **more))

    async def ask(self, saga: str) -> StepReply:
        return await self.send(self.call(QUESTION, saga, {}, operation=self.action))

    async def release(self, saga: str, outcome: str) -> StepReply:
        request = {"outcome": outcome}
        return await self.send(self.call(RELEASE, saga, request, operation=self.action))


OpenHouse = Callable[..., Awaitable[House]]
"""What the fixture gives: opens a house, and closes it when the test is over."""
