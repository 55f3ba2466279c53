"""How near to what this machine can do, and where the rest of the time goes.

Three measurements on one scale, the compute side of Williams, Waterman and Patterson, "Roofline: An
Insightful Visual Performance Model", 2009. The peak is the best rate that OpenVINO's own kernels reach on
one large layer; the profile is OpenVINO's own time for every node of a compiled grid; end to end is what
Embedder.encode delivers. An operation is an addition or a multiplication.

The bandwidth side is left out: a batch of 512 tokens reuses each weight 512 times. A single row of 16 does
not, and a low share of the peak there means that the weights are read, not that a kernel is slow.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from ov_minilm.runtime import cpus
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.engine import Engine
from ov_minilm.runtime.grids import INPUTS
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.runtime.packing import Batch, Pool
from ov_minilm.runtime.plan import Kernels
from ov_minilm.spec import Grid, ModelSpec

PROFILED = (Grid(8, 64), Grid(2, 256), Grid(1, 16))  # many short texts, passages, one short text

# [rows, inputs, outputs]: the model's widest layer and larger ones around it. Still larger ones are slower,
# because they leave the cache.
SHAPES = ((512, 1536, 384), (1024, 1536, 384), (1024, 768, 768), (512, 1024, 1024), (512, 3072, 768))

PEAK_SECONDS = 0.25  # for each shape and kernel
PROFILE_SECONDS = 1.5  # for each grid
ENCODE_SECONDS = 3.0  # for each artefact, after one round that warms

# Microseconds missing on average from a node's time: OpenVINO cuts every run to whole ones, then their mean.
ROUNDED_OFF = 1.0

Family = Literal["matmul", "convolution"]
OTHER = "other"
LAYOUT = "transpose, reorder, convert"

# What OpenVINO moves or converts by itself, wherever in the model it does so.
LAYOUT_TYPES = ("Transpose", "Reorder", "Convert")

# Ours -> theirs, matched whole. A node that fuses layers of several kinds counts for the first.
_LAYER = r"__module\.encoder\.layer\.\d+\."
_LINEAR = r"/aten::linear/(MatMul|Add)"
_NORM = r"\.LayerNorm/aten::layer_norm/\w+"
KINDS = {
    "query, key, value": rf"{_LAYER}attention\.self\.(query|key|value){_LINEAR}",
    "attention output": rf"{_LAYER}attention\.output\.dense{_LINEAR}",
    "up": rf"{_LAYER}intermediate\.dense{_LINEAR}",
    "down": rf"{_LAYER}output\.dense{_LINEAR}",
    "outliers": r"outliers_(up|down)_layer\d+",
    "attention": rf"{_LAYER}attention\.self/aten::(view|transpose|scaled_dot_product_attention|reshape)/\w+",
    "GELU": rf"({_LAYER}intermediate\.intermediate_act_fn/aten::gelu/)?Gelu(_\d+)?",
    "LayerNorm, residual": rf"({_LAYER}(attention\.)?output|__module\.embeddings){_NORM}"
    rf"|{_LAYER}(attention\.)?output/aten::add/Add",
    "embedding": r"__module\.embeddings(\.\w+_embeddings/aten::embedding/Gather|/aten::add/Add(_2)?)",
    "quantize": r".+/(nncf_smooth_quant|fq_output_0)",
    "pooling, normalize": r"pooling|normalize",
}

_AUTOMATIC = re.compile(r"[A-Za-z]+_\d+")  # named by OpenVINO, not by the model

# The end of a kernel's name: I8 reads unsigned activations, i8 signed ones.
_KERNEL_PRECISION = {"I8": "int8", "i8": "int8", "f32": "f32", "bf16": "bf16"}


@dataclass(frozen=True, slots=True)
class Peak:
    """The best rate of one kernel over SHAPES, all threads busy."""

    precision: str  # int8, f32, bf16
    kernel: str  # as OpenVINO names it
    shape: list[int]  # [rows, inputs, outputs] of the layer that reached it
    gflops: float


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a compiled graph, as OpenVINO ran it."""

    name: str
    layers: tuple[str, ...]  # the model's layers that are fused in it
    type: str
    kernel: str
    readers: tuple[str, ...]  # names of the steps that read it
    microseconds: float  # 0 where nothing was run, or less than one


