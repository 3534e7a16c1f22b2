"""The routes that begin a saga.

Guarantees: what is answered 200, 201 or 202 is on disk. Once its body has arrived, a
submission is carried through even if the client goes away meanwhile; a repeat under the
same key is then told the same saga.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import Response

from raysaga.actors.errors import ResultTimeoutError, SagaNotFoundError
from raysaga.api.client import Request as SagaRequest
from raysaga.api.client import SagaHandle
from raysaga.api.http.bodies import answer, json_object, read_body
from raysaga.api.http.errors import KeyMissingError
from raysaga.api.http.front import Submits, front_of
from raysaga.api.http.models import PROBLEMS, Ended, Submitted, body_of
from raysaga.api.http.settings import WAIT_S_MAX
from raysaga.api.order_schema import Order, parse_order_line
from raysaga.api.outcome import Outcome
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.errors import ValidationError
from raysaga.statemachines.ids import KEY_PATTERN, is_key
from raysaga.statemachines.order import order_saga

router = APIRouter(tags=["submit"])

_DURATION = re.compile(r"(\d{1,6})(ms|s|m)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}

WaitQuery = Annotated[
    str | None,
    Query(
        description="How long to wait for the end, such as `10s`; at most a minute.",
        pattern=rf"^{_DURATION.pattern}$",
    ),
]
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Names the saga for ever. A repeat under the same key is the same saga.",
        pattern=rf'^("{KEY_PATTERN.pattern}"|{KEY_PATTERN.pattern})$',
    ),
]
_SUBMITTED = {
    200: {"model": Ended, "description": "It has ended within `wait`, or is parked."},
    202: {"model": Submitted, "description": "It is on disk, and under way."},
    **PROBLEMS,
}


def wait_s_of(wait: str | None) -> float:
    """Return how long to wait, in seconds; 0 for not at all.

    Raises:
        ValidationError: If it is longer than may be.
    """
    found = _DURATION.fullmatch(wait or "0")
    if found is None:
        raise ValidationError("must be a duration such as 10s", "wait")
    wait_s = int(found[1]) * _UNITS_S[found[2]]
    if wait_s > WAIT_S_MAX:
        raise ValidationError(f"must not exceed {WAIT_S_MAX:.0f}s", "wait")
    return wait_s


@router.post(
    "/orders",
    status_code=202,
    responses=_SUBMITTED,
    openapi_extra=body_of(Order),
    summary="Place an order",
)
async def place_order(
    request: Request, _caller: Submits, key: KeyHeader = None, wait: WaitQuery = None
) -> Response:
    """Begin the order saga. The order's id is its idempotency key.

    An `Idempotency-Key` is not needed; if there is one it must be the order's id, so that
    one order cannot become two sagas.
    """
    front = front_of(request)
    wait_s = wait_s_of(wait)
    order = _order_of(await read_body(request, front.settings), key)
    return await _submit(request, order_saga, order, order.order_id, wait_s)


def _order_of(raw: bytes, key: str | None) -> Order:
    """Return the order that a body is, whose id must be `key` if there is one."""
    order = parse_order_line(raw)
    if key is not None and key.strip('"') != order.order_id:
        raise ValidationError("must be the order's id, if given", "Idempotency-Key")
    return order


@router.post(
    "/sagas/{definition}",
    status_code=202,
    responses=_SUBMITTED,
    openapi_extra=body_of(dict[str, Any]),
    summary="Begin a saga",
)
async def begin_saga(
    request: Request,
    _caller: Submits,
    definition: Annotated[str, Path(description="The name of a definition of this server.")],
    key: KeyHeader = None,
    wait: WaitQuery = None,
) -> Response:
    """Begin a saga of any definition that this server knows, with the body as its input."""
    front = front_of(request)
    wait_s = wait_s_of(wait)
    found = front.definitions.get(definition)
    if found is None:
        raise SagaNotFoundError(definition if is_key(definition) else "")
    if key is None:
        raise KeyMissingError
    raw = await read_body(request, front.settings)
    if found.name == order_saga.name:
        # Its own rules hold by whatever way an order comes.
        return await _submit(request, found, _order_of(raw, key), key.strip('"'), wait_s)
    return await _submit(request, found, json_object(raw), key.strip('"'), wait_s)


async def _submit(
    request: Request,
    definition: SagaDefinition,
    saga_input: Mapping[str, Any] | SagaRequest,
    key: str,
    wait_s: float,
) -> Response:
    front = front_of(request)
    # Shielded: a client that goes away must not leave it half submitted.
    with front.caller_of(request.headers):
        submitting = asyncio.ensure_future(front.sagas.submit(definition, saga_input, key=key))
    handle = await asyncio.shield(submitting)
    place = {"Location": f"/sagas/{handle.saga_id}"}
    outcome = await ended_within(handle, wait_s)
    if outcome is not None:
        return answer(outcome_row(outcome, is_new=handle.is_new), 200, place)
    body = {"saga_id": handle.saga_id, "is_new": handle.is_new, "status_url": place["Location"]}
    return answer(body, 202, place)


async def ended_within(handle: SagaHandle, wait_s: float) -> Outcome | None:
    """Return a saga's outcome if it ends in that time."""
    if not wait_s:
        return None
    try:
        return await handle.result(wait_s)
    except ResultTimeoutError:
        return None


def outcome_row(outcome: Outcome, *, is_new: bool) -> dict[str, Any]:
    """Return an outcome as plain values."""
    return {
        "saga_id": outcome.saga_id,
        "is_new": is_new,
        "status": outcome.status,
        "code": outcome.code,
        "message": outcome.message,
        "step": outcome.step,
        "results": outcome.results,
        "remaining": outcome.remaining,
    }
