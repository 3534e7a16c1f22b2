"""Traces of a real engine: each saga is told once, with ids that everybody could compute."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from engine_within import Within, engine_within
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id
from serving_within import an_order, hasty, listening, served, stuck_services
from typer.testing import CliRunner

from raysaga.actors.trace_ids import saga_span_of, trace_id_of
from raysaga.api.cli import app
from raysaga.api.client import Sagas
from raysaga.api.http.app import serving
from raysaga.api.traces.errors import TracesNotSentError
from raysaga.api.traces.follower import Follower
from raysaga.api.traces.otel import SubmissionMarks, TraceSink
from raysaga.api.traces.tracing import Tracing
from raysaga.statemachines.order import order_saga

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Telling(InMemorySpanExporter):
    """A collector that can be waited for, and that fails at first if it is told to."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self._failures = failures
        self._has_some = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take spans."""
        if self._failures:
            self._failures -= 1
            return SpanExportResult.FAILURE
        result = super().export(spans)
        self._has_some.set()
        return result

    async def wait_for_some(self) -> None:
        """Return once something was sent."""
        assert await asyncio.to_thread(self._has_some.wait, 20)


@asynccontextmanager
async def traced(
    engine: Within, sagas: Sagas, tracing: Tracing
) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of a traced server on an engine."""
    async with (
        serving(sagas, engine.archive, tracing=tracing) as application,
        listening(application) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


async def ended(sagas: Sagas, *keys: str, **changes: Any) -> None:
    """Submit orders, and wait for their ends."""
    handles = [await sagas.submit(order_saga, an_order(key, **changes), key=key) for key in keys]
    await asyncio.gather(*(handle.result(20) for handle in handles))


def sent(exporter: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    """Return what was sent, by the saga's id, and forget it there."""
    found: dict[str, list[ReadableSpan]] = {}
    for span in exporter.get_finished_spans():
        assert span.attributes is not None
        found.setdefault(str(span.attributes["saga.id"]), []).append(span)
    exporter.clear()
    return found


async def test_each_saga_is_told_once_when_it_has_ended(tmp_path: Path) -> None:
    async with engine_within(tmp_path / "data") as engine:
        await ended(engine.sagas, "o-1", "o-2")
        follower = Follower(engine.archive, since_ms=0)
        assert sorted(follower.look()) == ["order:o-1", "order:o-2"]
        await ended(engine.sagas, "o-3")
        assert list(follower.look()) == ["order:o-3"]
        assert list(follower.look()) == []


async def test_one_that_was_open_at_the_beginning_is_told_at_its_end(tmp_path: Path) -> None:
    async with engine_within(tmp_path / "data", services=stuck_services()) as engine:
        handle = await engine.sagas.submit(hasty(), an_order("o-1"), key="o-1")
        follower = Follower(engine.archive, since_ms=1 << 50)
        await handle.result(20)
        (parked,) = follower.look()
        assert list(follower.look()) == []
        await engine.sagas.retry(parked, by="ann")
        await engine.sagas.handle(parked).result(20)
        assert list(follower.look()) == [parked]


async def test_of_those_that_complete_a_share_is_told_and_of_the_others_all(
    tmp_path: Path,
) -> None:
    async with engine_within(tmp_path / "data") as engine:
        keys = [f"o-{i}" for i in range(60)]
        await ended(engine.sagas, *keys)
        await ended(engine.sagas, "rare", items=[{"item_id": "rare", "quantity": 9}])
        told = set(Follower(engine.archive, since_ms=0, share=0.5).look())
        assert "order:rare" in told
        assert 10 < len(told) < 50
        # By the ids alone, so that every process draws the same.
        assert told == set(Follower(engine.archive, since_ms=0, share=0.5).look())
        assert list(Follower(engine.archive, since_ms=0, share=0.0).look()) == ["order:rare"]


async def test_what_opentelemetry_sends_has_our_ids_times_and_links(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    async with engine_within(tmp_path / "data") as engine:
        await ended(engine.sagas, "o-1", items=[{"item_id": "milk", "quantity": 1}])
        await ended(
            engine.sagas, "o-2", payment={**an_order("x")["payment"], "token": "tok_declined"}
        )
        uuid = engine.folder.uuid
        sink = TraceSink(exporter, uuid)
        follower = Follower(engine.archive, since_ms=0)
        count = sink.send([(one, follower.trace(one)) for one in follower.look()])
        spans = sent(exporter)
        assert count == sum(map(len, spans.values()))
        history = engine.archive.history("order:o-1")  # type: ignore[arg-type]
    for saga_id, found in spans.items():
        (root,) = (span for span in found if span.parent is None)
        assert format_span_id(root.context.span_id) == saga_span_of(uuid, saga_id)
        for span in found:
            assert format_trace_id(span.context.trace_id) == trace_id_of(uuid, saga_id)
            assert span is root or span.parent.span_id == root.context.span_id
    (root,) = (span for span in spans["order:o-1"] if span.parent is None)
    assert root.start_time == history[0]["at_ms"] * 1_000_000
    assert root.end_time == history[-1]["at_ms"] * 1_000_000
    assert root.status.status_code is StatusCode.OK
    assert root.resource.attributes["service.name"] == "raysaga"
    assert len(spans["order:o-1"]) == 5


async def test_a_collector_that_fails_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    exporter = Telling(failures=2)
    async with engine_within(tmp_path / "data") as engine:
        await ended(engine.sagas, "o-1")
        sink = TraceSink(exporter, engine.folder.uuid)
        follower = Follower(engine.archive, since_ms=0)
        with pytest.raises(TracesNotSentError):
            sink.send([("order:o-1", follower.trace("order:o-1"))])
        tracing = Tracing(sink, 1.0, end=lambda: None)

        async def read(question: Any) -> Any:
            return question(engine.archive)

        tracing.start(read)
        await exporter.wait_for_some()
        await tracing.stop()
    assert list(sent(exporter)) == ["order:o-1"]


async def test_a_submission_is_marked_in_its_callers_trace_and_in_its_sagas(
    tmp_path: Path, marked: InMemorySpanExporter
) -> None:
    async with engine_within(tmp_path / "data") as engine:
        marked.clear()
        sagas = Sagas(engine.gateway, SubmissionMarks(engine.folder.uuid))
        with trace.get_tracer("shop").start_as_current_span("checkout") as checkout:
            await sagas.submit(order_saga, an_order("o-1"), key="o-1")
        await sagas.submit(order_saga, an_order("o-1"), key="o-1")
        spans = {span.name: span for span in marked.get_finished_spans()[:3]}
        mine, its = spans["submit order"], spans["submitted order"]
        assert mine.parent.span_id == checkout.get_span_context().span_id
        assert format_trace_id(mine.links[0].context.trace_id) == trace_id_of(
            engine.folder.uuid, "order:o-1"
        )
        assert its.context.trace_id == mine.links[0].context.trace_id
        assert format_span_id(its.parent.span_id) == saga_span_of(engine.folder.uuid, "order:o-1")
        assert its.links[0].context == mine.context
        # A repeat is one more request for the same saga.
        assert len(marked.get_finished_spans()) == 5


async def test_a_refused_submission_leaves_its_mark_and_no_saga(
    tmp_path: Path, marked: InMemorySpanExporter
) -> None:
    async with engine_within(tmp_path / "data") as engine:
        sagas = Sagas(engine.gateway, SubmissionMarks(engine.folder.uuid))
        await sagas.submit(order_saga, an_order("o-1"), key="o-1")
        marked.clear()
        with pytest.raises(Exception, match="o-1"):
            await sagas.submit(order_saga, an_order("o-1", customer_id="other"), key="o-1")
    (mark,) = marked.get_finished_spans()
    assert (mark.name, mark.status.status_code) == ("submit order", StatusCode.ERROR)


async def test_a_request_over_http_goes_on_in_the_trace_that_it_names(
    tmp_path: Path, marked: InMemorySpanExporter
) -> None:
    spans_of_sagas = Telling()
    async with engine_within(tmp_path / "data") as engine:
        sagas = Sagas(engine.gateway, SubmissionMarks(engine.folder.uuid))
        tracing = Tracing(TraceSink(spans_of_sagas, engine.folder.uuid), 1.0, end=lambda: None)
        async with traced(engine, sagas, tracing) as client:
            marked.clear()
            headers = {"traceparent": CALLER}
            answer = await client.post("/orders?wait=10s", json=an_order("o-1"), headers=headers)
            assert answer.status_code == 200
            (mark,) = (s for s in marked.get_finished_spans() if s.name == "submit order")
            assert format_trace_id(mark.context.trace_id) == CALLER.split("-")[1]
            assert format_span_id(mark.parent.span_id) == CALLER.split("-")[2]
            await spans_of_sagas.wait_for_some()
            told = (await client.get("/sagas/order:o-1")).json()
            assert told["trace_id"] == trace_id_of(engine.folder.uuid, "order:o-1")
            for broken in ("x", "00-0-0-00", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
                headers = {"traceparent": broken}
                answer = await client.post("/orders", json=an_order("o-2"), headers=headers)
                assert answer.status_code == 202


async def test_without_the_wish_nothing_is_marked(
    tmp_path: Path, marked: InMemorySpanExporter
) -> None:
    async with served(tmp_path / "data") as server:
        marked.clear()
        headers = {"traceparent": CALLER}
        await server.client.post("/orders?wait=10s", json=an_order("o-1"), headers=headers)
        assert marked.get_finished_spans() == ()
        assert context.get_current() == context.Context()


async def test_the_command_prints_spans_without_a_collector(tmp_path: Path) -> None:
    async with engine_within(tmp_path / "data") as engine:
        await ended(engine.sagas, "o-1")
        uuid = engine.folder.uuid
    done = CliRunner().invoke(app, ["traces", "o-1", "--json", "--data", str(tmp_path / "data")])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 5
    assert {row["trace_id"] for row in rows} == {trace_id_of(uuid, "order:o-1")}
