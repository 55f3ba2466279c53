"""Traces as a collector gets them."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from support.serving import running

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

PARENT = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector's address, and the bodies it was sent."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name http.server wants
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collect) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_a_request_is_a_span_with_its_phases(collector: tuple[str, list[bytes]]) -> None:
    """A span for the request, under the client's own, and in it one each to tokenize, wait and infer."""
    endpoint, bodies = collector
    with running("--otlp-endpoint", endpoint) as server:
        headers = {"content-type": "application/json", "traceparent": f"00-{PARENT}-b7ad6b7169203331-01"}
        request = urllib.request.Request(  # noqa: S310  # our own server
            f"{server.url}/v1/embeddings", json.dumps({"input": ["a", "b"]}).encode(), headers
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            assert 200 == answer.status
        assert 0 == server.stop()

    (body,) = bodies
    message = trace_service.ExportTraceServiceRequest.FromString(body)
    spans = {span.name: span for span in message.resource_spans[0].scope_spans[0].spans}
    whole = spans["POST /v1/embeddings"]
    facts = {one.key: one.value.int_value for one in whole.attributes}
    assert {"tokenize", "queue", "inference", "POST /v1/embeddings"} == spans.keys()
    assert PARENT == whole.trace_id.hex()
    assert (200, 2, 6) == (
        facts["http.response.status_code"],
        facts["embeddings.texts"],
        facts["embeddings.tokens"],
    )
    for name in ("tokenize", "queue", "inference"):
        assert whole.span_id == spans[name].parent_span_id
        assert (
            whole.start_time_unix_nano
            <= spans[name].start_time_unix_nano
            <= spans[name].end_time_unix_nano
            <= whole.end_time_unix_nano
        )
