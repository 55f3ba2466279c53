"""How near to what this machine's INT8 arithmetic allows, and where the rest of the time goes.

The limit is a plain INT8 matrix multiplication of the model's own shapes by the same library, measured in
turn with `encode`: the time that it would take for a text's tokens over the time that the text takes. The
parts are OpenVINO's own times of the nodes of a batch.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ov_minilm.artefact.manifest import GRAPH, SHIPPED
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import OURS, Row
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.embedder import Embedder, Info
from ov_minilm.runtime.lowering import lower

ROWS = 512  # tokens of one multiplication, as many as a batch has
ROUNDS = 7
PROFILE_S = 1.0
ROUNDED_OFF_US = 1.0  # OpenVINO cuts every node's time to whole microseconds before it takes the mean

GRID = (2, 256)  # rows and width of the batch that is profiled: chunks
LAYER = r"FullyConnected|Convolution"  # OpenVINO's types of a linear layer
PARTS = {  # part -> names of nodes, the first that fits
    "attention": r"scaled_dot_product_attention",
    "query, key, value, output": r"attention\.(self\.(query|key|value)|output\.dense)",
    "feed-forward": r"layer\.\d+\.(intermediate|output)\.dense",
    "LayerNorm, residual, quantize": r"LayerNorm|aten::add|fq_output",
}
OTHER = "lookup, layout, pooling"


def limit(race: Race[Process]) -> Iterator[Row]:
    """Measure the limit, the share of it that sentences and chunks reach, and the parts of a batch."""
    with Embedder.open(threads=race.threads) as embedder:
        info, spec = embedder.info, embedder.spec
        layers = [(spec.dim, spec.dim)] * 4 + [(spec.dim, spec.intermediate), (spec.intermediate, spec.dim)]
        gemms = {shape: Gemm(*shape, race.threads) for shape in set(layers)}
        for workload in ("sentences", "chunks"):
            texts = race.texts.make(workload)
            tokens = sum(min(count, spec.max_tokens) for count in embedder.count_tokens(texts))
            embedder.encode(texts, progress=False)
            shares, rates = [], []
            for _ in range(ROUNDS):
                at_limit = spec.layers * sum(gemms[shape].seconds_per_token() for shape in layers)
                started = time.perf_counter()
                embedder.encode(texts, progress=False)
                shares.append(100 * at_limit * tokens / (time.perf_counter() - started))
                operations = spec.layers * sum(2 * inputs * outputs for inputs, outputs in layers)
                rates.append(operations / at_limit / 1e9)
            yield race.row(f"limit, {workload}", OURS, "share", shares)
        yield race.row("limit, plain INT8 multiplication", OURS, "gflops", rates)
    for part, share in parts(SHIPPED, info).items():
        yield race.row(f"parts of a batch, {part}", OURS, "share", [share])


class Gemm:
    """One INT8 layer [ROWS, inputs] -> [ROWS, outputs], running on every thread at once."""

    def __init__(self, inputs: int, outputs: int, threads: int) -> None:
        x = ops.parameter([1, ROWS, inputs], ov.Type.f32)
        limits = [ops.constant(np.full([1, 1, 1], value, np.float32)) for value in (0, 1, 0, 1)]
        rng = np.random.default_rng(0)
        weight = ops.constant(rng.integers(-127, 128, (outputs, inputs)).astype(np.int8))
        scale = ops.constant(np.full((outputs, 1), 0.01, np.float32))
        weight = ops.multiply(ops.convert(weight, "f32"), scale)
        result = ops.matmul(ops.fake_quantize(x, *limits, 256), weight, False, True)
        model = ov.Model([result.output(0)], [x], "gemm")
        self._requests = _requests(model, threads, "f32")
        for request in self._requests:  # zeros or denormals would mislead
            values = request.get_input_tensor().data
            values[:] = rng.random(values.shape, np.float32)

    def seconds_per_token(self, seconds: float = 0.1) -> float:
        """Time the multiplication alone, without what quantizes its input here."""
        times = _run(self._requests, seconds)
        layer = sum(times[node] for node in times if re.match(LAYER, node))
        return layer / (ROWS * len(self._requests)) / 1e6


def parts(folder: Path, info: Info) -> dict[str, float]:
    """Return the share in % that each kind of node has in a batch of the artefact."""
    model = ov.Core().read_model(folder / GRAPH)
    model.reshape({node.get_any_name(): list(GRID) for node in model.inputs})
    if info.lowering == "conv":
        lower(model)
    requests = _requests(model, info.threads, info.long_precision)
    rng = np.random.default_rng(0)
    ids, positions, segments = (node.get_any_name() for node in model.inputs)
    for request in requests:
        request.get_tensor(ids).data[:] = rng.integers(1000, 20000, GRID)
        request.get_tensor(positions).data[:] = np.arange(GRID[1])
        request.get_tensor(segments).data[:] = 1
    times = _run(requests, PROFILE_S)
    total = sum(times.values())
    found: dict[str, float] = defaultdict(float)
    for node, microseconds in times.items():
        part = next((part for part, name in PARTS.items() if re.search(name, node)), OTHER)
        found[part] += 100 * microseconds / total
    return found


def _requests(model: ov.Model, threads: int, precision: str) -> list[ov.InferRequest]:
    """Compile with a stream for each thread and OpenVINO's counters on."""
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": True,
    }
    compiled = ov.Core().compile_model(model, "CPU", config)
    return [compiled.create_infer_request() for _ in range(threads)]


def _run(requests: Sequence[ov.InferRequest], seconds: float) -> dict[str, float]:
    """Run all requests at once until the time is over; return mean microseconds by "type name" of node.

    OpenVINO's time of a node is the mean of all its runs so far.
    """
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()
    found: dict[str, list[float]] = defaultdict(list)
    for request in requests:
        for node in request.profiling_info:
            if node.status == node.EXECUTED:
                microseconds = 1e6 * node.real_time.total_seconds() + ROUNDED_OFF_US
                found[f"{node.node_type} {node.node_name}"].append(microseconds)
    return {name: statistics.mean(values) for name, values in found.items()}
