"""A small participant at work, and a sender that waits for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

from raysaga.actors.clock import SystemClock
from raysaga.actors.participant import (
    Behaviour,
    CodeKind,
    Effects,
    LedgerRow,
    Operation,
    Participant,
    Refusal,
    View,
)
from raysaga.actors.participant_server import ParticipantLimits, ParticipantServer, open_ledger
from raysaga.statemachines.calls import ACTION, COMPENSATION, RELEASE, StepCall, StepReply
from raysaga.statemachines.ids import StepKey
from raysaga.storage.ledger import LedgerSettings

JOURNAL = "0123456789abcdef"
SCOPE = f"{JOURNAL}/shard-0"
NOW_MS = 1_700_000_000_000
TABLE = "counts"
SETTINGS = LedgerSettings(
    map_bytes_first=1 << 20, map_bytes_max=64 << 20, reserve_bytes=0, clock_skew_ms=1_000
)

Guard = Callable[[StepCall, View], AbstractAsyncContextManager[Any]]


def make_call(
    verb: int = ACTION,
    *,
    saga: str = "order:1",
    step: str = "reserve",
    operation: str | None = None,
    request: Mapping[str, Any] | None = None,
    epoch: int = 5,
    attempt: int = 1,
    expires_at_ms: int | None = None,
    call_id: int = 0,
    timeout_ms: int = 60_000,
) -> StepCall:
    """Return a call; it waits for a minute, so that a test that hangs is not mistaken."""
    if operation is None:
        operation = "put_back" if verb == COMPENSATION else "take"
    if request is None:
        request = {"outcome": "completed"} if verb == RELEASE else {"sku": "tea"}
    if verb == ACTION and expires_at_ms is None:
        expires_at_ms = NOW_MS + 60_000
    return StepCall(
        call_id, verb, JOURNAL, saga, step, operation, request, SCOPE, epoch, attempt,
        expires_at_ms, timeout_ms,
    )  # fmt: skip


class FixedClock(SystemClock):
    """The machine's clock, but for the time of day."""

    def __init__(self) -> None:
        self.wall_ms = NOW_MS

    def now_ms(self) -> int:
        return self.wall_ms


class Shop(Participant):
    """Counts what it does for each step in its own table."""

    name = "shop"
    tables = (TABLE,)
    codes: Mapping[str, CodeKind] = {
        "SOLD_OUT": CodeKind.REFUSAL,
        "DECLINED": CodeKind.REFUSAL,
        "BUSY": CodeKind.RETRYABLE,
        "GATEWAY": CodeKind.AMBIGUOUS,
    }

    def __init__(self, guard: Guard | None = None) -> None:
        self.operations = {
            "take": Operation(apply=self.apply, undo_name="put_back", undo=self.undo)
        }
        self.during: Callable[[Effects, StepCall, Any], None] = lambda effects, call, context: None
        self.guard_with = guard

    def is_guarded(self, call: StepCall) -> bool:
        return self.guard_with is not None

    def guard(self, call: StepCall, view: View) -> AbstractAsyncContextManager[Any]:
        return nullcontext() if self.guard_with is None else self.guard_with(call, view)

    def apply(self, effects: Effects, call: StepCall, context: Any) -> Mapping[str, Any]:
        count = _add(effects, "done", call)
        if "refuse" in call.request:
            raise Refusal("SOLD_OUT", "there is no tea")
        self.during(effects, call, context)
        return {"count": count, "context": context}

    def undo(
        self, effects: Effects, call: StepCall, applied: Mapping[str, Any] | None, context: Any
    ) -> Mapping[str, Any]:
        self.during(effects, call, context)
        return {"undone": _add(effects, "undone", call), "of": applied, "context": context}

    def settle(self, effects: Effects, row: LedgerRow, outcome: str) -> None:
        effects.put(TABLE, f"{outcome}/{row.key.saga_id}/{row.key.step}", 1)


class Desk:
    """A server of `participant`, and the answers that it gave, in order."""

    def __init__(
        self,
        path: Path,
        participant: Participant,
        *,
        limits: ParticipantLimits | None = None,
        behaviour: Behaviour | None = None,
        inline: bool = False,
    ) -> None:
        self.participant = participant
        self.clock = FixedClock()
        self.fatal: list[BaseException] = []
        self.replies: list[StepReply] = []
        self.on_reply: Callable[[StepReply], None] = lambda reply: None
        self.ledger = open_ledger(participant, path, clock=self.clock, settings=SETTINGS)
        self.server = ParticipantServer(
            participant=participant,
            ledger=self.ledger,
            clock=self.clock,
            on_fatal=self.fatal.append,
            behaviour=behaviour,
            limits=limits,
            inline=inline,
        )

    async def __aenter__(self) -> Desk:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        self.ledger.close()

    def send(self, *calls: StepCall) -> None:
        self.server.deliver(calls, self._hear)

    async def ask(self, *calls: StepCall) -> list[StepReply]:
        """Send, and return the answers in the order of the calls, told by their ids."""
        first = len(self.replies)
        numbered = [call._replace(call_id=1_000_000 + i) for i, call in enumerate(calls)]
        self.send(*numbered)
        await self.heard(first + len(calls))
        return sorted(self.replies[first:], key=lambda reply: reply.call_id)

    async def heard(self, count: int) -> None:
        """Return when there are `count` answers."""
        await self.until(lambda: len(self.replies) >= count)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when `condition` holds, which is looked at on every turn of the loop."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0)

    def effects(self, what: str, saga: str = "order:1", step: str = "reserve") -> int:
        return int(self.ledger.get(TABLE, f"{what}/{saga}/{step}") or 0)

    def row(self, saga: str = "order:1", step: str = "reserve") -> LedgerRow | None:
        return self.ledger.row(StepKey(JOURNAL, saga, step))

    def codes(self) -> list[str]:
        return [reply.code for reply in self.replies]

    def _hear(self, reply: StepReply) -> None:
        self.on_reply(reply)
        self.replies.append(reply)


def by_saga(replies: Iterable[StepReply]) -> dict[str, StepReply]:
    return {reply.saga_id: reply for reply in replies}


def _add(effects: Effects, what: str, call: StepCall) -> int:
    key = f"{what}/{call.saga_id}/{call.step}"
    count = int(effects.get(TABLE, key) or 0) + 1
    effects.put(TABLE, key, count)
    return count
