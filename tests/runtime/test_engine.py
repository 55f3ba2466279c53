"""Devices, precision, lowering and grids: what is asked for is what runs, or an error says why not."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from ov_minilm import DeviceUnavailable, Embedder, FileMismatch, PrecisionUnavailable
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime import plan
from ov_minilm.runtime.devices import check_device
from ov_minilm.runtime.plan import AskedPrecision, Kernels, Options, Plan, choose_grids, memory
from ov_minilm.spec import GRIDS, Grid, Lane

AMX = Kernels("brgemm_avx512_amx_I8", "brgemm_avx512_amx_bf16")
BF16 = Kernels("brgemm_avx512_I8", "brgemm_avx512_bf16")
VNNI = Kernels("brgemm_avx512_I8", "jit_gemm_bf16")
AVX2 = Kernels("jit_gemm_I8", "none")
MANIFEST = Manifest.read(SHIPPED)
UNMEASURED = replace(MANIFEST, drift=tuple(d for d in MANIFEST.drift if d.precision == "f32"))
BAD = replace(MANIFEST, drift=tuple(replace(d, overlap={"stsb_dev": 0.5}) for d in MANIFEST.drift))
FP32 = replace(MANIFEST, weights="f32", drift=())
TEXTS = [
    " ".join(["A", "man", "is", "slicing", "bread", "near", "the", "river"][: i % 8 + 1]) for i in range(64)
]


def asked(precision: AskedPrecision = "auto", device: str = "CPU", **bounds: int) -> Options:
    """Return what Embedder.open was asked for."""
    return Options(device, precision, "auto", 2, **bounds)


def test_devices_are_those_of_the_machine(tmp_path: Path) -> None:
    """Every form of OpenVINO's device strings is read; an error has what was asked for and what there is."""
    for device in "CPU GPU GPU.1 AUTO AUTO:GPU,CPU AUTO:-GPU.0 HETERO:GPU(2),CPU".split():
        check_device(device, ["CPU", "GPU.0", "GPU.1"])
    for device in "GPU GPU.0 AUTO:GPU.0,CPU".split():  # a single GPU is listed without its number
        check_device(device, ["CPU", "GPU"])
    for device in ("GPU.7", "NPU.3", "TPU", "AUTO:NPU.3,CPU", "HETERO:CPU,GPU.9", ""):
        with pytest.raises(DeviceUnavailable, match=r"this machine has CPU, GPU\.0, GPU\.1") as caught:
            check_device(device, ["CPU", "GPU.0", "GPU.1"])
        assert device == caught.value.asked
    with pytest.raises(DeviceUnavailable, match=r"this machine has .*CPU"):
        Embedder.open(device="TPU")
    with pytest.raises(PrecisionUnavailable, match="use bf16 or f32"):
        Embedder.open(precision="f16")
    shutil.copytree(SHIPPED, tmp_path / "model")
    (tmp_path / "model/model.bin").write_bytes(b"\1")
    with pytest.raises(FileMismatch, match=r"model\.bin"):
        Embedder.open(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "manifest", "kernels", "expected"),
    [
        (asked(), MANIFEST, AMX, ("f32", "bf16")),
        (asked(), MANIFEST, BF16, ("f32", "bf16")),  # short texts are the same on every CPU
        (asked(), MANIFEST, VNNI, ("f32", "f32")),
        (asked(), MANIFEST, AVX2, ("f32", "f32")),
        (asked(), UNMEASURED, BF16, ("f32", "f32")),  # its drift is not known
        (asked(), BAD, BF16, ("f32", "f32")),  # its drift is over the gate
        (asked(), FP32, AMX, ("f32", "f32")),
        (asked("f32"), MANIFEST, AMX, ("f32", "f32")),
        (asked("bf16"), MANIFEST, AMX, ("bf16", "bf16")),
        (asked("bf16"), MANIFEST, VNNI, "no BF16 arithmetic"),  # emulated, it is slower than f32
        (asked(device="GPU"), MANIFEST, None, ("f16", "f16")),
        (asked(device="AUTO:GPU,NPU"), MANIFEST, None, ("f16", "f16")),
        (asked(device="AUTO:GPU,CPU"), MANIFEST, None, ("f32", "f32")),  # the CPU may take part
        (asked("f16", "CPU"), MANIFEST, AMX, "use bf16 or f32"),  # its kernels give other bits each time
        *[(asked("f16", d), MANIFEST, None, "use bf16 or f32") for d in "AUTO AUTO:CPU HETERO:CPU".split()],
        *[(asked("f16", d), MANIFEST, None, "use bf16 or f32") for d in "MULTI:CPU(2) BATCH:CPU(4)".split()],
    ],
)
def test_precision_goes_by_length_kernel_and_measurement(
    options: Options, manifest: Manifest, kernels: Kernels | None, expected: tuple[str, str] | str
) -> None:
    """What texts up to and over 64 tokens run in; what cannot be reproduced is refused."""
    if isinstance(expected, tuple):
        assert expected == plan.choose_precisions(options, manifest, "conv", kernels)
    else:
        with pytest.raises(PrecisionUnavailable, match=expected):
            plan.choose_precisions(options, manifest, "conv", kernels)


