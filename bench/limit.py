"""Measures the percentage of this machine's INT8 limit that `encode` reaches, and where the other time goes.

The limit is the speed of the model's linear layers as plain INT8 multiplications in OpenVINO, measured
alternately with `encode`. The percentage is the time of these layers, for as many tokens, divided by the
time of `encode`. The parts are the times that OpenVINO reports for the nodes of a batch.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ov_minilm.artefact.manifest import GRAPH, SHIPPED
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import OURS, Row
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.embedder import Embedder, Info
from ov_minilm.runtime.lowering import lower

ROWS = 512  # rows of a multiplication, one for each token of a batch
ONE_TEXT = (8, 16, 32, 64, 128, 256)  # lengths of single texts, in tokens
ROUNDS = 5
REPEAT_S = 0.15  # duration of a round of repeated calls
PROFILE_S = 1.0
ROUNDED_OFF_US = 1.0  # OpenVINO truncates the times of nodes to microseconds before it computes the mean
GRID = (2, 256)  # rows and width of the profiled batch; most batches of chunks have this size
PARTS = {  # part -> patterns of node names; the first match counts
    "attention": r"scaled_dot_product_attention",
    "query, key, value, output": r"attention\.(self\.(query|key|value)|output\.dense)",
    "feed-forward": r"layer\.\d+\.(intermediate|output)\.dense",
    "LayerNorm, residual, quantize": r"LayerNorm|aten::add|fq_output",
}
OTHER = "lookup, layout, pooling"
MULTIPLICATIONS_ONLY = "plain INT8 multiplications"


def limit(race: Race[Process]) -> Iterator[Row]:
    """Measure the INT8 limit, the percentage that lists and single texts reach, and the parts of a batch."""
    with Embedder.open(threads=race.threads) as embedder:
        info, spec = embedder.info, embedder.spec
        layers = [(spec.dim, spec.dim)] * 4 + [(spec.dim, spec.intermediate), (spec.intermediate, spec.dim)]
        operations = spec.layers * sum(2 * inputs * outputs for inputs, outputs in layers)  # per token
        plain = Multiplications(layers * spec.layers, ROWS, streams=race.threads, threads=race.threads)
        rates = []
        for workload in ("sentences", "chunks"):
            texts = race.texts.make(workload)
            tokens = sum(min(count, spec.max_tokens) for count in embedder.count_tokens(texts))
            embedder.encode(texts, progress=False)
            percentages = []
            for _ in range(ROUNDS):
                limit_seconds = plain.seconds() / (ROWS * race.threads)  # per token
                rates.append(operations / limit_seconds / 1e9)
                started = time.perf_counter()
                embedder.encode(texts, progress=False)
                percentages.append(100 * limit_seconds * tokens / (time.perf_counter() - started))
            yield race.row(f"limit, {workload}", OURS, "share", percentages)
        yield race.row("limit, list", MULTIPLICATIONS_ONLY, "gflops", rates)
        for tokens in ONE_TEXT:
            plain = Multiplications(layers * spec.layers, tokens, streams=1, threads=race.threads)
            text = race.texts.text(tokens)
            our_rates, rates = [], []
            embedder.encode(text)
            for _ in range(ROUNDS):
                rates.append(operations * tokens / plain.seconds() / 1e9)
                seconds = _median_seconds(partial(embedder.encode, text), REPEAT_S)
                our_rates.append(operations * tokens / seconds / 1e9)
            yield race.row(f"limit, one text of {tokens} tokens", MULTIPLICATIONS_ONLY, "gflops", rates)
            yield race.row(f"limit, one text of {tokens} tokens", OURS, "gflops", our_rates)
    for part, share in parts(SHIPPED, info).items():
        yield race.row(f"parts of a batch, {part}", OURS, "share", [share])


class Multiplications:
    """The linear layers of the model without anything between them, in INT8, on [1, tokens, D]."""

    def __init__(self, layers: Sequence[tuple[int, int]], tokens: int, *, streams: int, threads: int) -> None:
        x = ops.parameter([1, tokens, layers[0][0]], ov.Type.f32)
        rng, result = np.random.default_rng(0), x
        for inputs, outputs in layers:
            width = np.full([1, 1, 1], np.sqrt(inputs), np.float32)
            weight = ops.constant(rng.integers(-127, 128, (outputs, inputs)).astype(np.int8))
            weight = ops.multiply(ops.convert(weight, "f32"), ops.constant(np.full((outputs, 1), 0.01, "f4")))
            limits = [ops.constant(value) for value in (-width, width, -width, width)]
            result = ops.matmul(ops.fake_quantize(result, *limits, 256), weight, False, True)
        model = ov.Model([result.output(0)], [x], "multiplications")
        self._requests = _requests(model, threads, "f32", streams)
        for request in self._requests:  # zeros or denormals would give wrong times
            values = request.get_input_tensor().data
            values[:] = rng.standard_normal(values.shape, np.float32)

    def seconds(self) -> float:
        """Return the time of one run while all streams run."""
        return _median_seconds(partial(_run_all, self._requests), REPEAT_S)


def parts(folder: Path, info: Info) -> dict[str, float]:
    """Return the share in % that each kind of node has in a batch of the artefact."""
    model = ov.Core().read_model(folder / GRAPH)
    model.reshape({node.get_any_name(): list(GRID) for node in model.inputs})
    if info.lowering == "conv":
        lower(model)
    requests = _requests(model, info.threads, info.long_precision, info.threads, profile=True)
    rng = np.random.default_rng(0)
    ids, positions, segments = (node.get_any_name() for node in model.inputs)
    for request in requests:
        request.get_tensor(ids).data[:] = rng.integers(1000, 20000, GRID)
        request.get_tensor(positions).data[:] = np.arange(GRID[1])
        request.get_tensor(segments).data[:] = 1
    times = _profile(requests, PROFILE_S)
    total = sum(times.values())
    percentages: dict[str, float] = defaultdict(float)
    for node, microseconds in times.items():
        part = next((part for part, name in PARTS.items() if re.search(name, node)), OTHER)
        percentages[part] += 100 * microseconds / total
    return percentages


def _requests(
    model: ov.Model, threads: int, precision: str, streams: int, *, profile: bool = False
) -> list[ov.InferRequest]:
    """Compile with a number of streams; return a request for each stream. Profiling makes requests slower."""
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    config |= {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False, "PERF_COUNT": profile}
    compiled = ov.Core().compile_model(model, "CPU", config)
    return [compiled.create_infer_request() for _ in range(streams)]


def _run_all(requests: Sequence[ov.InferRequest]) -> None:
    for request in requests:
        request.start_async()
    for request in requests:
        request.wait()


def _median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Repeat a call for this many seconds; return its median time."""
    ends = time.perf_counter() + seconds
    found: list[float] = []
    while not found or time.perf_counter() < ends:
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def _profile(requests: Sequence[ov.InferRequest], seconds: float) -> dict[str, float]:
    """Run all requests at once for this many seconds; return mean microseconds by name of node.

    OpenVINO reports the mean time of a node over all runs so far.
    """
    _median_seconds(lambda: _run_all(requests), seconds)
    found: dict[str, list[float]] = defaultdict(list)
    for request in requests:
        for node in request.profiling_info:
            if node.status == node.EXECUTED:
                found[node.node_name].append(1e6 * node.real_time.total_seconds() + ROUNDED_OFF_US)
    return {name: statistics.mean(values) for name, values in found.items()}
