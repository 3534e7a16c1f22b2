"""The routes by which operators give orders.

Guarantees: an order that is answered 200 is on disk, with who gave it and why. One that is
answered `SERVICE_UNAVAILABLE` may or may not have arrived: look before repeating it.
Refuses: an order under another name than the token's, where tokens are needed.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Annotated

import pydantic
from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from raysaga.api.http.access import Caller
from raysaga.api.http.bodies import answer, json_object, read_body
from raysaga.api.http.front import Operates, front_of
from raysaga.api.http.models import PROBLEMS, OperatorNote, OrderGiven, body_of
from raysaga.api.http.reading import SagaPath, saga_id_of
from raysaga.statemachines.errors import ValidationError

router = APIRouter(tags=["operate"])

NOBODY = "unnamed"
"""Who gives an order when neither a token nor the body says it."""


class OperatorOrder(StrEnum):
    """What can be ordered."""

    CANCEL = "cancel"
    RETRY = "retry"
    SKIP = "skip"
    FORCE = "force"


NEED_NOTE = frozenset({OperatorOrder.SKIP, OperatorOrder.FORCE})
"""Orders that leave an effect, or take one back, against what the saga would do itself."""


@router.post(
    "/sagas/{id}/{order}",
    responses={200: {"model": OrderGiven}, **PROBLEMS},
    openapi_extra=body_of(OperatorNote),
    summary="Give an order",
)
async def give_order(
    request: Request,
    caller: Operates,
    name: SagaPath,
    order: Annotated[
        OperatorOrder,
        Path(
            description="`cancel`: undo it, if it still can be. `retry`: send a parked one on. "
            "`skip`: go on without what holds it. `force`: turn it back, parked or not."
        ),
    ],
) -> Response:
    """Give an order; it is on disk when this is answered. `skip` and `force` need a note."""
    front = front_of(request)
    saga_id = saga_id_of(name)
    note = _note_of(json_object(await read_body(request, front.settings)))
    by = _name_of(caller, note)
    if order in NEED_NOTE and not note.note.strip():
        raise ValidationError("must say why", "note")
    giving = asyncio.ensure_future(
        front.sagas.gateway.ask(saga_id, order.value, by=by, note=note.note)
    )
    told = await asyncio.shield(giving)
    return answer({"saga_id": saga_id, "order": order.value, "answer": told})


def _note_of(fields: dict[str, object]) -> OperatorNote:
    unknown = set(fields) - set(OperatorNote.model_fields)
    if unknown:
        raise ValidationError("knows the fields note and by only", "body")
    try:
        return OperatorNote.model_validate(fields, strict=True)
    except pydantic.ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise ValidationError(fault["msg"], ".".join(map(str, fault["loc"]))) from None


def _name_of(caller: Caller, note: OperatorNote) -> str:
    """Return who gives an order."""
    if caller.name and note.by not in ("", caller.name):
        raise ValidationError("is told by the token here, and need not be said", "by")
    return caller.name or note.by.strip() or NOBODY
