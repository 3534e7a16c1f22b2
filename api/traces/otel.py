"""The one door to OpenTelemetry: sends spans of ours, and marks submissions in a caller's trace.

Guarantees: spans keep the ids and the times that they were given. Where they go, and as
whom, is told by OpenTelemetry's own environment variables, such as
`OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_SERVICE_NAME`.
Refuses: to send without its packages (`TracingMissingError`); marking needs the API alone,
and does nothing where nobody has set up a provider.
Costs: some thirty microseconds a span, in the process that sends.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import raysaga
from raysaga.actors.trace_ids import saga_traceparent, trace_id_of, traceparent_of
from raysaga.api.traces.errors import TracesNotSentError, TracingMissingError
from raysaga.api.traces.spans import Span
from raysaga.statemachines.calls import Outcome, StepCall, StepReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext

T = TypeVar("T")

SPANS_MAX = 512
"""Spans in one request; as OpenTelemetry's own processor sends them."""

_NS = 1_000_000


class TraceSink:
    """Where spans go."""

    def __init__(self, exporter: SpanExporter, journal_uuid: str) -> None:
        """Make one.

        Args:
            exporter: Of OpenTelemetry's.
            journal_uuid: Of the data folder.
        """
        self._exporter = exporter
        self._uuid = journal_uuid
        self._resource = resource()

    def send(self, traces: Iterable[tuple[str, Sequence[Span]]]) -> int:
        """Send the spans of some sagas, by id; return how many spans.

        Raises:
            TracesNotSentError: If some were not taken.
        """
        from opentelemetry.sdk.trace.export import SpanExportResult

        made = [self._made(saga_id, span) for saga_id, spans in traces for span in spans]
        for start in range(0, len(made), SPANS_MAX):
            result = self._exporter.export(made[start : start + SPANS_MAX])
            if result is not SpanExportResult.SUCCESS:
                raise TracesNotSentError("the collector does not take them; see its log")
        return len(made)

    def close(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()

    def _made(self, saga_id: str, span: Span) -> ReadableSpan:
        from opentelemetry.sdk.trace import Event, ReadableSpan
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        trace_id = int(trace_id_of(self._uuid, saga_id), 16)

        def context(span_id: str) -> SpanContext:
            return SpanContext(
                trace_id, int(span_id, 16), is_remote=False, trace_flags=TraceFlags(1)
            )

        status = Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK)
        return ReadableSpan(
            span.name,
            context=context(span.span_id),
            parent=context(span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(m.name, m.attributes, m.at_ms * _NS) for m in span.moments],
            links=[Link(context(one.span_id), {"saga.link": one.why}) for one in span.links],
            kind=SpanKind.CLIENT if span.parent_id else SpanKind.INTERNAL,
            status=status,
            start_time=span.began_at_ms * _NS,
            end_time=span.ended_at_ms * _NS,
            instrumentation_scope=InstrumentationScope("raysaga", raysaga.__version__),
        )


def resource() -> Resource:
    """Return who sends, as the environment says; `raysaga` if it does not."""
    from opentelemetry.sdk.resources import Resource

    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Resource.create({} if is_named else {"service.name": "raysaga"})


def otlp_sink(journal_uuid: str) -> TraceSink:
    """Return the way to the collector that the environment names.

    Raises:
        TracingMissingError: If the packages are not installed.
    """
    return TraceSink(_otlp(), journal_uuid)


def provide() -> Callable[[], None]:
    """Have this process send what it marks, to the collector that the environment names.

    Returns what sends the rest, and ends it.

    Raises:
        TracingMissingError: If the packages are not installed.
    """
    exporter = _otlp()
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _otlp() -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise TracingMissingError from error
    return OTLPSpanExporter()


@contextmanager
def caller_of(headers: Mapping[str, str]) -> Iterator[None]:
    """Go on in the trace that a request's `traceparent` names, if it names one."""
    from opentelemetry import context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    token = context.attach(TraceContextTextMapPropagator().extract(headers))
    try:
        yield
    finally:
        context.detach(token)


class CallMarks:
    """Marks each call that comes through a broker, in the trace of its saga.

    A mark is linked to the attempt that the call is, and is no child of it: the attempt may
    be over when the message comes (OpenTelemetry's conventions on messaging).
    """

    def __init__(self, participant: str, system: str) -> None:
        """Make one.

        Args:
            participant: Its name.
            system: What carries the messages, such as `rabbitmq`.
        """
        from opentelemetry import trace

        self._participant = participant
        self._system = system
        self._tracer = trace.get_tracer("raysaga", raysaga.__version__)

    def __call__(self, call: StepCall) -> Callable[[StepReply], None]:
        """Begin the mark of a call; what is returned ends it."""
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        saga = saga_traceparent(call.journal_uuid, call.saga_id)
        mark = self._tracer.start_span(
            f"process {call.operation}",
            context=set_span_in_context(NonRecordingSpan(_context_of(saga))),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": self._system,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": self._participant,
                "saga.id": call.saga_id,
                "saga.step": call.step,
                "saga.attempt": call.attempt,
                "saga.epoch": call.epoch,
            },
            links=[Link(_context_of(traceparent_of(call)), {"saga.link": "attempt"})],
        )

        def answered(reply: StepReply) -> None:
            mark.set_attribute("saga.answer", Outcome(reply.outcome).name.lower())
            if reply.code:
                mark.set_attribute("saga.code", reply.code)
            mark.end()

        return answered


def _context_of(traceparent: str) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = (int(part, 16) for part in traceparent.split("-"))
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))


class SubmissionMarks:
    """Marks each submission twice: in its caller's trace, and in the trace of its saga.

    Each mark is linked to the other, so that people get from a request to its saga and back.
    A repeat under the same key marks the same saga's trace once more.
    """

    def __init__(self, journal_uuid: str) -> None:
        from opentelemetry import trace

        self._uuid = journal_uuid
        self._tracer = trace.get_tracer("raysaga", raysaga.__version__)

    async def around(self, definition: str, key: str, submitting: Awaitable[T]) -> T:
        """Return what `submitting` gives, once it is marked.

        Args:
            definition: Name of the recipe.
            key: The caller's.
            submitting: Ends when the saga is on disk.
        """
        from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, set_span_in_context

        saga_id = f"{definition}:{key}"
        saga = _context_of(saga_traceparent(self._uuid, saga_id))
        facts = {"saga.id": saga_id, "saga.definition": definition}
        with self._tracer.start_as_current_span(
            f"submit {definition}",
            kind=SpanKind.PRODUCER,
            attributes=facts,
            links=[Link(saga, {"saga.link": "saga"})],
        ) as mark:
            found = await submitting
        self._tracer.start_span(
            f"submitted {definition}",
            context=set_span_in_context(NonRecordingSpan(saga)),
            kind=SpanKind.CONSUMER,
            attributes=facts,
            links=[Link(mark.get_span_context(), {"saga.link": "request"})],
        ).end()
        return found
