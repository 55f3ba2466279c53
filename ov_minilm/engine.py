"""Batches in, vectors out: one compiled model for each grid, made when the grid is first used.

With weights.py and lowering.py this is all that knows OpenVINO at run time.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ov_minilm import __version__
from ov_minilm.backend import ops, ov
from ov_minilm.cache import Cache
from ov_minilm.drift import Gate, gate
from ov_minilm.errors import (
    DeviceUnavailable,
    ForkedProcess,
    OvMiniLMError,
    PrecisionUnavailable,
    SelfCheckFailed,
)
from ov_minilm.golden import LEAST_COSINE, Golden
from ov_minilm.lowering import lower
from ov_minilm.manifest import GRAPH, WEIGHTS, Manifest
from ov_minilm.packing import Batch
from ov_minilm.spec import LONG, FloatArray, Grid
from ov_minilm.weights import Weights, read

Precision = Literal["f32", "bf16", "f16"]
Lowering = Literal["native", "conv"]

INPUTS = ("input_ids", "position_ids", "segment_ids")
VIRTUAL = ("AUTO", "MULTI", "HETERO", "BATCH")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the artefact runs here, every choice made."""

    device: str
    precision: Precision  # of the layers that are not INT8
    long: Precision  # the same, of rows that hold one text of more than LONG tokens
    lowering: Lowering
    threads: int
    kernel: str  # of INT8 linear layers, as OpenVINO names it; "" where it was not asked
    align: int  # where texts may start in a row for their bits to be the same everywhere; see packing.py

    @property
    def apart(self) -> bool:
        """Whether long texts must not share rows with others, for these run in another precision."""
        return self.long != self.precision

    def precision_of(self, grid: Grid) -> Precision:
        """Return what a grid runs in."""
        return self.long if grid.width > LONG else self.precision