@dataclass(frozen=True, slots=True)
class Kind:
    """What all layers of one kind take in one batch."""

    microseconds: float
    share: float  # of the batch
    steps: int
    layers: int  # of those whose operations are counted: linear layers and attentions
    gflops: float | None  # of all streams together; None where no operations are counted
    of_peak: float | None  # time at the peak of the kernels' precision, over the time taken
    kernels: list[str]


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of one grid goes."""

    streams: int  # batches in flight at once, one thread each; 1: all threads work on one batch
    microseconds: float  # of one batch, all steps
    wall_microseconds: float  # from start to finish of a batch on each stream, counters and waiting included
    flop: int  # of one batch: linear layers and attentions
    of_peak: float
    kinds: dict[str, Kind]
    unmapped: list[str]  # what "other" is made of


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """What encode delivers. Seconds are medians of rounds that ran in turn."""

    texts: int
    tokens: int
    fill: float  # tokens over cells of the grids
    seconds: float
    engine_seconds: float  # the same batches, ready made
    host_seconds: float  # tokenizing and packing alone; encode overlaps it with the engine
    engine_share: float  # engine_seconds over seconds: the rest is what the overlap does not hide
    tokens_per_s: float
    gflops: float  # linear layers of real tokens only
    of_peak: float


@dataclass(frozen=True, slots=True)
class Usage:
    """One artefact on this machine."""

    weights: str
    fingerprint: str
    precision: str
    lowering: str
    grids: dict[str, Profile]
    end_to_end: EndToEnd


@dataclass(frozen=True, slots=True)
class Roofline:
    """Peaks of this machine and what the artefacts make of them."""

    threads: int
    flop_per_token: int
    peaks: list[Peak]  # fastest first
    model: Usage
    reference: Usage | None


def roofline(
    model: Path | None, reference: Path | None, texts: Sequence[str], threads: int | None
) -> Roofline:
    """Measure peaks, profiles and end to end; about half a minute with a thousand short texts.

    Args:
        model: the artefact in question; None is the one in the package.
        reference: its FP32 artefact, run in f32; None leaves it out.
        texts: what encode is measured on, and what the profiled batches hold.
        threads: None is what this process is granted.

    Raises:
        ValueError: there are no texts.
        RuntimeError: a linear layer of the model is not among what OpenVINO says it ran.
    """
    if not texts:
        raise ValueError("no texts to measure on; a thousand sentences make stable figures")
    threads = threads or cpus.granted()
    found = peaks(threads)
    with Embedder.open(model, threads=threads) as embedder:
        spec = embedder._spec
        mine = usage(embedder, texts, found)
    theirs = None
    if reference is not None:
        with Embedder.open(reference, threads=threads, precision="f32") as embedder:
            theirs = usage(embedder, texts, found)
    return Roofline(threads, flop_per_token(spec), found, mine, theirs)


def flop_per_token(spec: ModelSpec) -> int:
    """Count the operations of all linear layers for one token: 2 for each weight."""
    attention = 4 * spec.dim * spec.dim  # query, key, value, output
    mlp = 2 * spec.dim * spec.intermediate  # up, down
    return 2 * spec.layers * (attention + mlp)


def peaks(threads: int, *, seconds: float = PEAK_SECONDS) -> list[Peak]:
    """Measure every kernel that OpenVINO has here for a linear layer, fastest first; BF16 where native."""
    core = ov.Core()
    precisions = ["int8", "f32"] + (["bf16"] if Kernels.probe(core).native_bf16 else [])
    found = []
    for precision in precisions:
        for family in ("matmul", "convolution"):
            rates = [_peak(core, precision, family, shape, threads, seconds) for shape in SHAPES]
            found.append(max(rates, key=lambda peak: peak.gflops))
    return sorted(found, key=lambda peak: -peak.gflops)


def best(found: Sequence[Peak]) -> dict[str, float]:
    """Return the highest rate of each precision, in GFLOP/s."""
    return {
        precision: max(peak.gflops for peak in found if peak.precision == precision)
        for precision in {peak.precision for peak in found}
    }


def _peak(
    core: ov.Core,
    precision: str,
    family: Family,
    shape: tuple[int, int, int],
    threads: int,
    seconds: float,
) -> Peak:
    """Time the node of one layer alone, with one layer running on each thread."""
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": True,
    }
    compiled = core.compile_model(_layer(precision, family, shape), "CPU", config)
    requests = [compiled.create_infer_request() for _ in range(threads)]
    for request in requests:
        values = request.get_input_tensor().data
        values[:] = np.random.default_rng(0).random(values.shape, np.float32)  # zeros or denormals mislead
    times, _ = _run(requests, seconds)
    (layer,) = (
        step for step in steps(compiled, times) if step.type.startswith(("FullyConnected", "Convolution"))
    )
    return Peak(precision, layer.kernel, list(shape), 2 * prod(shape) * threads / layer.microseconds / 1e3)


def _layer(precision: str, family: Family, shape: tuple[int, int, int]) -> ov.Model:
    """Build x W' for x [1, rows, inputs], or the 1x1 convolution that is the same sum."""
    rows, inputs, outputs = shape
    wide = family == "convolution"
    x = ops.parameter([1, inputs, 1, rows] if wide else [1, rows, inputs], ov.Type.f32)
    size = (outputs, inputs, 1, 1) if wide else (outputs, inputs)
    generator = np.random.default_rng(0)
    source = x
    if precision == "int8":
        limits = [ops.constant(np.full([1] * len(x.shape), v, np.float32)) for v in (0, 1, 0, 1)]  # u8
        source = ops.fake_quantize(x, *limits, 256)
        weight = ops.convert(ops.constant(generator.integers(-127, 128, size).astype(np.int8)), "f32")
        weight = ops.multiply(
            weight, ops.constant(np.full((outputs, *[1] * (len(size) - 1)), 0.01, np.float32))
        )
    else:
        weight = ops.constant(generator.standard_normal(size).astype(np.float32))
    if wide:
        result = ops.convolution(source, weight, [1, 1], [0, 0], [0, 0], [1, 1])
    else:
        result = ops.matmul(source, weight, False, True)
    return ov.Model([result.output(0)], [x], "peak")


