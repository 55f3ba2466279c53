"""OpenTelemetry: a span for each request, with spans of its phases inside; needs ov-minilm[tracing].

Spans are made after the request, from times that are measured anyway, so a server without tracing does no
extra work.
"""

from __future__ import annotations

import time

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.types import Scope

from ov_minilm.serve.access import Outcome


class Tracing:
    """Sends spans to a collector, in a background thread."""

    def __init__(self, endpoint: str) -> None:
        """Take the base URL of OTLP over HTTP, as in http://127.0.0.1:4318."""
        self._provider = TracerProvider(resource=Resource.create({"service.name": "ov_minilm"}))
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ov_minilm")

    def write(self, scope: Scope, started: float, status: int, request_id: str, outcome: Outcome) -> None:
        """Record a request that began at `started`, in seconds of time.perf_counter(), and ends now."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        # difference between the clock of spans and perf_counter
        epoch = time.time_ns() - time.perf_counter_ns()

        def at(seconds: float) -> int:
            return epoch + int(1e9 * seconds)

        span = self._tracer.start_span(
            f"{scope['method']} {scope['path']}",
            context=propagate.extract(headers),
            kind=trace.SpanKind.SERVER,
            start_time=at(started),
            attributes={
                "http.request.method": scope["method"],
                "url.path": scope["path"],
                "http.response.status_code": status,
                "request.id": request_id,
                "embeddings.texts": outcome.texts,
                "embeddings.tokens": outcome.tokens,
                "embeddings.truncated": outcome.truncated,
            },
        )
        for name, (begun, ended) in outcome.phases.items():
            inner = self._tracer.start_span(name, trace.set_span_in_context(span), start_time=at(begun))
            inner.end(at(ended))
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()
