"""What a participant behind a broker marks of its calls, in the trace of their sagas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from raysaga.actors.brokers.envelope import call_message, read_reply
from raysaga.actors.brokers.runner import ParticipantRunner
from raysaga.actors.clock import SystemClock
from raysaga.actors.participant_maker import make_participant
from raysaga.actors.participant_server import ParticipantServer, open_ledger
from raysaga.actors.trace_ids import attempt_span_of, saga_span_of, trace_id_of
from raysaga.api.defaults import ORDER_PARTICIPANTS
from raysaga.api.traces.otel import CallMarks
from raysaga.statemachines.calls import StepCall
from raysaga.statemachines.ids import Direction
from raysaga.storage.data_folder import DataFolder


class OneLink:
    """A broker with one connection that never breaks, and hands over what it is given."""

    address = "here"

    def __init__(self) -> None:
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.take: asyncio.Future[Callable[[Any], None]] = (
            asyncio.get_running_loop().create_future()
        )
        self.published: asyncio.Queue[Any] = asyncio.Queue()

    async def connect(self) -> OneLink:
        return self

    async def consume(self, _queue: str, take: Callable[[Any], None], **_: Any) -> None:
        self.take.set_result(take)

    async def publish(self, _to: str, message: Any) -> None:
        self.published.put_nowait(message)

    async def close(self) -> None:
        """Nothing: it holds nothing."""


class OneDelivery:
    """A message that came."""

    def __init__(self, message: Any) -> None:
        self.message = message

    async def ack(self) -> None:
        """Nothing: it does not come again."""


async def test_a_call_through_a_broker_is_linked_to_its_attempt_and_no_child_of_it(
    tmp_path: Path, marked: InMemorySpanExporter
) -> None:
    folder = DataFolder.open(tmp_path / "data", shard_count=1, create=True)
    service = make_participant(ORDER_PARTICIPANTS["payment"], "payment", tmp_path / "data", {})
    ledger = open_ledger(service, folder.service_path("payment"), clock=SystemClock())
    service.prepare(ledger)
    server = ParticipantServer(
        participant=service, ledger=ledger, clock=SystemClock(), on_fatal=lambda _: None
    )
    await server.start()
    link = OneLink()
    marks = CallMarks("payment", "rabbitmq")
    runner = ParticipantRunner(server, link, "payment", mark=marks)  # type: ignore[arg-type]
    marked.clear()
    runner.start()
    take = await asyncio.wait_for(link.take, 10)
    undo = StepCall(1, 1, "uuid", "order:1", "pay", "refund", {}, "s", 4, 2, None, 5_000)
    message = call_message(undo, reply_to="back", body_format="json")
    take(OneDelivery(message))
    reply = read_reply(await asyncio.wait_for(link.published.get(), 10))
    await runner.stop()
    await server.stop()
    ledger.close()
    assert reply.stored
    (mark,) = marked.get_finished_spans()
    assert (mark.name, mark.kind) == ("process refund", SpanKind.CONSUMER)
    assert mark.context is not None and mark.parent is not None and mark.attributes is not None
    assert format_trace_id(mark.context.trace_id) == trace_id_of("uuid", "order:1")
    assert format_span_id(mark.parent.span_id) == saga_span_of("uuid", "order:1")
    attempt = attempt_span_of("uuid", "order:1", "pay", Direction.COMPENSATION, 2)
    assert [format_span_id(one.context.span_id) for one in mark.links] == [attempt]
    assert mark.attributes["messaging.system"] == "rabbitmq"
    assert mark.attributes["saga.answer"] == "succeeded"
    # What the message carries is the same context, for participants in other languages.
    assert message.traceparent == f"00-{trace_id_of('uuid', 'order:1')}-{attempt}-01"
