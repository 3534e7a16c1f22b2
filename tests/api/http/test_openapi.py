"""The server does what its own document says, whatever it is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)
from serving_within import QUICK, Served, an_order, served

from raysaga.api.http.access import Right

CHECKS: Any = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    ignored_auth,
]
CASES_EACH = 8
TRYING = settings(
    max_examples=CASES_EACH,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def try_all(url: str, headers: dict[str, str]) -> set[str]:
    """Send generated requests to every operation, and check each answer; return the paths."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == "/events":
            # It has no end.
            continue

        @TRYING
        @given(case=operation.as_strategy())
        def one(case: Any) -> None:
            case.call_and_validate(base_url=url, headers=headers, checks=CHECKS, timeout=20)

        one()
        tried.add(operation.path)
    return tried


@pytest.mark.filterwarnings("ignore")
async def test_generated_requests_get_what_the_document_tells(tmp_path: Path) -> None:
    calm = QUICK.model_copy(update={"requests_burst": 100_000})
    rights = {"ann": list(Right)}
    async with served(tmp_path / "data", rights=rights, settings=calm) as server:
        headers = server.bearer("ann")
        await server.client.post("/orders?wait=10s", json=an_order("o-1"), headers=headers)
        tried = await asyncio.to_thread(try_all, server.url, headers)
    assert {"/orders", "/sagas", "/sagas/{id}", "/sagas/{id}/{order}", "/metrics"} <= tried


async def test_the_answers_about_a_real_saga_are_of_the_shape_that_is_told(
    server: Served,
) -> None:
    """Generated ids name no saga, so the answers that matter most are asked for by hand."""
    await server.client.post("/orders?wait=10s", json=an_order("o-1"))
    document = (await server.client.get("/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    for path in (
        "/sagas",
        "/sagas/{id}",
        "/sagas/{id}/history",
        "/sagas/{id}/timeline",
        "/engine",
        "/readyz",
    ):
        answer = await server.client.get(path.replace("{id}", "order:o-1"))
        assert answer.status_code == 200
        schema[path]["GET"].validate_response(answer)


async def test_the_document_needs_no_other_host(server: Served) -> None:
    text = (await server.client.get("/openapi.json")).text
    assert "http://" not in text and "https://" not in text
    for path in ("/docs", "/redoc"):
        assert (await server.client.get(path)).status_code == 404
