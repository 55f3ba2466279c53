"""What Prometheus scrapes, under the names of text-embeddings-inference, so that its dashboards fit.

Counters end in _total, as Prometheus' own client writes them.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.serve.access import Outcome
from ov_minilm.serve.limits import Admission

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOKENS = tuple(2**power for power in range(2, 18, 2))
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)

REASONS = {  # of a refusal, by the status that OpenAI's API has for it
    400: "validation",
    401: "authentication",
    404: "not_found",
    405: "method",
    408: "timeout",
    413: "payload_limit",
    415: "media_type",
    429: "overloaded",
    499: "dropped",  # the client left before the answer
    500: "inference",
    501: "not_implemented",
    503: "unavailable",
}


class Metrics:
    """One server's figures, in a registry of their own: two servers in a process do not mix."""

    def __init__(self, admission: Admission, embedder: Embedder) -> None:
        self.texts = self.tokens = 0  # embedded since the start
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_Queue(admission, embedder))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self._count = counter("te_request_count", "Requests for embeddings or tokens, by URL", "method")
        self._success = counter("te_request_success", "Of these, answered with 200", "method")
        self._failure = counter("te_request_failure", "Requests refused, failed or dropped, by reason", "err")
        self._duration = histogram("te_request_duration", "Seconds from a request to its answer")
        self._tokens = histogram("te_request_input_length", "Tokens embedded for a request", TOKENS)
        self._texts = histogram("te_request_texts", "Texts of a request", TEXTS)
        self._truncated = counter("te_truncated", "Texts cut at their end")
        self._phases = {
            "tokenize": histogram("te_embed_tokenization_duration", "Seconds to read and tokenize a request"),
            "queue": histogram("te_embed_queue_duration", "Seconds until a request's first text runs"),
            "inference": histogram("te_embed_inference_duration", "Seconds from then to its last vector"),
        }

    def count(self, path: str, status: int, seconds: float, refused: int = 0) -> None:
        """Count a request and how it ended; `refused` is the status that OpenAI's API has for its error."""
        self._count.labels(path).inc()
        if status < 400:
            self._success.labels(path).inc()
        else:
            self._failure.labels(REASONS.get(refused or status, "other")).inc()
        self._duration.observe(seconds)

    def embedded(self, outcome: Outcome) -> None:
        """Count what a request was made of, and what it waited for."""
        self.texts += outcome.texts
        self.tokens += outcome.tokens
        self._texts.observe(outcome.texts)
        self._tokens.observe(outcome.tokens)
        self._truncated.inc(outcome.truncated)
        for name, (begun, ended) in outcome.phases.items():
            self._phases[name].observe(ended - begun)

    def render(self) -> bytes:
        """Return the text format."""
        return generate_latest(self._registry)


class _Queue(Collector):
    """What waits and what ran, read when it is asked for."""

    def __init__(self, admission: Admission, embedder: Embedder) -> None:
        self._admission = admission
        self._embedder = embedder

    def collect(self) -> Iterator[Metric]:
        """Yield figures of the server's queue and of the embedder's batches."""
        stats = self._embedder.stats
        for name, text, value in (
            ("te_queue_size", "Requests accepted and not answered", self._admission.requests),
            ("te_queue_tokens", "Tokens accepted and not embedded", self._admission.tokens),
            ("te_batch_running", "Texts packed or in flight", stats.running),
            ("te_cache_bytes", "Memory of the vectors that are kept (--cache-mb)", stats.cache_bytes),
        ):
            yield GaugeMetricFamily(name, text, value)
        for name, text, value in (
            ("te_cache_hits", "Texts whose vectors were kept, and not computed again", stats.cached),
            ("te_batch_count", "Batches that ran", stats.batches),
            ("te_batch_texts", "Texts in them", stats.texts),
            ("te_batch_tokens", "Tokens in them", stats.tokens),
            ("te_batch_cells", "Room in them: tokens / cells is how full they were", stats.cells),
        ):
            yield CounterMetricFamily(name, text, value)
