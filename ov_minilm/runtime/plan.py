"""Decides once how an artefact runs on this machine: precision, lowering, grids and threads.

No choice depends on the name of a CPU: a small layer is compiled, and the kernel that OpenVINO chose decides.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import Manifest
from ov_minilm.errors import PrecisionUnavailable
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.devices import check_device, devices, may_use_cpu
from ov_minilm.spec import LONG_TEXT_TOKENS, Grid, Lane, Precision, grids

Lowering = Literal["native", "conv"]
AskedPrecision = Literal["auto", "f32", "bf16", "f16"]
AskedLowering = Literal["auto", "native", "conv"]

MAX_STREAMS = 4  # streams of one grid; each takes memory, and more cores are better used by more processes
# In tokens: with AMX, single rows up to this width are faster on one thread (1x16 takes 1.20 ms on one
# thread, 1.30 ms on two).
SINGLE_THREAD_WIDTH = 32

# Resident memory in MB, measured by bench/ and rounded up.
PROCESS_MB = 110  # Python, numpy, OpenVINO and the tokenizer, without any grid
# each stream of a compiled grid; the weights, which its streams share, are not included
STREAM_MB = 26


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `Embedder.open`, which explains them."""

    device: str
    precision: AskedPrecision
    lowering: AskedLowering
    threads: int
    memory_mb: int | None = None
    max_batch_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the artefact runs on this machine."""

    device: str
    lowering: Lowering
    threads: int
    kernel: str  # OpenVINO's kernel for INT8 linear layers; "" on devices other than CPU
    # one lane for all texts, or two: for texts up to LONG_TEXT_TOKENS and for longer texts
    lanes: tuple[Lane, ...]

    @classmethod
    def choose(cls, core: ov.Core, manifest: Manifest, asked: Options) -> Plan:
        """Decide everything that the options leave open; refuse options that this machine cannot fulfil.

        Raises:
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            ValueError: the lowering does not fit the device or the artefact, or a limit leaves too few grids.
        """
        if asked.device != "CPU":  # listing devices would load all plugins of OpenVINO
            check_device(asked.device, core.available_devices)
        kernels = Kernels.probe(core) if asked.device == "CPU" else None
        lowering = choose_lowering(asked, manifest, kernels)
        short, long = choose_precisions(asked, manifest, lowering, kernels)
        grids = choose_grids(asked, manifest)
        align = {"bf16": kernels.bf16_group} if kernels else {}
        shares = {short: grids}
        if long != short:  # the precision of a text must depend on its own length only
            long_grids = tuple(grid for grid in grids if grid.width > LONG_TEXT_TOKENS)
            shares = {short: tuple(grid for grid in grids if grid not in long_grids), long: long_grids}
        lanes = tuple(Lane(share, kind, align.get(kind, 1)) for kind, share in shares.items())
        return cls(asked.device, lowering, asked.threads, kernels.int8 if kernels else "", lanes)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """All grids that may be compiled."""
        return tuple(grid for lane in self.lanes for grid in lane.grids)

    @property
    def streams(self) -> int:
        """How many batches run at the same time."""
        return min(self.threads, MAX_STREAMS)

    def lane_of(self, grid: Grid) -> Lane:
        """Return the lane that a grid belongs to."""
        return next(lane for lane in self.lanes if grid in lane.grids)

    def config(self, grid: Grid) -> dict[str, Any]:
        """Return OpenVINO's configuration for compiling a grid."""
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.lane_of(grid).precision}
        if self.device == "CPU":
            amx = self.lowering == "conv" and "amx" in self.kernel
            single_thread = amx and grid.rows == 1 and grid.width <= SINGLE_THREAD_WIDTH
            config["NUM_STREAMS"] = 1 if grid.uses_all_threads else self.streams
            config["INFERENCE_NUM_THREADS"] = 1 if single_thread else self.threads
            # Each grid has its own streams; if they were pinned, streams of different grids would share
            # cores.
            config["ENABLE_CPU_PINNING"] = False
        return config