class Engine:
    """Runs batches of one artefact on one device."""

    def __init__(
        self,
        core: ov.Core,
        model: ov.Model,
        weights: Weights,
        plan: Plan,
        golden: Golden,
        cache: Cache | None,
    ) -> None:
        self.plan = plan
        self._core = core
        self._model = model
        self._weights = weights
        self._golden = golden
        self._cache = cache
        self._pools: dict[Grid, _Pool] = {}
        self._compiling = threading.Lock()
        _live.add(self)

    @classmethod
    def open(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        device: str,
        precision: Literal["auto", "f32", "bf16", "f16"],
        lowering: Literal["auto", "native", "conv"],
        threads: int,
        cache_dir: Path | None,
    ) -> Engine:
        """Read the graph and settle the plan.

        On the CPU the plan comes from layers that were compiled. Other devices compile the smallest grid;
        the CPU leaves that to the first text that needs it, for its 35 MB.
        """
        global _started
        if _started not in (None, os.getpid()):  # even if all is closed: OpenVINO's thread pools stay
            raise ForkedProcess(_started, os.getpid())
        _started = os.getpid()
        core = ov.Core()
        cpu = device == "CPU"
        if not cpu:  # to say what there is, OpenVINO loads every plugin that it has
            check_device(device, core.available_devices)
        kernels = Kernels.probe(core) if cpu else None
        settled = choose_lowering(lowering, manifest, device, kernels)
        chosen = choose_precision(precision, manifest, device, settled, kernels)
        long = choose_long(precision, chosen, manifest, settled, kernels)
        align = kernels.bf16_group if kernels and chosen == "bf16" else 1
        plan = Plan(device, chosen, long, settled, threads, kernels.int8 if kernels else "", align)
        model, weights = read(core, folder / GRAPH, folder / WEIGHTS)
        cache = None
        if cache_dir is not None:
            facts = {
                "fingerprint": manifest.fingerprint,
                "ov-minilm": __version__,
                "openvino": ov.get_version(),
            }
            facts |= {"hardware": hardware(core, device), "plan": asdict(plan)}
            cache = Cache(cache_dir / manifest.fingerprint, facts)
        engine = cls(core, model, weights, plan, manifest.golden, cache)
        if not cpu:
            engine._pool(min(manifest.grids, key=lambda grid: grid.rows * grid.width))
        return engine

    def run(self, batch: Batch) -> FloatArray:  # -> [R, S, D]
        """Return unit vectors for every slot; empty slots hold zeros."""
        return next(vectors.copy() for _, vectors in self.stream([batch]))

    def stream(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, FloatArray]]:
        """Run batches as they come and yield each with its vectors [R, S, D], in order.

        The vectors are the request's own memory: they hold until the next pair is asked for. The next
        batches are drawn, and so tokenized and packed, while earlier ones run: one more request is in
        flight than there are streams, so that no stream waits for Python.
        """
        flying: deque[tuple[Batch, _Request]] = deque()
        try:
            for batch in batches:
                request = self._pool(batch.grid).take()
                request.start(batch)
                flying.append((batch, request))
                if len(flying) > self.plan.threads:
                    yield from self._land(flying)
            while flying:
                yield from self._land(flying)
        finally:
            while flying:  # left behind by an error, or by a reader that stopped
                for _ in self._land(flying):
                    pass

    def _land(self, flying: deque[tuple[Batch, _Request]]) -> Iterator[tuple[Batch, FloatArray]]:
        """Wait for the oldest, hand out its vectors, and take its request back once they were read."""
        batch, request = flying.popleft()
        vectors = request.finish()  # a request that fails here may still run, and is not used again
        try:
            yield batch, vectors
        finally:
            self._pool(batch.grid).give(request)

    def _pool(self, grid: Grid) -> _Pool:
        with self._compiling:
            if grid not in self._pools:
                self._pools[grid] = _Pool(self._compile(grid), grid)
            return self._pools[grid]

    def graph(self, grid: Grid) -> ov.Model:
        """Return the graph that is compiled for a grid: of static shape, and lowered if the plan says so."""
        model = self._model.clone()
        model.reshape({name: [grid.rows, grid.width] for name in INPUTS})
        if self.plan.lowering == "conv":
            lower(model)
        return model

    def _compile(self, grid: Grid) -> ov.CompiledModel:
        """Take a grid from the cache, or compile it and keep it there; either proves itself first.

        Raises:
            SelfCheckFailed: what was just compiled gives wrong vectors.
        """
        if self._cache is None:
            return self._proven(self._compile_anew(grid), grid)
        facts = {"grid": str(grid), "config": self._config(grid)}
        blob = self._cache.load(str(grid), facts)
        if blob is not None:
            try:
                compiled = self._core.import_model(blob, self.plan.device, self._config(grid))
                return self._proven(compiled, grid)
            except (RuntimeError, SelfCheckFailed) as error:
                self._cache.drop(str(grid), facts, str(error))
        compiled = self._proven(self._compile_anew(grid), grid)
        try:
            self._cache.store(str(grid), facts, compiled.export_model().getvalue())
        except RuntimeError:  # AUTO, MULTI and BATCH have no export
            self._cache.say(f"{self.plan.device} cannot export its models")
        return compiled

    def check(self, grid: Grid) -> float:
        """Compile a grid, if it is not, and return the least cosine to the golden vector in any row.

        Raises:
            SelfCheckFailed: it is under 0.99, or not a number.
        """
        return self._cosine(self._pool(grid).compiled, grid)

    def _proven(self, compiled: ov.CompiledModel, grid: Grid) -> ov.CompiledModel:
        self._cosine(compiled, grid)
        return compiled

    def _cosine(self, compiled: ov.CompiledModel, grid: Grid) -> float:
        batch = self._golden.batch(grid, self.plan.align)
        request = _Request(compiled, grid)
        request.start(batch)
        cosine = self._golden.worst(request.finish()[batch.owner >= 0])
        if not cosine >= LEAST_COSINE:
            raise SelfCheckFailed(f"{grid} on {self.plan.device}", cosine, LEAST_COSINE)
        return cosine

    def _compile_anew(self, grid: Grid) -> ov.CompiledModel:
        try:
            compiled = self._core.compile_model(self.graph(grid), self.plan.device, self._config(grid))
        except RuntimeError as error:
            raise OvMiniLMError(f"OpenVINO cannot compile {grid} for {self.plan.device}: {error}") from error
        self._weights.release()
        if self.plan.device == "CPU":
            found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            asked = self.plan.precision_of(grid)
            if found != asked:
                raise PrecisionUnavailable(asked, self.plan.device, f"OpenVINO chose {found}")
        return compiled

    def abandon(self) -> None:
        """Never destroy what OpenVINO made: in a fork that would wait for threads that are gone."""
        for thing in (self._core, self._model, *(t for pool in self._pools.values() for t in pool.owned)):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))

    def _config(self, grid: Grid) -> dict[str, Any]:
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.plan.precision_of(grid)}
        if self.plan.device == "CPU":
            # A lone row is served by all threads together; wide grids by one stream a thread.
            config["NUM_STREAMS"] = 1 if grid.rows == 1 else self.plan.threads
            config["INFERENCE_NUM_THREADS"] = 1 if self._too_narrow_to_share(grid) else self.plan.threads
            # Each grid has streams of its own; pinned, those of different grids would share cores.
            config["ENABLE_CPU_PINNING"] = False
        return config

    def _too_narrow_to_share(self, grid: Grid) -> bool:
        """Tell whether a second thread costs a lone row more than it brings: as for one or two AMX tiles.

        Measured for 1x16: 1.20 ms with one thread, 1.30 with two; with VNNI and AVX2 two are faster.
        """
        tiles = self.plan.lowering == "conv" and "amx" in self.plan.kernel
        return tiles and grid.rows == 1 and grid.width <= 32