def usage(embedder: Embedder, texts: Sequence[str], found: Sequence[Peak]) -> Usage:
    """Profile the grids and measure end to end, on the peaks found."""
    rates = best(found)
    info = embedder.info
    return Usage(
        weights=info.weights,
        fingerprint=info.fingerprint,
        precision=info.precision,
        lowering=info.lowering,
        grids={str(grid): profile(embedder, grid, texts, rates) for grid in PROFILED},
        end_to_end=end_to_end(embedder, texts, rates["int8" if info.weights == "int8" else info.precision]),
    )


def profile(
    embedder: Embedder,
    grid: Grid,
    texts: Sequence[str],
    rates: Mapping[str, float],
    *,
    seconds: float = PROFILE_SECONDS,
) -> Profile:
    """Compile a grid once more, with OpenVINO's counters on, and run it as the engine would.

    Every stream of the grid has a batch in flight. Times are means over runs, node by node.
    """
    engine = embedder._engine
    model = engine.graph(grid)
    flop = operations(engine, model, grid)
    config = engine.plan.config(grid) | {"PERF_COUNT": True}
    compiled = engine._core.compile_model(model, engine.plan.device, config)
    streams = int(config["NUM_STREAMS"])
    batch = _batch(embedder, grid, texts)
    requests = [compiled.create_infer_request() for _ in range(streams)]
    for request in requests:
        for name, values in zip(INPUTS, (batch.ids, batch.positions, batch.segments), strict=True):
            request.get_tensor(name).data[:] = values
    times, wall = _run(requests, seconds)
    return account(steps(compiled, times), flop, streams, rates, wall)