def test_lowering_goes_by_the_kernel() -> None:
    """A plain GEMM and AMX want the convolution, VNNI the matrix; for FP32 it changes nothing."""
    found = [plan.choose_lowering(asked(), MANIFEST, kernels) for kernels in (AMX, VNNI, AVX2, None)]

    assert ["conv", "native", "conv", "native"] == found
    assert "native" == plan.choose_lowering(asked(), FP32, AVX2)
    with pytest.raises(ValueError, match="not for f32 on CPU"):
        plan.choose_lowering(replace(asked(), lowering="conv"), FP32, AVX2)


def test_bounds_keep_nested_sets_of_grids() -> None:
    """From the smallest, with which every text runs, larger budgets add grids; an NPU has single rows."""
    least, most = (memory(MANIFEST, grids, 2) for grids in (GRIDS[:2], GRIDS))
    kept = [choose_grids(asked(memory_mb=mb), MANIFEST) for mb in range(least, most + 1)]

    assert (GRIDS[:2], GRIDS, 2) == (kept[0], kept[-1], len(kept[0]))
    assert all(small == large[: len(small)] for small, large in itertools.pairwise(kept))
    with pytest.raises(ValueError, match=f"memory_mb={least - 1}; the smallest set of grids takes {least}"):
        choose_grids(asked(memory_mb=least - 1), MANIFEST)
    assert {1} == {grid.rows for grid in choose_grids(asked(device="NPU"), MANIFEST)}

    old = [
        (8, 64),
        (2, 256),
        (2, 64),
        (1, 16),
        (1, 32),
        (1, 64),
        (1, 128),
        (1, 256),
    ]  # of the first artefacts
    manifest = replace(MANIFEST, grids=tuple(Grid(rows, width) for rows, width in old))
    assert set(manifest.grids) == set(choose_grids(asked(), manifest))
    assert (Grid(1, 64), Grid(1, 256)) == choose_grids(asked(memory_mb=190), manifest)


def test_streams_and_threads_go_by_the_grid() -> None:
    """OpenVINO is told how many batches run side by side, and on how many threads."""
    for threads, grid, kernel, expected in (
        (2, Grid(8, 64), "", (2, 2)),
        (16, Grid(2, 208), "", (4, 16)),  # four streams at most
        (16, Grid(2, 64), "", (1, 16)),  # a small grid is run by all threads together
        (2, Grid(1, 256), "", (1, 2)),
        (2, Grid(1, 16), AMX.int8, (1, 1)),  # too short for two with AMX
        (2, Grid(1, 64), AMX.int8, (1, 2)),
    ):
        config = Plan("CPU", "conv", threads, kernel, (Lane(GRIDS, "f32"),)).config(grid)
        assert expected == (config["NUM_STREAMS"], config["INFERENCE_NUM_THREADS"])


def test_the_other_cpu_path_agrees(tmp_path: Path) -> None:
    """A CPU without VNNI takes the convolution by itself; its vectors are nearly those of the matrix here."""
    code = (
        "import numpy as np; from ov_minilm import Embedder\n"
        "with Embedder.open(precision='f32') as e:\n"
        f"    np.save({str(tmp_path / 'vectors.npy')!r}, e.encode({TEXTS!r}))\n"
        "    print(e.info.lowering, e.info.precision)"
    )
    done = python(code, ONEDNN_MAX_CPU_ISA="AVX2")

    assert (0, "conv f32\n") == (done.returncode, done.stdout), done.stderr
    with Embedder.open(precision="f32", lowering="native") as here:  # the rounding between layers differs
        cosines = (np.load(tmp_path / "vectors.npy") * here.encode(TEXTS)).sum(1)
    assert cosines.mean() > 0.9995
    assert cosines.min() > 0.99


def test_the_shipped_manifest_is_complete() -> None:
    """The artefact in the package was measured both ways on STS-B, is small, and names no machine."""
    raw = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))

    assert {("native", "f32"), ("conv", "f32")} <= {(d["lowering"], d["precision"]) for d in raw["drift"]}
    assert all({"stsb_dev", "stsb_test"} <= drift["sts"].keys() for drift in raw["drift"])
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 25_000_000
    assert str(Path.home()) not in json.dumps(raw)
