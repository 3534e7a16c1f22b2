"""Serves the operator's page: a fixed list of files, all from this package.

Guarantees: no path is built from what a client asks for. The files hold no data, so they
need no token; what the page shows it asks the API for, with the operator's token.
Costs: the files are read once, when the page is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import Response

TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def console_router() -> APIRouter:
    """Return the routes of the page and of its files."""
    router = APIRouter(include_in_schema=False)
    for file in sorted(files("raysaga.console").joinpath("static").iterdir(), key=str):
        suffix = file.name[file.name.rfind(".") :]
        if suffix in TYPES:
            path = "/" if file.name == "index.html" else f"/console/{file.name}"
            router.add_api_route(path, _sender(file.read_bytes(), TYPES[suffix]), methods=["GET"])
    return router


def _sender(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    # Asked for again each time, and sent only if it has changed: an upgrade shows at once.
    tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return send