def operations(engine: Engine, model: ov.Model, grid: Grid) -> dict[str, int]:
    """Count the operations of each layer in a batch of the graph that the engine compiles for a grid.

    Attention counts both of its products, over the whole width of a row.
    """
    flop = {
        _layer_of(node.get_friendly_name()): 2 * grid.rows * grid.width * prod(weight.shape)
        for node, weight in linear_layers(engine._model)
    }
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            flop[node.get_friendly_name()] = 4 * prod(node.output(0).get_shape()) * grid.width
    return flop


def _layer_of(name: str) -> str:
    """Drop which half of a linear layer this is: OpenVINO names the whole after either."""
    return re.sub(r"(?<=/aten::linear)/(MatMul|Add)$", "", name)


def _batch(embedder: Embedder, grid: Grid, texts: Sequence[str]) -> Batch:
    """Fill a grid with the first texts, cut to its width."""
    first, _ = embedder._tokens.encode(list(texts[: grid.rows * grid.slots]))
    pool = Pool([grid], align=embedder._plan.align_of(grid))
    pool.add({i: text[: grid.width] for i, text in enumerate(first)})
    return next(pool.take_all())


def _run(requests: Sequence[ov.InferRequest], seconds: float) -> tuple[dict[str, float], float]:
    """Run all requests at once until the time is over.

    Returns the mean microseconds of every node that ran, by name, and the median of a whole round.
    OpenVINO's time of a node is the mean of all its runs so far (intel_cpu/src/perf_count.h), so it is read
    once, at the end, and the first run, which is slow, should be one of many.
    """
    rounds: list[float] = []
    ends = time.perf_counter() + seconds
    while not rounds or time.perf_counter() < ends:
        started = time.perf_counter()
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()
        rounds.append(1e6 * (time.perf_counter() - started))
    times: dict[str, list[float]] = defaultdict(list)
    for request in requests:
        for node in request.profiling_info:
            if node.status == node.EXECUTED:
                times[node.node_name].append(1e6 * node.real_time.total_seconds() + ROUNDED_OFF)
    return {name: statistics.mean(means) for name, means in times.items()}, statistics.median(rounds)


