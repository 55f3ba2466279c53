"""Devices, precision, lowering and requests: what is asked for is what runs, or an error says why not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import python

from ov_minilm import DeviceUnavailable, Embedder, FileMismatch, ManifestInvalid, PrecisionUnavailable
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.runtime.plan import Kernels, check_device, choose_long, choose_lowering, choose_precision

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
    """OpenVINO lists a lone GPU without its number, and both names mean it."""
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


@pytest.mark.parametrize(
    ("device", "expected"), [("GPU", "f16"), ("AUTO:GPU,NPU", "f16"), ("AUTO:GPU,CPU", "f32")]
)
def test_other_devices_run_in_their_own_precision(device: str, expected: str) -> None:
    """Auto is f16 on GPU and NPU, but f32 where the CPU may take part."""
    assert expected == choose_precision("auto", Manifest.read(SHIPPED), device, "native", None)


def test_bf16_without_hardware_is_refused() -> None:
    """Emulated BF16 is slower than f32 and is not run by mistake."""
    manifest = Manifest.read(SHIPPED)

    with pytest.raises(PrecisionUnavailable, match="no BF16 arithmetic"):
        choose_precision("bf16", manifest, "CPU", "native", VNNI)


@pytest.mark.parametrize(("kernels", "expected"), [(AMX, "conv"), (VNNI, "native"), (AVX2, "conv")])
def test_lowering_goes_by_the_kernel(kernels: Kernels, expected: str) -> None:
    """A plain GEMM and AMX want the convolution, VNNI keeps the matrix multiplication."""
    assert expected == choose_lowering("auto", Manifest.read(SHIPPED), "CPU", kernels)


def test_auto_precision_needs_hardware_and_a_measurement_within_the_gate() -> None:
    """BF16 is chosen only where it is native, packs well, and its recorded drift passes."""
    manifest = Manifest.read(SHIPPED)
    unmeasured = replace(manifest, drift=tuple(d for d in manifest.drift if d.precision == "f32"))
    bad = tuple(replace(d, overlap={"stsb_dev": 0.5}) for d in manifest.drift)

    def chosen(manifest: Manifest, kernels: Kernels) -> str:
        return choose_precision("auto", manifest, "CPU", "conv", kernels)

    assert ["bf16", "f32", "f32", "f32", "f32"] == [
        chosen(manifest, BF16),
        chosen(manifest, AMX),
        chosen(manifest, VNNI),
        chosen(unmeasured, BF16),
        chosen(replace(manifest, drift=bad), BF16),
    ]


def test_long_texts_run_in_bf16_wherever_it_is_native() -> None:
    """With AMX they alone do; what is asked for explicitly holds for them too; FP32 stays FP32."""
    manifest = Manifest.read(SHIPPED)
    fp32 = replace(manifest, weights="f32", drift=())

    assert ["bf16", "bf16", "f32", "f32", "f32"] == [
        choose_long("auto", "f32", manifest, "conv", AMX),
        choose_long("auto", "bf16", manifest, "conv", BF16),
        choose_long("auto", "f32", manifest, "native", VNNI),
        choose_long("f32", "f32", manifest, "conv", AMX),
        choose_long("auto", "f32", fp32, "native", AMX),
    ]


def test_lowering_an_artefact_that_is_not_int8_is_refused() -> None:
    """lowering="conv" on an FP32 artefact would change nothing, so it is an error."""
    with pytest.raises(ValueError, match="not for f32 on CPU"):
        choose_lowering("conv", replace(Manifest.read(SHIPPED), weights="f32"), "CPU", AVX2)


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
