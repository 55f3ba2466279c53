"""The metrics of /metrics, named as in text-embeddings-inference, so that its dashboards work.

Names of counters end in _total, as Prometheus' client writes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.serve.access import Outcome
from ov_minilm.serve.limits import Admission
from ov_minilm.serve.workers import METRICS_FOLDER

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TOKENS = tuple(2**power for power in range(2, 18, 2))
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)

REASONS = {  # label of a failed request, by its status in OpenAI's API
    400: "validation",
    401: "authentication",
    404: "not_found",
    405: "method",
    408: "timeout",
    413: "payload_limit",
    415: "media_type",
    429: "overloaded",
    499: "dropped",  # the client disconnected before the response
    500: "inference",
    501: "not_implemented",
    503: "unavailable",
}


class Metrics:
    """The metrics of one server, in its own registry, so that two servers in a process do not mix.

    With several workers (see `workers.summing_metrics`) `render` gives the sums over all workers.
    """

    def __init__(self, admission: Admission, embedder: Embedder) -> None:
        self.texts = self.tokens = 0  # texts embedded since the start
        self._admission = admission
        self._embedder = embedder
        registry = self._registry = CollectorRegistry()
        self._folder = os.environ.get(METRICS_FOLDER)
        if self._folder is None:
            ProcessCollector(registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=registry, multiprocess_mode="livesum")

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self._gauges = {
            "requests": gauge("te_queue_size", "Requests accepted and not answered"),
            "tokens": gauge("te_queue_tokens", "Tokens accepted and not embedded"),
            "running": gauge("te_batch_running", "Texts in batches that run or wait to run"),
            "cache_bytes": gauge("te_cache_bytes", "Bytes of the vectors in the cache (--cache-mb)"),
        }
        self._stats = {
            "cached": counter("te_cache_hits", "Texts whose vectors came from the cache"),
            "batches": counter("te_batch_count", "Batches that ran"),
            "texts": counter("te_batch_texts", "Texts in the batches that ran"),
            "tokens": counter("te_batch_tokens", "Tokens in the batches that ran"),
            "cells": counter(
                "te_batch_cells", "Tokens that fit into these batches; tokens / cells is how full they are"
            ),
        }
        self._counted = dict.fromkeys(self._stats, 0)  # values that the counters already include
        requests = counter("te_request_count", "Requests for embeddings or tokens, by URL", "method")
        successes = counter("te_request_success", "Requests answered with 200, by URL", "method")
        self._requests, self._successes = cache(requests.labels), cache(successes.labels)  # by URL
        self._failure = counter("te_request_failure", "Requests refused, failed or dropped, by reason", "err")
        self._duration = histogram("te_request_duration", "Seconds from a request to its response")
        self._tokens = histogram("te_request_input_length", "Tokens embedded for a request", TOKENS)
        self._texts = histogram("te_request_texts", "Texts of a request", TEXTS)
        self._truncated = counter("te_truncated", "Texts cut at their end")
        self._phases = {
            "tokenize": histogram("te_embed_tokenization_duration", "Seconds to read and tokenize a request"),
            "queue": histogram("te_embed_queue_duration", "Seconds until a request's first text runs"),
            "inference": histogram(
                "te_embed_inference_duration",
                "Seconds from a request's first running text to its last vector",
            ),
        }

    def count(self, path: str, status: int, seconds: float, refused: int = 0) -> None:
        """Count a request and its result; `refused` is the status of the error, in OpenAI's API, or 0."""
        self._requests(path).inc()
        if status < 400:
            self._successes(path).inc()
        else:
            self._failure.labels(REASONS.get(refused or status, "other")).inc()
        self._duration.observe(seconds)

    def embedded(self, outcome: Outcome) -> None:
        """Count the texts, tokens and phases of a request."""
        self.texts += outcome.texts
        self.tokens += outcome.tokens
        self._texts.observe(outcome.texts)
        self._tokens.observe(outcome.tokens)
        self._truncated.inc(outcome.truncated)
        for name, (begun, ended) in outcome.phases.items():
            self._phases[name].observe(ended - begun)

    def update(self) -> None:
        """Update the metrics with the counts of the queue and the embedder."""
        stats = self._embedder.stats
        self._gauges["requests"].set(self._admission.requests)
        self._gauges["tokens"].set(self._admission.tokens)
        self._gauges["running"].set(stats.running)
        self._gauges["cache_bytes"].set(stats.cache_bytes)
        for name, count in self._stats.items():
            found: int = getattr(stats, name)
            count.inc(found - self._counted[name])
            self._counted[name] = found

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self.update()
        if self._folder is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]
        registry.register(_Processes(Path(self._folder)))
        return generate_latest(registry)


class _Processes(Collector):
    """Memory, CPU time and open files of each worker, labelled by process id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of ProcessCollector for each worker."""
        families: dict[str, Metric] = {}
        for path in sorted(self._folder.glob("gauge_livesum_*.db")):
            pid = path.stem.rpartition("_")[2]
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {"pid": pid}, sample.value)
        yield from families.values()