_live: weakref.WeakSet[Engine] = weakref.WeakSet()
_started: int | None = None  # the process in which OpenVINO was first used


def _abandon_all() -> None:
    for engine in _live:
        engine.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class _Request:
    """An infer request with input buffers of its own, so that nothing it reads can be freed under it."""

    def __init__(self, compiled: ov.CompiledModel, grid: Grid) -> None:
        self.infer = compiled.create_infer_request()
        self._buffers = [np.zeros((grid.rows, grid.width), np.int32) for _ in INPUTS]
        for name, buffer in zip(INPUTS, self._buffers, strict=True):
            self.infer.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
        self._output: FloatArray = self.infer.get_output_tensor(0).data  # [R, S, D], filled by each run

    def start(self, batch: Batch) -> None:
        for buffer, values in zip(self._buffers, (batch.ids, batch.positions, batch.segments), strict=True):
            np.copyto(buffer, values)
        self.infer.start_async()

    def finish(self) -> FloatArray:
        self.infer.wait()
        return self._output


class _Pool:
    """The idle requests of one compiled grid; it grows to as many as were ever in flight at once."""

    def __init__(self, compiled: ov.CompiledModel, grid: Grid) -> None:
        self.compiled = compiled
        self._grid = grid
        self._idle: deque[_Request] = deque()
        self._all: list[_Request] = []

    @property
    def owned(self) -> list[object]:
        """What OpenVINO made for this grid."""
        return [self.compiled, *(request.infer for request in self._all)]

    def take(self) -> _Request:
        try:
            return self._idle.pop()
        except IndexError:
            self._all.append(_Request(self.compiled, self._grid))
            return self._all[-1]

    def give(self, request: _Request) -> None:
        self._idle.append(request)


@dataclass(frozen=True, slots=True)
class Kernels:
    """What OpenVINO runs one linear layer on here: names from compiled models, not from CPU models."""

    int8: str  # brgemm_avx512_amx_I8, brgemm_avx512_I8, jit_gemm_I8
    bf16: str  # brgemm_avx512_amx_bf16, brgemm_avx512_bf16; jit_gemm_bf16 and "none": emulated or absent

    @classmethod
    def probe(cls, core: ov.Core) -> Kernels:
        """Compile one small INT8 and one small BF16 layer and read which kernel each got; 40 ms in all."""
        x = ops.parameter([8, 64, 384], ov.Type.f32)
        limits = [ops.constant(np.full((1, 1, 1), v, np.float32)) for v in (-1, 1, -1, 1)]
        weight = ops.convert(ops.constant(np.ones((384, 384), np.int8)), "f32")
        scaled = ops.multiply(weight, ops.constant(np.full((384, 1), 0.01, np.float32)))
        int8 = ops.matmul(ops.fake_quantize(x, *limits, 256), scaled, False, True)
        bf16 = ops.matmul(x, ops.constant(np.ones((384, 384), np.float32)), False, True)
        return cls(_kernel(core, int8, x, "f32"), _kernel(core, bf16, x, "bf16"))

    @property
    def int8_wants_convolution(self) -> bool:
        """Where the matrix kernel is a plain GEMM, or AMX, the 1x1 convolution is the faster one."""
        return not self.int8.startswith("brgemm") or "amx" in self.int8

    @property
    def native_bf16(self) -> bool:
        """BF16 arithmetic in hardware, not by conversion to FP32 and back."""
        return self.bf16.startswith("brgemm") and "bf16" in self.bf16

    @property
    def bf16_group(self) -> int:
        """How many neighbouring terms a BF16 kernel adds as one: a tile of 32 with AMX, else a pair."""
        return 32 if "amx" in self.bf16 else 2


def _kernel(core: ov.Core, layer: ov.Node, x: ov.Node, precision: str) -> str:
    """Name the kernel of the one FullyConnected in this graph; "none" where it does not compile."""
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    try:
        compiled = core.compile_model(ov.Model([layer.output(0)], [x], "probe"), "CPU", config)
    except RuntimeError:
        return "none"
    kinds = [_facts(node) for node in compiled.get_runtime_model().get_ordered_ops()]
    return next((kernel for kind, kernel in kinds if kind.startswith("FullyConnected")), "none")