def memory(manifest: Manifest, grids: Collection[Grid], threads: int) -> int:
    """Return the estimated memory, in MB, of a process with these grids compiled."""
    spec, streams = manifest.spec, min(threads, MAX_STREAMS)
    weights = spec.layers * (4 * spec.dim**2 + 2 * spec.dim * spec.intermediate)
    weights_mb = weights * (1 if manifest.weights == "int8" else 4) / 1e6
    running = sum(1 if grid.uses_all_threads else streams for grid in grids)
    return math.ceil(PROCESS_MB + weights_mb * len(grids) + STREAM_MB * running)


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels that OpenVINO chooses for a linear layer on this CPU, as compiled models report them."""

    int8: str  # brgemm_avx512_amx_I8, brgemm_avx512_I8, jit_gemm_I8
    bf16: str  # native: brgemm_avx512_amx_bf16, brgemm_avx512_bf16; emulated: jit_gemm_bf16; absent: "none"

    @classmethod
    def probe(cls, core: ov.Core) -> Kernels:
        """Compile a small INT8 layer and a small BF16 layer, and read the kernel of each; takes 40 ms."""
        x = ops.parameter([8, 64, 384], ov.Type.f32)
        limits = [ops.constant(np.full((1, 1, 1), v, np.float32)) for v in (-1, 1, -1, 1)]
        weight = ops.convert(ops.constant(np.ones((384, 384), np.int8)), "f32")
        scaled = ops.multiply(weight, ops.constant(np.full((384, 1), 0.01, np.float32)))
        int8 = ops.matmul(ops.fake_quantize(x, *limits, 256), scaled, False, True)
        bf16 = ops.matmul(x, ops.constant(np.ones((384, 384), np.float32)), False, True)
        return cls(_kernel(core, int8, x, "f32"), _kernel(core, bf16, x, "bf16"))

    @property
    def int8_wants_convolution(self) -> bool:
        """Whether the 1x1 convolution is faster: the matrix kernel is a plain GEMM, or uses AMX."""
        return not self.int8.startswith("brgemm") or "amx" in self.int8

    @property
    def native_bf16(self) -> bool:
        """Whether BF16 runs in hardware, without conversion to FP32 and back."""
        return self.bf16.startswith("brgemm") and "bf16" in self.bf16

    @property
    def bf16_group(self) -> int:
        """How many neighbouring terms a BF16 kernel adds at once: 32 with AMX (a tile), otherwise 2."""
        return 32 if "amx" in self.bf16 else 2


def _kernel(core: ov.Core, layer: ov.Node, x: ov.Node, precision: str) -> str:
    """Return the kernel of the only FullyConnected in this graph; "none" if it does not compile."""
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    try:
        compiled = core.compile_model(ov.Model([layer.output(0)], [x], "probe"), "CPU", config)
    except RuntimeError:
        return "none"
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    linear = (f["primitiveType"] for f in facts if _as_str(f["layerType"]).startswith("FullyConnected"))
    return _as_str(next(linear, "none"))


def _as_str(value: Any) -> str:
    """Return a property as text; OpenVINO returns some as str and some as OVAny."""
    return value if isinstance(value, str) else str(value.value)


def choose_precisions(
    asked: Options, manifest: Manifest, lowering: Lowering, kernels: Kernels | None
) -> tuple[Precision, Precision]:
    """Choose the number type of the layers that are not INT8, for short and for long texts.

    On the CPU, "auto" is f32 for texts up to LONG_TEXT_TOKENS, so that they have the same vectors on every
    machine. For longer texts, whose attention takes half of the time, "auto" is BF16 if the CPU has native
    BF16 and the drift is within the limits. On other devices, which have native f16, "auto" is f16, unless
    the device may delegate work to the CPU.
    """
    wanted: Precision = "f32" if asked.precision == "auto" else asked.precision
    if kernels is None and not may_use_cpu(asked.device):
        wanted = "f16" if asked.precision == "auto" else wanted
    elif wanted == "f16":
        reason = "its kernels give different bits in each run, or never return; use bf16 or f32"
        raise PrecisionUnavailable(wanted, asked.device, reason)
    elif wanted == "bf16" and kernels is not None and not kernels.native_bf16:
        raise PrecisionUnavailable(wanted, asked.device, "this CPU has no BF16 arithmetic; use f32")
    measured = [d for d in manifest.drift if (d.precision, d.lowering) == ("bf16", lowering)]
    passed = bool(measured) and not gate(measured, manifest.gate or Gate())
    bf16 = asked.precision == "auto" and passed and kernels is not None and kernels.native_bf16
    return wanted, "bf16" if bf16 else wanted


def choose_lowering(asked: Options, manifest: Manifest, kernels: Kernels | None) -> Lowering:
    """Choose how INT8 linear layers run: as matrix products or as 1x1 convolutions."""
    possible = kernels is not None and manifest.weights == "int8"
    if asked.lowering == "conv" and not possible:
        raise ValueError(f"lowering 'conv' is for INT8 on CPU, not for {manifest.weights} on {asked.device}")
    if asked.lowering == "auto":
        return "conv" if possible and kernels and kernels.int8_wants_convolution else "native"
    return asked.lowering


def choose_grids(asked: Options, manifest: Manifest) -> tuple[Grid, ...]:
    """Choose the grids that may be compiled: the most useful ones, as many as the limits allow.

    An NPU runs one text at a time, so it gets only grids of one row.

    Raises:
        ValueError: a limit leaves no room for the grids that every text needs.
    """
    npu = any(used and name.startswith("NPU") for name, used in devices(asked.device).items())
    found = [grid for grid in grids(manifest.spec.max_tokens) if grid in manifest.grids]
    found += [grid for grid in manifest.grids if grid not in found]  # an artefact may have additional grids
    longest = max(grid.width for grid in found)
    limit = asked.max_batch_tokens
    if limit is not None and limit < longest:
        raise ValueError(f"max_batch_tokens is {limit}, but one text may have {longest}: at least that many")
    found = [grid for grid in found if grid.cells <= (limit or grid.cells) and (grid.rows == 1 or not npu)]
    if asked.memory_mb is not None:
        minimum_mb = memory(manifest, found[:2], asked.threads)
        if asked.memory_mb < minimum_mb:
            raise ValueError(f"memory_mb={asked.memory_mb}; the smallest set of grids takes {minimum_mb}")
        while memory(manifest, found, asked.threads) > asked.memory_mb:
            found.pop()
    return tuple(found)
