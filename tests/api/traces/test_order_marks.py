"""Orders from a broker go on in the trace that they came in."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from raysaga.actors.brokers.envelope import Order, order_message, read_order
from raysaga.actors.trace_ids import trace_id_of
from raysaga.api.cli_ingress import submits
from raysaga.api.traces.otel import SubmissionMarks
from raysaga.statemachines.order import order_saga

UUID = "journal"
CALLER = f"00-{'a' * 32}-{'b' * 16}-01"


class Accepting:
    """Takes every order."""

    async def submit(self, *_: Any, **__: Any) -> None:
        """Nothing: it is accepted."""


@pytest.mark.parametrize("trace", [CALLER, ""])
async def test_an_order_is_marked_in_its_senders_trace_and_in_its_sagas(
    marked: InMemorySpanExporter, trace: str
) -> None:
    """One without a trace begins one of its own."""
    marked.clear()
    order = read_order(order_message(Order("order", "o-1", {}, None, trace)))
    await submits(Accepting(), SubmissionMarks(UUID))(order_saga, order)
    spans = {span.name: span for span in marked.get_finished_spans()}
    sent, taken = spans["submit order"], spans["submitted order"]
    assert sent.context is not None and taken.context is not None
    assert f"{taken.context.trace_id:032x}" == trace_id_of(UUID, "order:o-1")
    assert taken.links[0].context.span_id == sent.context.span_id
    if trace:
        assert sent.parent is not None
        assert f"00-{sent.context.trace_id:032x}-{sent.parent.span_id:016x}-01" == trace
    else:
        assert sent.parent is None
