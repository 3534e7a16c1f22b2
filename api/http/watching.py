"""The routes for whoever keeps an eye on the engine: health, shards, and live streams.

Guarantees: `/healthz` says that the process serves; `/readyz` that new sagas would be
taken. A stream ends by itself when what it tells of has ended, and says that it is alive
when there is nothing to tell.
Refuses: more streams than may be open (`STREAMS_FULL`).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import Response, StreamingResponse

from raysaga.actors.archive import Archive
from raysaga.actors.errors import SagaNotFoundError
from raysaga.api.engine_rows import commit_p99_ms, participant_rows
from raysaga.api.http.bodies import answer, tagged
from raysaga.api.http.errors import NotReadyError, StreamsFullError
from raysaga.api.http.front import Front, Reads, front_of
from raysaga.api.http.metrics import CONTENT_TYPE_LATEST, exposition
from raysaga.api.http.models import PROBLEMS, EngineTold, Health
from raysaga.api.http.problems import STATUS_BY_CODE
from raysaga.api.http.reading import SagaPath, saga_id_of
from raysaga.statemachines.errors import SagaError
from raysaga.statemachines.ids import SagaId
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase

router = APIRouter(tags=["watch"])

PARKED_COUNTED_MAX = 10_000
"""Parked sagas that are counted by their reasons; a tenth of a second of the reader's time."""

EVENT_STREAM = "text/event-stream"
AT_REST = frozenset(phase.value for phase in TERMINAL | PARKED)
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events, until it has ended.",
        "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
    },
    **PROBLEMS,
}


@router.get("/healthz", responses={200: {"model": Health}, **PROBLEMS})
async def is_healthy() -> Response:
    """Say that this process serves."""
    return answer({"status": "ok"})


@router.get("/readyz", responses={200: {"model": Health}, **PROBLEMS})
async def is_ready(request: Request) -> Response:
    """Say that the engine answers, owns its shards, and has room for new sagas."""
    front = front_of(request)
    try:
        shards = await front.pulse.shards()
    except (TimeoutError, SagaError) as error:
        raise NotReadyError(("the engine does not answer",)) from error
    reasons = []
    for shard in shards:
        if not shard.get("epoch"):
            reasons.append(f"shard {shard.get('shard')} owns nothing yet")
        cap = shard.get("map_cap") or 0
        if cap and shard["map_used"] > cap * front.settings.map_ratio_max:
            reasons.append(f"the journal of shard {shard.get('shard')} is nearly full")
    if reasons:
        raise NotReadyError(tuple(reasons))
    return answer({"status": "ready"})


@router.get("/engine", responses={200: {"model": EngineTold}, 304: {}, **PROBLEMS})
async def show_engine(request: Request, _caller: Reads) -> Response:
    """Tell of each shard and of each participant, as the shards see it."""
    front = front_of(request)
    try:
        shards = await front.pulse.shards()
    except (TimeoutError, SagaError):
        return tagged(request, {"running": False, "shards": [], "participants": []})
    participants = participant_rows(shards, front.pulse.answer_times)
    told = [{**shard, "commit_p99_ms": commit_p99_ms(shard)} for shard in shards]
    return tagged(request, {"running": True, "shards": told, "participants": participants})


@router.get(
    "/metrics",
    responses={200: {"description": "Prometheus text.", "content": {"text/plain": {}}}, **PROBLEMS},
)
async def show_metrics(request: Request, _caller: Reads) -> Response:
    """Tell the engine's counts to Prometheus; a scrape needs a token like any reader."""
    front = front_of(request)
    waiting = await front.read(_waiting)
    try:
        shards, is_running = await front.pulse.shards(), True
    except (TimeoutError, SagaError):
        shards, is_running = [], False
    participants = await front.pulse.participants() if is_running else {}
    text = exposition(shards, participants, **waiting, is_running=is_running)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _waiting(archive: Archive) -> dict[str, Any]:
    """Return the oldest saga of each open phase, and how many are parked for what reason."""
    oldest: dict[str, int | None] = {}
    parked: Counter[str] = Counter()
    for phase in sorted(set(Phase) - TERMINAL):
        first = next(archive.rows(limit=1, phases=frozenset({phase}), newest=False), None)
        oldest[phase.value] = None if first is None else first["accepted_at_ms"]
    for row in archive.rows(limit=PARKED_COUNTED_MAX, phases=PARKED):
        parked[row["reason"]] += 1
    return {"oldest": oldest, "parked": parked}


