"""The saga as Restate handlers; served by Granian, called by the Restate server.

`order.run`: each participant's call is a journaled `ctx.run` in one handler. `order.call`:
each participant is a Restate service of its own, called through the server. Undos are a list
that the handler keeps, run the other way round; a `TerminalError` is what is not retried.
"""

from __future__ import annotations

from typing import Any

import restate  # type: ignore[import-not-found]
from restate import Context, Service, TerminalError

from raysaga.bench.peers.participants import STEPS, UNDOS, Participants, RefusedError

_participants = Participants()

order_service = Service("order")
participant_service = Service("participant")
audit_service = Service("audit")


def _do(step: str, order: dict[str, Any]) -> dict[str, Any]:
    try:
        return _participants.do(step, order)
    except RefusedError as refused:
        raise TerminalError(str(refused)) from refused


@participant_service.handler("do")  # type: ignore[untyped-decorator]
async def do(_ctx: Context, call: dict[str, Any]) -> dict[str, Any]:
    """Perform one step or undo."""
    return _do(call["step"], call["order"])


@order_service.handler("run")  # type: ignore[untyped-decorator]
async def run(ctx: Context, order: dict[str, Any]) -> str:
    """Drive the saga, with the participants called in here."""
    done: list[str] = []
    try:
        for step in STEPS:
            await ctx.run_typed(step, _do, restate.RunOptions(), step, order)
            done.append(step)
    except TerminalError:
        for step in reversed(done):
            await ctx.run_typed(UNDOS[step], _do, restate.RunOptions(), UNDOS[step], order)
        return "compensated"
    return "completed"


@order_service.handler("call")  # type: ignore[untyped-decorator]
async def call(ctx: Context, order: dict[str, Any]) -> str:
    """Drive the saga, with the participants called as services."""
    done: list[str] = []
    try:
        for step in STEPS:
            await ctx.service_call(do, {"step": step, "order": order})
            done.append(step)
    except TerminalError:
        for step in reversed(done):
            await ctx.service_call(do, {"step": UNDOS[step], "order": order})
        return "compensated"
    return "completed"


@audit_service.handler("counts")  # type: ignore[untyped-decorator]
async def counts(_ctx: Context, _asked: dict[str, Any]) -> dict[str, int]:
    """Return how often each step and undo took effect in this process."""
    return _participants.counts()


app = restate.app([order_service, participant_service, audit_service])
