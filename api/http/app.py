"""Makes the application that serves an engine over HTTP.

```python
async with raysaga.connect("orders") as sagas, serving(sagas, archive) as app:
    ...  # any ASGI server
```

Guarantees: one application serves one engine; it ends neither it nor its archive.
Refuses: what the modules beside it refuse, each with a problem document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

import raysaga
from raysaga.actors.archive import Archive
from raysaga.api.client import Sagas
from raysaga.api.http import operating, reading, submitting, watching
from raysaga.api.http.access import Access, Token
from raysaga.api.http.edge import LOOPBACK_NAMES, Edge
from raysaga.api.http.front import Front, untraced
from raysaga.api.http.models import OperatorNote
from raysaga.api.http.problems import Problem, add_problems
from raysaga.api.http.settings import HttpSettings
from raysaga.api.order_schema import Order
from raysaga.api.traces.tracing import Tracing
from raysaga.statemachines.definition import SagaDefinition
from raysaga.statemachines.order import order_saga

DESCRIPTION = """Durable sagas: every order ends done or undone.

A submission is on disk when it is answered. Its key names it for ever: repeating it is safe.
Errors are problem documents (RFC 9457) with a stable `code`.
"""


@asynccontextmanager
async def serving(
    sagas: Sagas,
    archive: Archive,
    *,
    tokens: Sequence[Token] | None = None,
    names: Collection[str] | None = LOOPBACK_NAMES,
    definitions: Iterable[SagaDefinition] = (order_saga,),
    settings: HttpSettings | None = None,
    routers: Iterable[APIRouter] = (),
    tracing: Tracing | None = None,
) -> AsyncIterator[ASGIApp]:
    """Give the application; what it began is ended with it.

    Args:
        sagas: The engine.
        archive: Its data folder.
        tokens: Who is known; None if everybody may do everything, which is for one's own
            machine only.
        names: The host names it answers to; None for all, which is for where tokens guard it.
        definitions: What can be submitted.
        settings: The bounds.
        routers: Further pages, such as the console's.
        tracing: Sends traces while it serves; None for none.
    """
    assert names is not None or tokens is not None, "nothing would guard it"
    chosen = settings or HttpSettings()
    front = Front(
        sagas=sagas,
        archive=archive,
        access=Access(tokens, chosen),
        settings=chosen,
        definitions={found.name: found for found in definitions},
        caller_of=untraced if tracing is None else tracing.caller_of,
    )
    app = _application([submitting.router, reading.router, watching.router, *routers])
    # Last, since its path takes two names of any kind.
    app.include_router(operating.router)
    app.state.front = front
    front.pulse.start()
    if tracing is not None:
        tracing.start(front.read)
    try:
        yield Edge(app, names)
    finally:
        if tracing is not None:
            await tracing.stop()
        await front.pulse.stop()
        front.close()


def _application(routers: Iterable[APIRouter]) -> FastAPI:
    app = FastAPI(
        title="raysaga",
        version=raysaga.__version__,
        description=DESCRIPTION,
        # Their pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Each route says all that it can answer.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    add_problems(app)
    for router in routers:
        app.include_router(router)
    framework_document = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _add_shapes(framework_document())
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


def _add_shapes(found: dict[str, Any]) -> None:
    """Add what routes name by reference only, and drop what they never answer."""
    _, shapes = models_json_schema(
        [(shape, "validation") for shape in (Problem, Order, OperatorNote)],
        ref_template="#/components/schemas/{model}",
    )
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(shapes["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in found["paths"].values():
        for operation in path.values():
            # The framework's own shape; ours is a problem document.
            operation["responses"].pop("422", None)
