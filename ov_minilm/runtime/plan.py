"""How an artefact runs here: every choice made once, from what OpenVINO's compiled layers say.

No choice goes by the name of a CPU. A small layer is compiled, and the kernel that it got decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import Manifest
from ov_minilm.errors import DeviceUnavailable, PrecisionUnavailable
from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.packing import Batch, Pool
from ov_minilm.spec import LONG, Grid, IntArray

Precision = Literal["f32", "bf16", "f16"]
Lowering = Literal["native", "conv"]

VIRTUAL = ("AUTO", "MULTI", "HETERO", "BATCH")
NARROW = 32  # tokens; with AMX, threads wait for each other longer than one takes for a row this short


@dataclass(frozen=True, slots=True)
class Plan:
    """How the artefact runs here, every choice made."""

    device: str
    precision: Precision  # of the layers that are not INT8
    long: Precision  # the same, of rows for texts of more than LONG tokens
    lowering: Lowering
    threads: int
    kernel: str  # of INT8 linear layers, as OpenVINO names it; "" where it was not asked
    align: int  # where texts may start in a row for their bits to be the same everywhere; see packing.py
    long_align: int  # the same, of rows for texts of more than LONG tokens
    grids: tuple[Grid, ...]

    @classmethod
    def settle(
        cls,
        core: ov.Core,
        manifest: Manifest,
        *,
        device: str,
        precision: Literal["auto", "f32", "bf16", "f16"],
        lowering: Literal["auto", "native", "conv"],
        threads: int,
        max_batch_tokens: int | None,
    ) -> Plan:
        """Make every choice that was left open; refuse what this machine cannot do.

        Raises:
            DeviceUnavailable: this machine has no such device.
            PrecisionUnavailable: the device cannot run that precision reproducibly.
            ValueError: the lowering does not fit the device or the artefact, or no long text fits a batch.
        """
        cpu = device == "CPU"
        if not cpu:  # to say what there is, OpenVINO loads every plugin that it has
            check_device(device, core.available_devices)
        kernels = Kernels.probe(core) if cpu else None
        settled = choose_lowering(lowering, manifest, device, kernels)
        chosen = choose_precision(precision, manifest, device, settled, kernels)
        long = choose_long(precision, chosen, manifest, settled, kernels)
        align = {"bf16": kernels.bf16_group} if kernels else {}
        return cls(
            device=device,
            precision=chosen,
            long=long,
            lowering=settled,
            threads=threads,
            kernel=kernels.int8 if kernels else "",
            align=align.get(chosen, 1),
            long_align=align.get(long, 1),
            grids=choose_grids(manifest.grids, device, max_batch_tokens),
        )

    @property
    def apart(self) -> bool:
        """Whether long texts must not share rows with others, for these run in another precision."""
        return self.long != self.precision

    def precision_of(self, grid: Grid) -> Precision:
        """Return what a grid runs in."""
        return self.long if grid.width > LONG else self.precision

    def align_of(self, grid: Grid) -> int:
        """Return where texts may start in a grid's rows."""
        return self.long_align if grid.width > LONG else self.align

    def streams(self, grid: Grid) -> int:
        """How many batches of a grid run side by side: a lone row is served by all threads together."""
        return 1 if grid.rows == 1 else self.threads

    def threads_for(self, grid: Grid) -> int:
        """How many threads serve a grid: all, but one for a narrow row of AMX convolutions.

        Measured for 1x16 with AMX: 1.20 ms with one thread, 1.30 with two; with VNNI and AVX2 two are faster.
        """
        tiles = self.lowering == "conv" and "amx" in self.kernel
        return 1 if tiles and grid.rows == 1 and grid.width <= NARROW else self.threads

    def pool(self) -> Pool:
        """Return a pool that packs texts in rows that suit this plan."""
        long_align = self.long_align if self.apart else None
        return Pool(self.grids, align=self.align, long_align=long_align)

    def pack(self, ids: Sequence[IntArray]) -> list[Batch]:
        """Pack texts that are all there; `owner` calls them by their index."""
        pool = self.pool()
        pool.add(dict(enumerate(ids)))
        return list(pool.take_all(streams=self.threads))

    def config(self, grid: Grid) -> dict[str, Any]:
        """Return what OpenVINO is told when it compiles a grid."""
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.precision_of(grid)}
        if self.device == "CPU":
            config["NUM_STREAMS"] = self.streams(grid)
            config["INFERENCE_NUM_THREADS"] = self.threads_for(grid)
            # Each grid has streams of its own; pinned, those of different grids would share cores.
            config["ENABLE_CPU_PINNING"] = False
        return config


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


def devices(device: str) -> list[str]:
    """List the devices that a device string names: none for a bare AUTO, which takes what there is."""
    virtual, _, listed = device.partition(":")
    names = listed.split(",") if listed else [] if virtual in VIRTUAL else [device]
    return [re.sub(r"\(.*\)$", "", name).removesuffix(".0") for name in names]  # BATCH:CPU(4); GPU.0 is GPU


def hardware(core: ov.Core, device: str) -> dict[str, str]:
    """Name each processor that a device string may use, as its plugin does; no list means all there are."""
    names = [name.removeprefix("-") for name in devices(device)] or core.available_devices
    return {name: str(core.get_property(name, "FULL_DEVICE_NAME")) for name in names}


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
    """Settle what long texts run in: as the others, but with "auto" in BF16 where it is native.

    They lose little by being aligned. Half the time of a long text is attention, which AMX does in BF16
    several times faster than in FP32.
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


def choose_grids(grids: Sequence[Grid], device: str, max_batch_tokens: int | None = None) -> tuple[Grid, ...]:
    """Settle which grids are used: lone rows on an NPU, which serves one at a time, else what is allowed.

    Raises:
        ValueError: `max_batch_tokens` leaves no room for the longest text.
    """
    npu = any(name.startswith("NPU") for name in devices(device))
    longest = max(grid.width for grid in grids)
    most = max(grid.cells for grid in grids) if max_batch_tokens is None else max_batch_tokens
    if most < longest:
        raise ValueError(f"max_batch_tokens is {most}, but one text may have {longest}: at least that many")
    return tuple(grid for grid in grids if grid.cells <= most and (grid.rows == 1 or not npu))
