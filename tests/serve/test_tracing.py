"""Traces as a collector gets them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.serving import request_bytes, running

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

PARENT = "0af7651916cd43dd8448eb211c80319c"


def test_a_request_is_a_span_with_its_phases() -> None:
    """A span for the request, under the client's own, and in it one each to tokenize, wait and infer."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name http.server wants
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collect) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with running("--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}") as server:
            trace = f"traceparent: 00-{PARENT}-b7ad6b7169203331-01"
            server.talk(request_bytes(b'{"input": ["a", "b"]}', trace, "connection: close"))
            assert 0 == server.stop()
        collector.shutdown()

    (body,) = bodies
    message = trace_service.ExportTraceServiceRequest.FromString(body)
    spans = {span.name: span for span in message.resource_spans[0].scope_spans[0].spans}
    whole = spans.pop("POST /v1/embeddings")
    facts = {one.key: one.value.int_value for one in whole.attributes}
    assert {"tokenize", "queue", "inference"} == spans.keys()
    assert PARENT == whole.trace_id.hex()
    names = ("http.response.status_code", "embeddings.texts", "embeddings.tokens")
    assert (200, 2, 6) == tuple(facts[name] for name in names)
    for span in spans.values():
        assert whole.span_id == span.parent_span_id
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano
