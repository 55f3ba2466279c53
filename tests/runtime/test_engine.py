"""Device, precision, lowering and grids: the requested ones are used, or an error says why not."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from ov_minilm import DeviceUnavailable, Embedder, PrecisionUnavailable
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
OVER_LIMIT = replace(MANIFEST, drift=tuple(replace(d, overlap={"stsb_dev": 0.5}) for d in MANIFEST.drift))
FP32 = replace(MANIFEST, weights="f32", drift=())
TEXTS = [
    " ".join(["A", "man", "is", "slicing", "bread", "near", "the", "river"][: i % 8 + 1]) for i in range(64)
]


def requested(precision: AskedPrecision = "auto", device: str = "CPU", **limits: int) -> Options:
    """Return the options that Embedder.open makes of these arguments."""
    return Options(device, precision, "auto", 2, **limits)


def test_a_missing_device_is_refused() -> None:
    """Every form of OpenVINO's device strings is read; the error lists the devices of this machine."""
    for device in "CPU GPU GPU.1 AUTO AUTO:GPU,CPU AUTO:-GPU.0 AUTO:-NPU HETERO:GPU(2),CPU".split():
        check_device(device, ["CPU", "GPU.0", "GPU.1"])
    for device in "GPU GPU.0 AUTO:GPU.0,CPU".split():  # a single GPU is listed without its number
        check_device(device, ["CPU", "GPU"])
    names = "GPU.7 NPU.3 CUDA CPU.1 CPU:0 CPU(4) BATCH:CPU(0) BATCH HETERO MULTI MULTI: AUTO:CPU.0 AUTO:CPU,"
    names += " AUTO:-CPU,-GPU.0,-GPU.1 AUTO:NPU,-NPU"
    for device in (*names.split(), "AUTO:NPU.3,CPU", "HETERO:CPU,GPU.9", "", " CPU "):
        with pytest.raises(DeviceUnavailable, match=r"this machine has CPU, GPU\.0, GPU\.1") as caught:
            check_device(device, ["CPU", "GPU.0", "GPU.1"])
        assert (device, ("CPU", "GPU.0", "GPU.1")) == (caught.value.asked, caught.value.available)
    with pytest.raises(DeviceUnavailable) as caught:
        Embedder.open(device="gpu.99")
    assert "GPU.99" == caught.value.asked


@pytest.mark.parametrize(
    ("options", "manifest", "kernels", "expected"),
    [
        (requested(), MANIFEST, AMX, ("f32", "bf16")),
        (requested(), MANIFEST, BF16, ("f32", "bf16")),  # short texts: f32 on every CPU
        (requested(), MANIFEST, VNNI, ("f32", "f32")),
        (requested(), MANIFEST, AVX2, ("f32", "f32")),
        (requested(), UNMEASURED, BF16, ("f32", "f32")),  # the drift of BF16 is not known
        (requested(), OVER_LIMIT, BF16, ("f32", "f32")),  # the drift of BF16 is over the limits
        (requested(), FP32, AMX, ("f32", "f32")),
        (requested("f32"), MANIFEST, AMX, ("f32", "f32")),
        (requested("bf16"), MANIFEST, AMX, ("bf16", "bf16")),
        (requested("bf16"), MANIFEST, VNNI, "no BF16 arithmetic"),  # emulated BF16 is slower than f32
        (requested(device="GPU"), MANIFEST, None, ("f16", "f16")),
        (requested(device="AUTO:GPU,NPU"), MANIFEST, None, ("f16", "f16")),
        (requested(device="AUTO:GPU,CPU"), MANIFEST, None, ("f32", "f32")),  # the CPU may take part
        # f16 kernels give different bits in each run
        (requested("f16", "CPU"), MANIFEST, AMX, "use bf16 or f32"),
        *[
            (requested("f16", device), MANIFEST, None, "use bf16 or f32")
            for device in "AUTO AUTO:CPU HETERO:CPU MULTI:CPU(2) BATCH:CPU(4)".split()
        ],
    ],
)
def test_precision_depends_on_length_kernels_and_measured_drift(
    options: Options, manifest: Manifest, kernels: Kernels | None, expected: tuple[str, str] | str
) -> None:
    """Texts over 64 tokens have their own precision; precisions with varying bits are refused."""
    if isinstance(expected, tuple):
        assert expected == plan.choose_precisions(options, manifest, "conv", kernels)
    else:
        with pytest.raises(PrecisionUnavailable, match=expected):
            plan.choose_precisions(options, manifest, "conv", kernels)


def test_lowering_depends_on_the_kernels() -> None:
    """AMX and AVX2 use the convolution, VNNI the matrix product; FP32 is never lowered."""
    found = [plan.choose_lowering(requested(), MANIFEST, kernels) for kernels in (AMX, VNNI, AVX2, None)]

    assert ["conv", "native", "conv", "native"] == found
    assert "native" == plan.choose_lowering(requested(), FP32, AVX2)
    with pytest.raises(ValueError, match="not for f32 on CPU"):
        plan.choose_lowering(replace(requested(), lowering="conv"), FP32, AVX2)


def test_a_memory_budget_keeps_the_first_grids() -> None:
    """The smallest budget has two grids, which hold every text; NPUs have grids of one row only."""
    low, high = (memory(MANIFEST, grids, 2) for grids in (GRIDS[:2], GRIDS))
    choices = [choose_grids(requested(memory_mb=mb), MANIFEST) for mb in range(low, high + 1)]

    assert (GRIDS[:2], GRIDS, 2) == (choices[0], choices[-1], len(choices[0]))
    assert all(small == large[: len(small)] for small, large in itertools.pairwise(choices))
    with pytest.raises(ValueError, match=f"memory_mb={low - 1}; the smallest set of grids takes {low}"):
        choose_grids(requested(memory_mb=low - 1), MANIFEST)
    for device in ("NPU", "NPU.0", "AUTO:NPU,CPU", "HETERO:NPU,CPU"):
        grids = choose_grids(requested(device=device), MANIFEST)
        assert (1, 256) == (max(grid.rows for grid in grids), max(grid.width for grid in grids))

    sizes = "8x64 2x256 2x64 1x16 1x32 1x64 1x128 1x256"  # the grids of the first artefacts
    old = replace(MANIFEST, grids=tuple(Grid(*map(int, size.split("x"))) for size in sizes.split()))
    assert set(old.grids) == set(choose_grids(requested(), old))
    assert (Grid(1, 64), Grid(1, 256)) == choose_grids(requested(memory_mb=190), old)


def test_streams_and_threads_depend_on_the_grid() -> None:
    """OpenVINO is configured with the number of parallel batches, and of threads for all of them."""
    for threads, grid, kernel, expected in (
        (2, Grid(8, 64), "", (2, 2)),
        (16, Grid(2, 208), "", (4, 16)),  # four streams at most
        (16, Grid(2, 64), "", (1, 16)),  # a small grid is run by all threads together
        (2, Grid(1, 256), "", (1, 2)),
        (2, Grid(1, 16), AMX.int8, (1, 1)),  # with AMX, too short for two threads
        (2, Grid(1, 64), AMX.int8, (1, 2)),
    ):
        config = Plan("CPU", "conv", threads, kernel, (Lane(GRIDS, "f32"),)).config(grid)
        assert expected == (config["NUM_STREAMS"], config["INFERENCE_NUM_THREADS"])


def test_cpus_without_vnni_give_nearly_the_same_vectors(tmp_path: Path) -> None:
    """CPUs without VNNI run the convolution; vectors differ only by the rounding between layers."""
    code = (
        "import numpy as np; from ov_minilm import Embedder\n"
        "with Embedder.open(precision='f32') as e:\n"
        f"    np.save({str(tmp_path / 'vectors.npy')!r}, e.encode({TEXTS!r}))\n"
        "    print(e.info.lowering, e.info.precision)"
    )
    done = python(code, ONEDNN_MAX_CPU_ISA="AVX2")

    assert (0, "conv f32\n") == (done.returncode, done.stdout), done.stderr
    with Embedder.open(precision="f32", lowering="native") as here:
        cosines = (np.load(tmp_path / "vectors.npy") * here.encode(TEXTS)).sum(1)
    assert cosines.mean() > 0.9995
    assert cosines.min() > 0.99


def test_the_shipped_manifest_is_complete() -> None:
    """The shipped artefact has the drift of both lowerings on STS-B, is small, and names no home folder."""
    raw = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))

    assert {("native", "f32"), ("conv", "f32")} <= {(d["lowering"], d["precision"]) for d in raw["drift"]}
    assert all({"stsb_dev", "stsb_test"} <= drift["sts"].keys() for drift in raw["drift"])
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 25_000_000
    assert str(Path.home()) not in json.dumps(raw)
