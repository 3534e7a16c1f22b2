"""Reads a request's body within bounds, and answers with JSON that can be asked for again.

Guarantees: no more than the bound is ever kept of a body, whatever its headers say; an
answer with an `ETag` is sent only once to who has it already.
Refuses: what is not said to be JSON, names twice in an object, numbers that JSON does not
know, and what is nested too deeply.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response

from raysaga.api.http.errors import BodyTooSlowError, MediaTypeError, PayloadTooLargeError
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.errors import ValidationError

DROPPED_BYTES_MAX = 1 << 20
"""How much is read beyond the bound and thrown away: who is still sending hears no answer."""


async def read_body(request: Request, settings: HttpSettings) -> bytes:
    """Return the body as it came.

    Raises:
        MediaTypeError: If it is not said to be JSON.
        PayloadTooLargeError: If it is too large, counted as it comes.
        BodyTooSlowError: If it takes too long.
        ClientDisconnect: If its sender has gone before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise MediaTypeError
    chunks: list[bytes] = []
    byte_count = 0
    try:
        async with asyncio.timeout(settings.body_wait_s):
            async for chunk in request.stream():
                byte_count += len(chunk)
                if byte_count <= settings.body_bytes_max:
                    chunks.append(chunk)
                elif byte_count > settings.body_bytes_max + DROPPED_BYTES_MAX:
                    break
    except TimeoutError as error:
        raise BodyTooSlowError(settings.body_wait_s) from error
    if byte_count > settings.body_bytes_max:
        raise PayloadTooLargeError(settings.body_bytes_max)
    return b"".join(chunks)


def json_object(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` is.

    Raises:
        ValidationError: If it is none.
    """
    try:
        found = json.loads(raw, object_pairs_hook=_unrepeated, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValidationError("must be JSON", "body") from error
    if not isinstance(found, dict):
        raise ValidationError("must be a JSON object", "body")
    return found


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name is there twice")
    return fields


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("a number must be finite")


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with `body` as JSON; what JSON does not know is told as text."""
    content = json.dumps(body, default=str, ensure_ascii=False, separators=(",", ":"))
    encoded = content.encode("utf-8", "backslashreplace")
    return Response(encoded, status, dict(headers or {}), "application/json")


def tagged(request: Request, body: object) -> Response:
    """Return the same with an `ETag`, or 304 if the client has just this."""
    response = answer(body)
    etag = f'"{hashlib.blake2b(bytes(response.body), digest_size=12).hexdigest()}"'
    known = (one.strip() for one in request.headers.get("if-none-match", "").split(","))
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if any(one.removeprefix("W/") == etag or one == "*" for one in known):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return response
