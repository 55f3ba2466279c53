"""Devices, precision, lowering and requests: what is asked for is what runs, or an error says why not."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.processes import python

from ov_minilm import DeviceUnavailable, Embedder, FileMismatch, ManifestInvalid, PrecisionUnavailable
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.devices import check_device
from ov_minilm.runtime.plan import (
    AskedPrecision,
    Kernels,
    Options,
    Plan,
    choose_grids,
    choose_lowering,
    choose_precisions,
    memory,
)
from ov_minilm.spec import GRIDS, Grid, Lane

AMX = Kernels("brgemm_avx512_amx_I8", "brgemm_avx512_amx_bf16")
BF16 = Kernels("brgemm_avx512_I8", "brgemm_avx512_bf16")
VNNI = Kernels("brgemm_avx512_I8", "jit_gemm_bf16")
AVX2 = Kernels("jit_gemm_I8", "none")

ENCODE = """
import sys, numpy as np
from ov_minilm import Embedder
with Embedder.open({arguments}) as e:
    np.save({path!r}, e.encode({texts!r}))
    print(e.info.lowering, e.info.precision)
"""
TEXTS = [
    " ".join(["A", "man", "is", "slicing", "bread", "near", "the", "river"][: i % 8 + 1]) for i in range(64)
]


@pytest.mark.parametrize("device", ["GPU.7", "NPU.3", "TPU", "AUTO:NPU.3,CPU", "HETERO:CPU,GPU.9", ""])
def test_an_absent_device_lists_what_there_is(device: str) -> None:
    """The error carries what was asked for and what the machine has."""
    with pytest.raises(DeviceUnavailable, match=r"this machine has .*CPU") as caught:
        Embedder.open(device=device)
    assert caught.value.asked == device


@pytest.mark.parametrize(
    "device", ["CPU", "GPU", "GPU.1", "AUTO", "AUTO:GPU,CPU", "AUTO:-GPU.0", "HETERO:GPU(2),CPU"]
)
def test_device_strings_of_openvino_pass(device: str) -> None:
    """Every form of device string is read, on a machine that has the devices."""
    check_device(device, ["CPU", "GPU.0", "GPU.1"])


def test_the_only_gpu_is_also_the_first() -> None:
    """OpenVINO lists a single GPU without its number, and both names mean it."""
    for device in ("GPU", "GPU.0", "AUTO:GPU.0,CPU"):
        check_device(device, ["CPU", "GPU"])


def test_auto_device_runs_on_cpu() -> None:
    """AUTO:CPU gives vectors near those of CPU."""
    with Embedder.open(device="AUTO:CPU") as auto, Embedder.open() as cpu:
        assert "f32" == auto.info.precision
        cosines = (auto.encode(TEXTS) * cpu.encode(TEXTS)).sum(1)

    assert cosines.min() > 0.995


@pytest.mark.parametrize("device", ["CPU", "AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU(2)", "BATCH:CPU(4)"])
def test_f16_is_refused_where_a_cpu_may_run_it(device: str) -> None:
    """F16 kernels are not reproducible on CPUs, so they are never run."""
    with pytest.raises(PrecisionUnavailable, match="use bf16 or f32"):
        Embedder.open(device=device, precision="f16")


def asked(precision: AskedPrecision = "auto", device: str = "CPU", **bounds: int) -> Options:
    """Return what Embedder.open was asked for."""
    return Options(device, precision, "auto", 2, **bounds)


MANIFEST = Manifest.read(SHIPPED)
UNMEASURED = replace(MANIFEST, drift=tuple(d for d in MANIFEST.drift if d.precision == "f32"))
BAD = replace(MANIFEST, drift=tuple(replace(d, overlap={"stsb_dev": 0.5}) for d in MANIFEST.drift))
FP32 = replace(MANIFEST, weights="f32", drift=())


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
        (asked(device="GPU"), MANIFEST, None, ("f16", "f16")),
        (asked(device="AUTO:GPU,NPU"), MANIFEST, None, ("f16", "f16")),
        (asked(device="AUTO:GPU,CPU"), MANIFEST, None, ("f32", "f32")),  # the CPU may take part
    ],
)
def test_precision_goes_by_length_kernel_and_measurement(
    options: Options, manifest: Manifest, kernels: Kernels | None, expected: tuple[str, str]
) -> None:
    """What texts up to and over 64 tokens run in."""
    assert expected == choose_precisions(options, manifest, "conv", kernels)


def test_bf16_without_hardware_is_refused() -> None:
    """Emulated BF16 is slower than f32 and is not run by mistake."""
    with pytest.raises(PrecisionUnavailable, match="no BF16 arithmetic"):
        choose_precisions(asked("bf16"), MANIFEST, "native", VNNI)


@pytest.mark.parametrize(("kernels", "expected"), [(AMX, "conv"), (VNNI, "native"), (AVX2, "conv")])
def test_lowering_goes_by_the_kernel(kernels: Kernels, expected: str) -> None:
    """A plain GEMM and AMX want the convolution, VNNI keeps the matrix multiplication."""
    assert expected == choose_lowering(asked(), MANIFEST, kernels)


def test_lowering_an_artefact_that_is_not_int8_is_refused() -> None:
    """lowering="conv" on an FP32 artefact would change nothing, so it is an error."""
    with pytest.raises(ValueError, match="not for f32 on CPU"):
        choose_lowering(replace(asked(), lowering="conv"), FP32, AVX2)


def test_memory_budgets_keep_nested_sets_of_grids() -> None:
    """From the smallest, with which every text runs, each larger budget adds grids and removes none."""
    least, most = (memory(MANIFEST, grids, 2) for grids in (GRIDS[:2], GRIDS))
    kept = [choose_grids(asked(memory_mb=mb), MANIFEST) for mb in range(least, most + 1)]

    assert (GRIDS[:2], GRIDS, 2) == (kept[0], kept[-1], len(kept[0]))
    assert all(small == large[: len(small)] for small, large in itertools.pairwise(kept))
    with pytest.raises(ValueError, match=f"memory_mb={least - 1}; the smallest set of grids takes {least}"):
        choose_grids(asked(memory_mb=least - 1), MANIFEST)


def test_an_artefact_with_other_grids_is_read() -> None:
    """The grids of the first artefacts, in their order, serve as far as they go."""
    old = [(8, 64), (2, 256), (2, 64), (1, 16), (1, 32), (1, 64), (1, 128), (1, 256)]
    manifest = replace(MANIFEST, grids=tuple(Grid(rows, width) for rows, width in old))

    assert set(manifest.grids) == set(choose_grids(asked(), manifest))
    assert (Grid(1, 64), Grid(1, 256)) == choose_grids(asked(memory_mb=190), manifest)


@pytest.mark.parametrize(
    ("threads", "grid", "kernel", "streams", "used"),
    [
        (2, Grid(8, 64), "", 2, 2),
        (16, Grid(2, 208), "", 4, 16),  # four streams at most
        (16, Grid(2, 64), "", 1, 16),  # a small grid is run by all threads together
        (2, Grid(1, 256), "", 1, 2),
        (2, Grid(1, 16), "brgemm_avx512_amx_I8", 1, 1),  # too short for two with AMX
        (2, Grid(1, 64), "brgemm_avx512_amx_I8", 1, 2),
    ],
)
def test_streams_and_threads_go_by_the_grid(
    threads: int, grid: Grid, kernel: str, streams: int, used: int
) -> None:
    """OpenVINO is told how many batches run side by side, and on how many threads."""
    config = Plan("CPU", "conv", threads, kernel, (Lane(GRIDS, "f32"),)).config(grid)

    assert (streams, used) == (config["NUM_STREAMS"], config["INFERENCE_NUM_THREADS"])


def test_the_other_cpu_path_agrees(tmp_path: Path) -> None:
    """A CPU without VNNI takes the convolution by itself and gives nearly the vectors that others give."""
    path = str(tmp_path / "vectors.npy")

    done = python(
        ENCODE.format(arguments="precision='f32'", path=path, texts=TEXTS), ONEDNN_MAX_CPU_ISA="AVX2"
    )

    assert 0 == done.returncode, done.stderr
    assert ["conv", "f32"] == done.stdout.split()
    with Embedder.open(precision="f32") as here:  # BF16, where a CPU has it, differs by its own rounding
        cosines = (np.load(path) * here.encode(TEXTS)).sum(1)
    assert cosines.mean() > 0.9995
    assert cosines.min() > 0.99


def test_a_new_process_gives_the_same_bits(tmp_path: Path, shipped: Embedder) -> None:
    """Nothing of a vector depends on the process."""
    path = str(tmp_path / "vectors.npy")

    done = python(ENCODE.format(arguments="", path=path, texts=TEXTS))

    assert 0 == done.returncode, done.stderr
    assert np.array_equal(shipped.encode(TEXTS), np.load(path))


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "tokenizer.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_artefact_is_refused_by_name(tmp_path: Path, name: str, harm: str) -> None:
    """One changed byte, a missing end or a missing file never reaches the compiler."""
    folder = tmp_path / "model"
    shutil.copytree(SHIPPED, folder)
    path = folder / name
    if harm == "remove":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data if harm == "flip" else data[:-1])

    with pytest.raises(FileMismatch) as caught:
        Embedder.open(folder)
    assert path == caught.value.path


def test_a_folder_without_manifest_was_never_finished(tmp_path: Path) -> None:
    """The manifest is written last, so its absence refuses the folder."""
    with pytest.raises(ManifestInvalid, match=r"manifest\.json: not found"):
        Embedder.open(tmp_path)


def test_a_cache_gives_the_same_bits(tmp_path: Path, shipped: Embedder) -> None:
    """A model compiled from the cache is the model compiled without it."""
    for _ in range(2):
        with Embedder.open(cache_dir=tmp_path / "cache") as embedder:
            assert np.array_equal(shipped.encode(TEXTS), embedder.encode(TEXTS))
    assert any((tmp_path / "cache").rglob("*.compiled"))


def test_the_shipped_manifest_is_complete() -> None:
    """The artefact in the package was measured both ways on STS-B and is within its own gate."""
    raw = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))

    measured = {(drift["lowering"], drift["precision"]) for drift in raw["drift"]}

    assert {("native", "f32"), ("conv", "f32")} <= measured
    assert all({"stsb_dev", "stsb_test"} <= drift["sts"].keys() for drift in raw["drift"])
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) <= 25_000_000
    assert os.fspath(Path.home()) not in json.dumps(raw)
