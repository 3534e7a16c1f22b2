"""The routes that only look: lists, one saga, what waits for a person, who ordered what.

Guarantees: what they tell is on disk. They need no engine. Each costs a bounded time,
whatever the number of sagas: a list says how far it has looked, and goes on by a cursor.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from raysaga.actors.archive import Archive
from raysaga.actors.errors import SagaNotFoundError
from raysaga.actors.log_lines import orders_given
from raysaga.actors.trace_ids import trace_id_of
from raysaga.api.diagrams import DiagramName, Graph, definition_graph, graph_of
from raysaga.api.http.bodies import tagged
from raysaga.api.http.cursors import cursor_of, place_of
from raysaga.api.http.front import Reads, front_of
from raysaga.api.http.models import PROBLEMS, Rows, SagaPage, SagaStatus
from raysaga.api.http.settings import ROWS_MAX, ROWS_USUAL
from raysaga.api.http.submitting import WaitQuery, ended_within, wait_s_of
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import SagaId, is_key
from raysaga.statemachines.tables import PARKED, TERMINAL, Phase

router = APIRouter(tags=["read"])

STATES = {
    **{phase.value: frozenset({phase}) for phase in Phase},
    "open": frozenset(Phase) - TERMINAL,
    "parked": PARKED,
    "ended": TERMINAL,
}
"""What `state` understands: each phase, and three words for several."""

SagaPath = Annotated[
    str, Path(alias="id", description="A saga, as `definition:key`.", max_length=201)
]
Payloads = Annotated[bool, Query(description="Requests and results too; they may be private.")]
Limit = Annotated[int, Query(ge=1, le=ROWS_MAX, description="Rows at most.")]
_Text = Annotated[str | None, Query(max_length=200)]
_Instant = Annotated[int | None, Query(ge=0, le=1 << 53, description="Unix time in milliseconds.")]


def saga_id_of(given: str) -> SagaId:
    """Return the id of a saga that may be.

    Raises:
        SagaNotFoundError: If no saga can have it.
    """
    definition, colon, key = given.partition(":")
    if not (colon and is_key(definition) and is_key(key)):
        raise SagaNotFoundError("")
    return SagaId(given)


@router.get(
    "/sagas", responses={200: {"model": SagaPage}, 304: {}, **PROBLEMS}, summary="List sagas"
)
async def list_sagas(
    request: Request,
    _caller: Reads,
    state: Annotated[
        list[str] | None, Query(description=f"Any of {', '.join(STATES)}.", max_length=16)
    ] = None,
    definition: _Text = None,
    reason: _Text = None,
    step: _Text = None,
    text: Annotated[
        str,
        Query(
            max_length=200,
            description="A string that the input must hold: a customer, an item, a token.",
        ),
    ] = "",
    accepted_before_ms: _Instant = None,
    accepted_from_ms: _Instant = None,
    older_than_s: Annotated[int | None, Query(ge=0, le=10**9)] = None,
    limit: Limit = ROWS_USUAL,
    cursor: Annotated[str | None, Query(max_length=16_384)] = None,
) -> Response:
    """List sagas that meet every condition, newest first.

    A page can hold fewer than `limit` and yet not be the last one: then so many sagas were
    looked at as may be for one request. Go on while there is a `cursor`.
    """
    front = front_of(request)
    unknown = [one for one in state or () if one not in STATES]
    if unknown:
        raise ValidationError(f"must be one of {', '.join(STATES)}", "state")
    wanted = {
        "phases": frozenset[Phase]().union(*(STATES[one] for one in state)) if state else None,
        "definition": definition,
        "reason": reason,
        "step": step,
        "accepted_from_ms": accepted_from_ms,
        "accepted_before_ms": accepted_before_ms,
    }
    if older_than_s is not None:
        bound_ms = time.time_ns() // 1_000_000 - older_than_s * 1_000
        wanted["accepted_before_ms"] = min(bound_ms, accepted_before_ms or bound_ms)
    after = place_of(cursor)
    looks_max = front.settings.reads_max if text else front.settings.looks_max
    page = await front.read(
        lambda archive: archive.page(
            limit=limit, looks_max=looks_max, after=after, text=text, **wanted
        )
    )
    return tagged(
        request,
        {
            "sagas": page.rows,
            "looked_count": page.looked_count,
            "cursor": cursor_of(page.end),
        },
    )


@router.get("/parked", responses={200: {"model": Rows}, 304: {}, **PROBLEMS})
async def list_parked(request: Request, _caller: Reads, limit: Limit = ROWS_USUAL) -> Response:
    """List the sagas that wait for a person: why, with what effect, and what can be done."""
    rows = await front_of(request).read(lambda archive: list(archive.parked(limit)))
    return tagged(request, {"rows": rows})


@router.get("/orders-given", responses={200: {"model": Rows}, 304: {}, **PROBLEMS})
async def list_orders_given(
    request: Request, _caller: Reads, limit: Limit = ROWS_USUAL
) -> Response:
    """List what operators have ordered, newest first: who, what, and why.

    It is read from the logs that are kept. Each saga's history has the orders that had an
    effect on it, for as long as the saga is kept.
    """
    rows = await front_of(request).read(
        lambda archive: orders_given(archive.folder.log_path, limit)
    )
    return tagged(request, {"rows": rows})


@router.get("/sagas/{id}", responses={200: {"model": SagaStatus}, 304: {}, **PROBLEMS})
async def show_saga(
    request: Request, _caller: Reads, name: SagaPath, wait: WaitQuery = None
) -> Response:
    """Tell where a saga stands, step by step; with `wait`, once it has ended.

    The `ETag` changes when the answer does.
    """
    front = front_of(request)
    saga_id = saga_id_of(name)
    await ended_within(front.sagas.handle(saga_id), wait_s_of(wait))
    return tagged(request, await front.read(lambda archive: _told(archive, saga_id)))


def _told(archive: Archive, saga_id: SagaId) -> dict[str, Any]:
    status = archive.status(saga_id)
    status.pop("results", None)
    return {**status, "trace_id": trace_id_of(archive.folder.uuid, saga_id)}


@router.get("/sagas/{id}/history", responses={200: {"model": Rows}, 304: {}, **PROBLEMS})
async def show_history(
    request: Request, _caller: Reads, name: SagaPath, payloads: Payloads = False
) -> Response:
    """Tell what has happened to a saga, oldest first."""
    saga_id = saga_id_of(name)
    rows = await front_of(request).read(lambda archive: archive.history(saga_id, payloads=payloads))
    return tagged(request, {"rows": rows})


@router.get("/sagas/{id}/timeline", responses={200: {"model": Rows}, 304: {}, **PROBLEMS})
async def show_timeline(request: Request, _caller: Reads, name: SagaPath) -> Response:
    """Tell the same by attempts, each with its answer and how long it took."""
    saga_id = saga_id_of(name)
    rows = await front_of(request).read(lambda archive: archive.timeline(saga_id))
    return tagged(request, {"rows": rows})


@router.get("/find/{name}", responses={200: {"model": SagaStatus}, 304: {}, **PROBLEMS})
async def find_saga(
    request: Request, _caller: Reads, name: Annotated[str, Path(max_length=201)]
) -> Response:
    """Tell where the saga stands that is called `name`: its id, or its key alone."""
    found = await front_of(request).read(lambda archive: _told(archive, archive.find(name)))
    return tagged(request, found)


@router.get("/definitions", responses={200: {"model": Rows}, 304: {}, **PROBLEMS})
async def list_definitions(request: Request, _caller: Reads) -> Response:
    """List the definitions that can be submitted here, each as data and as a diagram."""
    rows = [
        {"definition": found.to_data(), "diagram": graph_row(definition_graph(found))}
        for found in front_of(request).definitions.values()
    ]
    return tagged(request, {"rows": rows})


@router.get("/diagrams/{name}", responses={200: {"content": {}}, 304: {}, **PROBLEMS})
async def show_diagram(request: Request, _caller: Reads, name: DiagramName) -> Response:
    """Tell a state machine as boxes with places, and arrows."""
    return tagged(request, graph_row(graph_of(name)))


def graph_row(graph: Graph) -> dict[str, Any]:
    """Return a diagram as plain values."""
    return {
        "title": graph.title,
        "nodes": [
            {"name": name, "text": text, "place": graph.places[name], "is_end": name in graph.ends}
            for name, text in graph.nodes.items()
        ],
        "edges": [edge._asdict() for edge in graph.edges],
    }