@router.get("/events", responses=_STREAMED, summary="Follow the engine")
async def follow_engine(request: Request, _caller: Reads) -> Response:
    """Stream a `look` each second: counts by phase and rates; the first has some minutes."""
    front = front_of(request)

    async def looks() -> AsyncIterator[bytes]:
        async for new in front.pulse.follow():
            yield _event("look", new)

    return _stream(front, looks())


@router.get("/sagas/{id}/events", responses=_STREAMED, summary="Follow a saga")
async def follow_saga(
    request: Request,
    _caller: Reads,
    name: SagaPath,
    last: Annotated[
        str | None,
        Header(alias="Last-Event-ID", pattern=r"^\d{1,9}$", description="Go on after this."),
    ] = None,
) -> Response:
    """Stream what happens to a saga as it happens, then `end` with its status.

    A parked saga ends the stream too: it waits for a person.
    """
    front = front_of(request)
    saga_id = saga_id_of(name)
    await front.read(lambda archive: archive.status(saga_id))
    passed = 0 if last is None else int(last) + 1
    return _stream(front, _events_of(front, saga_id, passed))


async def _events_of(front: Front, saga_id: SagaId, passed: int) -> AsyncIterator[bytes]:
    while True:
        # The status first: the history read after it holds at least what it tells.
        status, rows = await front.read(lambda archive: _story(archive, saga_id))
        for number in range(passed, len(rows)):
            yield _event("event", rows[number], number)
        passed = max(passed, len(rows))
        if status["phase"] in AT_REST or status["flaw"] or status["pruned"]:
            yield _event("end", status)
            return
        await asyncio.sleep(front.settings.follow_every_s)


def _story(archive: Archive, saga_id: SagaId) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    status = archive.status(saga_id)
    status.pop("results", None)
    if status["flaw"] or status["pruned"]:
        return status, []
    try:
        return status, archive.history(saga_id)
    except SagaNotFoundError:
        return {**status, "pruned": True}, []


def _event(kind: str, facts: object, number: int | None = None) -> bytes:
    """Return a server-sent event; JSON has no line breaks of its own."""
    told = json.dumps(facts, default=str, separators=(",", ":"))
    place = "" if number is None else f"id: {number}\n"
    return f"event: {kind}\n{place}data: {told}\n\n".encode()


def _stream(front: Front, events: AsyncIterator[bytes]) -> Response:
    settings = front.settings
    if front.stream_count >= settings.streams_max:
        raise StreamsFullError(settings.streams_max)

    async def with_heartbeat() -> AsyncIterator[bytes]:
        # Counted here: one that is never begun would never be taken off again.
        front.stream_count += 1
        following = asyncio.ensure_future(anext(events, None))
        try:
            yield b"retry: 2000\n\n"
            while True:
                done, _ = await asyncio.wait({following}, timeout=settings.heartbeat_s)
                if not done:
                    yield b": still here\n\n"
                    continue
                found = following.result()
                if found is None:
                    return
                yield found
                following = asyncio.ensure_future(anext(events, None))
        finally:
            front.stream_count -= 1
            following.cancel()

    return StreamingResponse(with_heartbeat(), media_type=EVENT_STREAM)


@router.get("/problems/{code}", responses={200: {"content": {}}, **PROBLEMS})
async def explain_problem(code: Annotated[str, Path(max_length=64)]) -> Response:
    """Tell what a code of a problem document stands for."""
    status = STATUS_BY_CODE.get(code)
    if status is None:
        raise SagaNotFoundError("")
    told: Mapping[str, Any] = {"code": code, "status": status.value, "title": status.phrase}
    return answer(told)