def steps(compiled: ov.CompiledModel, microseconds: Mapping[str, float]) -> list[Step]:
    """Read the graph that really runs, in its order; every node that took time must be in it."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = {
            key: value if isinstance(value, str) else str(value.value)
            for key, value in node.get_rt_info().items()
        }
        name = node.get_friendly_name()
        found.append(
            Step(
                name=name,
                layers=tuple(filter(None, facts["originalLayersNames"].split(","))),
                type=facts["layerType"],
                kernel=facts["primitiveType"],
                readers=tuple(
                    reader.get_node().get_friendly_name()
                    for output in node.outputs()
                    for reader in output.get_target_inputs()
                ),
                microseconds=microseconds.get(name, 0.0),
            )
        )
    unknown = microseconds.keys() - {step.name for step in found}
    if unknown:
        raise RuntimeError(f"OpenVINO ran nodes that are not in its graph: {', '.join(sorted(unknown))}")
    return found


def kinds(run: Sequence[Step]) -> dict[str, str]:
    """Name the kind of every step, by step name.

    The model's own names decide. A step that has only names made up by OpenVINO belongs to the first that
    reads it and has a kind: a scaled query to attention, a mask to what it masks.
    """
    belongs: dict[str, str] = {}
    for step in reversed(run):
        own = _kind(step.layers)
        if own == OTHER and all(_AUTOMATIC.fullmatch(name) for name in step.layers):
            own = next((belongs[name] for name in step.readers if belongs[name] != OTHER), OTHER)
        belongs[step.name] = own
    return {step.name: LAYOUT if step.type in LAYOUT_TYPES else belongs[step.name] for step in run}


def _kind(layers: Sequence[str]) -> str:
    return next(
        (kind for kind, theirs in KINDS.items() if any(re.fullmatch(theirs, name) for name in layers)), OTHER
    )


def account(
    run: Sequence[Step], flop: Mapping[str, int], streams: int, rates: Mapping[str, float], wall: float
) -> Profile:
    """Sum a run by kinds.

    Args:
        run: the steps in their order, with the time of each.
        flop: operations in a batch, by layer; each layer counts for the first step that names it.
        streams: batches in flight at once.
        rates: the peak of each precision in GFLOP/s, all threads busy.
        wall: microseconds of a batch from start to finish.

    Raises:
        RuntimeError: a layer with operations is in no step.
    """
    named = kinds(run)
    groups: dict[str, list[Step]] = defaultdict(list)
    done: dict[str, list[int]] = defaultdict(list)  # operations of the layers of a kind
    ideal: dict[str, float] = defaultdict(float)  # microseconds at the peak
    left = dict(flop)
    for step in run:
        kind = named[step.name]
        if step.microseconds:
            groups[kind].append(step)
        for layer in map(_layer_of, step.layers):
            if layer in left:
                work = left.pop(layer)
                done[kind].append(work)
                precision = _KERNEL_PRECISION[step.kernel.rsplit("_", 1)[1]]
                ideal[kind] += work * streams / rates[precision] / 1e3
    if left:
        raise RuntimeError(f"no step holds {', '.join(sorted(left))}")
    total = sum(step.microseconds for step in run)
    found = {}
    for kind in (*KINDS, LAYOUT, OTHER):
        if kind in groups:
            taken = sum(step.microseconds for step in groups[kind])
            found[kind] = Kind(
                microseconds=taken,
                share=taken / total,
                steps=len(groups[kind]),
                layers=len(done[kind]),
                gflops=sum(done[kind]) * streams / taken / 1e3 if kind in ideal else None,
                of_peak=ideal[kind] / taken if kind in ideal else None,
                kernels=sorted({step.kernel for step in groups[kind]}),
            )
    return Profile(
        streams=streams,
        microseconds=total,
        wall_microseconds=wall,
        flop=sum(flop.values()),
        of_peak=sum(ideal.values()) / total,
        kinds=found,
        unmapped=[step.name for step in groups[OTHER]],
    )


def end_to_end(
    embedder: Embedder, texts: Sequence[str], rate: float, *, seconds: float = ENCODE_SECONDS
) -> EndToEnd:
    """Time encode, the engine alone and the host's work alone, in turn, and set encode against a peak."""
    items = list(texts)

    def prepare() -> list[Batch]:
        ids, _ = embedder._tokens.encode(items)
        return embedder._plan.pack(ids)

    batches = prepare()

    def engine() -> None:
        for _ in embedder._engine.stream(batches):
            pass

    calls: tuple[Callable[[], object], ...] = (
        lambda: embedder.encode(items, progress=False),
        engine,
        prepare,
    )
    calls[0]()  # compiles the grids
    rounds: list[list[float]] = []
    ends = time.perf_counter() + seconds
    while not rounds or time.perf_counter() < ends:
        rounds.append([_seconds(call) for call in calls])
    whole, alone, host = (statistics.median(times) for times in zip(*rounds, strict=True))
    tokens = sum(batch.used for batch in batches)
    gflops = tokens * flop_per_token(embedder._spec) / whole / 1e9
    return EndToEnd(
        texts=len(items),
        tokens=tokens,
        fill=tokens / sum(batch.grid.rows * batch.grid.width for batch in batches),
        seconds=whole,
        engine_seconds=alone,
        host_seconds=host,
        engine_share=alone / whole,
        tokens_per_s=tokens / whole,
        gflops=gflops,
        of_peak=gflops / rate,
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
