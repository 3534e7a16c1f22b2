"""Who may do what, how often, and from where; tokens are kept as hashes only."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_within import QUICK, Served, an_order, check_problem, served

from raysaga.api.http.access import Access, Right, load_tokens, make_token
from raysaga.api.http.app import serving
from raysaga.api.http.errors import RateLimitedError
from raysaga.api.http.settings import HttpSettings
from raysaga.statemachines.errors import ValidationError

READS = (
    *("/sagas", "/parked", "/orders-given", "/engine", "/events", "/definitions"),
    *("/diagrams/phases", "/find/x", "/metrics", "/sagas/order:o-1", "/sagas/order:o-1/events"),
    *("/sagas/order:o-1/history", "/sagas/order:o-1/timeline"),
)


async def test_each_right_opens_its_own_routes_and_no_others(tmp_path: Path) -> None:
    rights = {right.value: [right] for right in Right}
    async with served(tmp_path / "data", rights=rights) as server:
        order = an_order("o-1")
        for path, method, body, right in (
            *((path, "GET", None, "read") for path in READS),
            ("/orders", "POST", order, "submit"),
            ("/sagas/hasty", "POST", order, "submit"),
            ("/sagas/order:o-1/cancel", "POST", {}, "operate"),
        ):
            answer = await server.client.request(method, path, json=body)
            check_problem(answer, 401, "UNAUTHENTICATED")
            assert answer.headers["www-authenticate"] == "Bearer"
            for other in rights.keys() - {right}:
                headers = server.bearer(other)
                answer = await server.client.request(method, path, json=body, headers=headers)
                check_problem(answer, 403, "FORBIDDEN")
        answer = await server.client.post("/orders", json=order, headers=server.bearer("submit"))
        assert answer.status_code == 202
        answer = await server.client.get("/sagas", headers=server.bearer("read"))
        assert answer.status_code == 200
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await server.client.get(path)).status_code == 200


async def test_what_is_no_token_opens_nothing(tmp_path: Path) -> None:
    async with served(tmp_path / "data", rights={"ann": [Right.READ]}) as server:
        for given in ("Bearer x", "Bearer", "Basic eDp5", "Bearer \u00e9", "x"):
            headers = [(b"authorization", given.encode("latin-1"))]
            answer = await server.client.get("/sagas", headers=headers)  # type: ignore[arg-type]
            check_problem(answer, 401, "UNAUTHENTICATED")


async def test_a_server_without_tokens_for_every_name_is_not_made(server: Served) -> None:
    with pytest.raises(AssertionError, match="guard"):
        async with serving(server.engine.sagas, server.engine.archive, names=None):
            pass


def test_a_token_file_holds_hashes_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    assert load_tokens(path) == []
    first, second = (make_token(path, name, [Right.READ]) for name in ("ann", "bob"))
    assert first not in path.read_text() and second not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    again = make_token(path, "ann", list(Right))
    assert again != first
    assert {token.name: len(token.rights) for token in load_tokens(path)} == {"ann": 3, "bob": 1}
    path.chmod(0o644)
    with pytest.raises(ValidationError, match="chmod 600"):
        load_tokens(path)


def test_a_token_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text('[{"name": "ann"}]')
    path.chmod(0o600)
    with pytest.raises(ValidationError):
        load_tokens(path)
    with pytest.raises(ValidationError):
        make_token(tmp_path / "other.json", "no name", [Right.READ])


def test_a_caller_has_a_burst_and_then_a_rate() -> None:
    now_s = 0.0
    settings = HttpSettings(requests_per_s=2, requests_burst=3, callers_max=2)
    access = Access(None, settings, monotonic_s=lambda: now_s)
    for _ in range(3):
        access.admit(Right.READ, None, "a")
    with pytest.raises(RateLimitedError) as told:
        access.admit(Right.READ, None, "a")
    assert 400 < told.value.retry_after_ms <= 501
    access.admit(Right.READ, None, "b")
    now_s = 0.5
    access.admit(Right.READ, None, "a")
    with pytest.raises(RateLimitedError):
        access.admit(Right.READ, None, "a")


async def test_too_many_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"requests_burst": 1, "requests_per_s": 0.01})
    async with served(tmp_path / "data", settings=settings) as server:
        assert (await server.client.get("/sagas")).status_code == 200
        answer = await server.client.get("/sagas")
        told = check_problem(answer, 429, "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) * 1_000 >= told["retry_after_ms"]  # type: ignore[operator]


async def test_a_name_that_was_made_to_lead_here_is_not_answered(server: Served) -> None:
    """DNS rebinding: a foreign page's own name, resolved to this machine by its owner."""
    for host in ("evil.example", "evil.example:80", "", "[::1", "127.0.0.1.evil.example"):
        answer = await server.client.get("/sagas", headers={"Host": host})
        if host:
            check_problem(answer, 421, "FOREIGN_HOST")
        assert answer.status_code in (400, 421)
    for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
        assert (await server.client.get("/sagas", headers={"Host": host})).status_code == 200


async def test_a_page_of_another_origin_can_change_nothing(server: Served) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://["):
        answer = await server.client.post(
            "/orders", json=an_order("o-1"), headers={"Origin": origin}
        )
        check_problem(answer, 403, "FOREIGN_ORIGIN")
    own = {"Origin": server.url}
    assert (await server.client.post("/orders", json=an_order("o-1"), headers=own)).is_success
    assert server.engine.desk.accepted_count == 1


async def test_every_answer_forbids_what_a_browser_should_not_do(server: Served) -> None:
    for path in ("/sagas", "/none", "/healthz"):
        headers = (await server.client.get(path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
