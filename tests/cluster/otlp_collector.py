"""Takes the spans that the tests of this folder, and of pages, have sent by OTLP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """What takes spans by OTLP, and keeps them.

    Attributes:
        spans: As they came.
    """

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self._came = threading.Condition()
        collector = self

        class Taking(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest()
                sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                with collector._came:
                    for of_resource in sent.resource_spans:
                        for of_scope in of_resource.scope_spans:
                            collector.spans.extend(of_scope.spans)
                    collector._came.notify_all()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Taking)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for(self, name: str, count: int) -> None:
        """Return once there are so many spans of this name."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.named(name)) >= count, 60)

    def named(self, name: str) -> list[Span]:
        """Return the spans of this name."""
        return [span for span in self.spans if span.name == name]
