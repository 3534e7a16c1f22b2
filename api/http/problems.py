"""Turns every error into a problem document (RFC 9457) with a stable code.

Guarantees: an error of ours keeps its code and its sentence; what is none of ours becomes
`INTERNAL` with an id that the log has too, and tells nothing else. No document repeats a
value that the client sent, but for ids.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from raysaga.statemachines.errors import SagaError, ValidationError

PROBLEM_TYPE = "application/problem+json"

STATUS_BY_CODE: Mapping[str, HTTPStatus] = {
    "VALIDATION": HTTPStatus.UNPROCESSABLE_ENTITY,
    "DEFINITION_INVALID": HTTPStatus.UNPROCESSABLE_ENTITY,
    "IDEMPOTENCY_CONFLICT": HTTPStatus.UNPROCESSABLE_ENTITY,
    "IDEMPOTENCY_KEY_MISSING": HTTPStatus.BAD_REQUEST,
    "BAD_REQUEST": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "FORBIDDEN": HTTPStatus.FORBIDDEN,
    "FOREIGN_ORIGIN": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "METHOD_NOT_ALLOWED": HTTPStatus.METHOD_NOT_ALLOWED,
    "BODY_TOO_SLOW": HTTPStatus.REQUEST_TIMEOUT,
    "CANCEL_TOO_LATE": HTTPStatus.CONFLICT,
    "ORDER_REFUSED": HTTPStatus.CONFLICT,
    "PAYLOAD_TOO_LARGE": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "UNSUPPORTED_MEDIA_TYPE": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "FOREIGN_HOST": HTTPStatus.MISDIRECTED_REQUEST,
    "RATE_LIMITED": HTTPStatus.TOO_MANY_REQUESTS,
    "OVERLOADED": HTTPStatus.SERVICE_UNAVAILABLE,
    "SERVICE_UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "NOT_READY": HTTPStatus.SERVICE_UNAVAILABLE,
    "STREAMS_FULL": HTTPStatus.SERVICE_UNAVAILABLE,
    "STORAGE_FULL": HTTPStatus.INSUFFICIENT_STORAGE,
    "JOURNAL_CORRUPT": HTTPStatus.INTERNAL_SERVER_ERROR,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Codes that clients can meet; any other of ours is our own fault, 500."""

_CODE_BY_STATUS: Mapping[int, str] = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}
"""What the framework finds by itself."""

_log = structlog.get_logger()


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where, such as `items[0].quantity`.")
    message: str


class Problem(BaseModel):
    """A problem document, as in RFC 9457."""

    type: str = Field(description="A page of this server that tells about the code.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Stable; for programs.")
    retryable: bool = Field(description="Whether the same request can succeed later.")
    retry_after_ms: int | None = None
    saga_id: str | None = None
    error_id: str | None = Field(None, description="Find it in the server's log.")
    errors: list[Fault] | None = None


def problem(
    path: str, code: str, detail: str, *, retryable: bool = False, **facts: Any
) -> JSONResponse:
    """Return the response that tells what `code` stands for."""
    status = STATUS_BY_CODE.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers: dict[str, str] = {}
    if "retry_after_ms" in facts:
        headers["Retry-After"] = str(math.ceil(facts["retry_after_ms"] / 1_000))
    elif status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.REQUEST_TIMEOUT):
        # What is left of the body is not read.
        headers["Connection"] = "close"
    body = {
        "type": f"/problems/{code}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "instance": path,
        "code": code,
        "retryable": retryable,
        **facts,
    }
    return JSONResponse(body, status.value, headers, PROBLEM_TYPE)


def problem_of(path: str, error: SagaError) -> JSONResponse:
    """Return the response that tells `error`."""
    facts: dict[str, Any] = {}
    if isinstance(error, ValidationError) and error.field:
        facts["errors"] = [{"field": error.field, "message": error.message}]
    for name in ("saga_id", "retry_after_ms"):
        if hasattr(error, name):
            facts[name] = getattr(error, name)
    return problem(path, error.code, str(error), retryable=error.retryable, **facts)


def add_problems(app: FastAPI) -> None:
    """Have `app` answer every error with a problem document."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, SagaError)
        return problem_of(request.url.path, error)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [
            {"field": ".".join(map(str, fault["loc"])), "message": fault["msg"]}
            for fault in error.errors()
        ]
        sentence = "the request breaks a rule"
        return problem(request.url.path, "VALIDATION", sentence, errors=faults)

    async def of_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = _CODE_BY_STATUS.get(error.status_code, "BAD_REQUEST")
        answer = problem(request.url.path, code, HTTPStatus(error.status_code).phrase)
        answer.headers.update(error.headers or {})
        return answer

    async def gone(request: Request, _error: Exception) -> JSONResponse:
        # Nobody reads it; nothing was begun, since the body had not come in full.
        return problem(request.url.path, "BAD_REQUEST", "the client went away", retryable=True)

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        error_id = secrets.token_hex(8)
        _log.error("request_failed", error_id=error_id, path=request.url.path, exc_info=error)
        sentence = "an error of the server; its log has the id"
        return problem(request.url.path, "INTERNAL", sentence, error_id=error_id)

    app.add_exception_handler(SagaError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)
