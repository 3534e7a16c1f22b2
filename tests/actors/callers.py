"""Callers of the engine, and waiting for what they are told."""

from __future__ import annotations

import asyncio

from raysaga.simulation.callers import RESENT, Caller, Request

__all__ = ["RESENT", "Caller", "Request", "answered"]


async def answered(request: Request, within_s: float = 60.0) -> Request:
    """Return the request once something was said to it."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + within_s
    while not request.is_answered:
        assert loop.time() < limit, f"{request.operation} {request.body} was not answered"
        await asyncio.sleep(0.001)
    return request
