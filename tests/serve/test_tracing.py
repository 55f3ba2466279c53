"""Traces that an OpenTelemetry collector receives."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.serving import request_bytes, running

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

PARENT = "0af7651916cd43dd8448eb211c80319c"


def test_spans_of_a_request() -> None:
    """A request has a span in the client's trace, with child spans to tokenize, wait and infer."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # http.server requires this name
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        with running("--otlp-endpoint", f"http://127.0.0.1:{collector.server_port}") as server:
            trace = f"traceparent: 00-{PARENT}-b7ad6b7169203331-01"
            server.talk(request_bytes(b'{"input": ["a", "b"]}', trace, "connection: close"))
            assert 0 == server.stop()
        collector.shutdown()

    (body,) = bodies
    message = trace_service.ExportTraceServiceRequest.FromString(body)
    spans = {span.name: span for span in message.resource_spans[0].scope_spans[0].spans}
    root_span = spans.pop("POST /v1/embeddings")
    attributes = {attribute.key: attribute.value.int_value for attribute in root_span.attributes}
    counts = {"http.response.status_code": 200, "embeddings.texts": 2, "embeddings.tokens": 6}
    assert attributes == attributes | counts
    assert PARENT == root_span.trace_id.hex()
    assert {"tokenize", "queue", "inference"} == spans.keys()
    for span in spans.values():
        assert root_span.span_id == span.parent_span_id
        times = (root_span.start_time_unix_nano, span.start_time_unix_nano, span.end_time_unix_nano)
        assert sorted(times) == [*times]
        assert span.end_time_unix_nano <= root_span.end_time_unix_nano