def _facts(node: ov.Node) -> tuple[str, str]:
    info = node.get_rt_info()
    kind, kernel = (
        value if isinstance(value, str) else str(value.value)
        for value in (info["layerType"], info["primitiveType"])
    )
    return kind, kernel


def survey() -> tuple[str, dict[str, str], Kernels]:
    """Return OpenVINO's version, the devices it finds with their full names, and the kernels of the CPU."""
    core = ov.Core()
    names = {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in core.available_devices}
    return ov.get_version(), names, Kernels.probe(core)


def hardware(core: ov.Core, device: str) -> dict[str, str]:
    """Name each processor that a device string may use, as its plugin does; no list means all there are."""
    names = [name.removeprefix("-") for name in devices(device)] or core.available_devices
    return {name: core.get_property(name, "FULL_DEVICE_NAME") for name in names}


def devices(device: str) -> list[str]:
    """List the devices that a device string names: none for a bare AUTO, which takes what there is."""
    virtual, _, listed = device.partition(":")
    names = listed.split(",") if listed else [] if virtual in VIRTUAL else [device]
    return [re.sub(r"\(.*\)$", "", name).removesuffix(".0") for name in names]  # BATCH:CPU(4); GPU.0 is GPU


def check_device(device: str, available: Sequence[str]) -> None:
    """Refuse a device string that names something this machine does not have, listing what there is.

    Raises:
        DeviceUnavailable: for a name like GPU.1 or AUTO:NPU,CPU without the hardware for it.
    """
    known = {name.removesuffix(".0") for name in available}
    for name in devices(device):
        if name.removeprefix("-") not in known:  # AUTO:-GPU excludes
            raise DeviceUnavailable(device, available)


def may_use_cpu(device: str) -> bool:
    """Tell whether a device string can run on the CPU: AUTO falls back to it unless a list leaves it out."""
    included = [name for name in devices(device) if not name.startswith("-")]
    return "CPU" in included or (not included and "-CPU" not in devices(device))


def choose_precision(
    asked: Literal["auto", "f32", "bf16", "f16"],
    manifest: Manifest,
    device: str,
    lowering: Lowering,
    kernels: Kernels | None,
) -> Precision:
    """Settle what the float layers run in.

    "auto" is f32, except on the CPU for an INT8 artefact where BF16 is native, groups so few terms that
    aligned texts still pack well (AMX does not), and its drift at build time passed the gate. Other devices
    run auto in f16, which is native to them, unless they may hand work to the CPU.
    """
    if kernels is None and not may_use_cpu(device):
        return "f16" if asked == "auto" else asked
    if asked == "auto":
        packs = kernels is not None and kernels.bf16_group <= 2
        return "bf16" if packs and _bf16_passed(manifest, lowering, kernels) else "f32"
    if asked == "f16":
        raise PrecisionUnavailable(
            asked, device, "its kernels give other bits from run to run, or never return; use bf16 or f32"
        )
    if asked == "bf16" and kernels is not None and not kernels.native_bf16:
        raise PrecisionUnavailable(asked, device, "this CPU has no BF16 arithmetic; use f32")
    return asked


def choose_long(
    asked: Literal["auto", "f32", "bf16", "f16"],
    chosen: Precision,
    manifest: Manifest,
    lowering: Lowering,
    kernels: Kernels | None,
) -> Precision:
    """Settle what rows of one long text run in: as the others, but with "auto" in BF16 where it is native.

    Such a text starts its row, so BF16 needs no alignment and its bits are the same everywhere. Half the
    time of a long text is attention, which AMX does in BF16 several times faster than in FP32.
    """
    return "bf16" if asked == "auto" and _bf16_passed(manifest, lowering, kernels) else chosen


def _bf16_passed(manifest: Manifest, lowering: Lowering, kernels: Kernels | None) -> bool:
    """Tell whether BF16 is native here and its drift at build time passed the gate."""
    measured = [d for d in manifest.drift if (d.precision, d.lowering) == ("bf16", lowering)]
    passed = bool(measured) and not gate(measured, manifest.gate or Gate())
    return passed and kernels is not None and kernels.native_bf16


def choose_lowering(
    asked: Literal["auto", "native", "conv"], manifest: Manifest, device: str, kernels: Kernels | None
) -> Lowering:
    """Settle how INT8 linear layers run: as OpenVINO has them, or as 1x1 convolutions."""
    if asked == "conv" and (kernels is None or manifest.weights != "int8"):
        raise ValueError(f"lowering 'conv' is for INT8 on CPU, not for {manifest.weights} on {device}")
    if asked == "auto":
        wanted = kernels is not None and manifest.weights == "int8" and kernels.int8_wants_convolution
        return "conv" if wanted else "native"
    return asked
