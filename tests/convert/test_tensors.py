"""Weights of every supported dtype are read as FP32; other files are refused."""

from functools import reduce
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import WORDS, Kind, draw, save
from support.processes import python

from ov_minilm import SourceRefused
from ov_minilm.convert.tensors import check, read
from ov_minilm.spec import ModelSpec

pytest.importorskip("safetensors", reason="the convert extra is not installed")
NO_TORCH = find_spec("torch") is None  # not imported here, because that takes seconds
pytestmark = [pytest.mark.convert, pytest.mark.skipif(NO_TORCH, reason="the convert extra is not installed")]

FP8 = b'{"a.weight": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}'
TENSORS = draw(Kind(layers=1))


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 2**-11), ("bfloat16", 2**-7)])
def test_weights_are_read_as_fp32(tmp_path: Path, dtype: str, error: float) -> None:
    """FP32 exactly, FP16 and BF16 to their own precision; the prefix bert. and gamma and beta are renamed."""
    save(TENSORS, tmp_path / "model.safetensors", dtype)
    renamed = [("Norm.weight", "Norm.gamma"), ("Norm.bias", "Norm.beta")]  # TensorFlow calls these weights so
    old = {"bert." + reduce(lambda n, r: n.replace(*r), renamed, name): t for name, t in TENSORS.items()}
    save(old, tmp_path / "old.safetensors", dtype)

    actual = read([tmp_path / "model.safetensors"])

    assert TENSORS.keys() == actual.keys() == read([tmp_path / "old.safetensors"]).keys()
    for name, tensor in TENSORS.items():
        assert np.float32 == actual[name].dtype
        np.testing.assert_allclose(actual[name], tensor, rtol=error, atol=2**-24 if error else 0)


def test_a_pickle_never_runs_code(tmp_path: Path) -> None:
    """A file of torch.save gives the same tensors; one that would run code is refused."""
    save(TENSORS, tmp_path / "model.safetensors")
    result = python(
        "import os, pathlib, sys, numpy as np, torch\n"
        "from ov_minilm.convert.tensors import read\n"
        "from ov_minilm.errors import SourceRefused\n"
        f"folder = pathlib.Path({str(tmp_path)!r}); whole = read([folder / 'model.safetensors'])\n"
        "path = folder / 'pytorch_model.bin'\n"
        "torch.save({name: torch.tensor(tensor) for name, tensor in whole.items()}, path)\n"
        "found = read([path])\n"
        "print(found.keys() == whole.keys(), all(np.array_equal(found[n], whole[n]) for n in whole))\n"
        "class Evil:\n"
        "    def __reduce__(self): return os.system, ('touch ' + str(folder / 'ran'),)\n"
        "for content in (lambda: torch.save({'a': Evil()}, path), lambda: path.write_bytes(b'no pickle')):\n"
        "    content()\n"
        "    try: read([path])\n"
        "    except SourceRefused as error:\n"
        "        print(str(error).count(chr(10)), 'save it as safetensors' in str(error))"
    )

    assert "True True\n0 True\n0 True\n" == result.stdout, result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model.safetensors: "),
        (b"{}", "model.safetensors: "),
        (
            len(FP8).to_bytes(8, "little") + FP8 + b"ab",
            "a.weight is F8_E4M3; only FP32, FP16 and BF16 weights",
        ),
    ],
    ids=["empty", "no header", "FP8"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """The error has the file, and the tensor with an unsupported dtype."""
    (tmp_path / "model.safetensors").write_bytes(content)

    with pytest.raises(SourceRefused, match=message):
        read([tmp_path / "model.safetensors"])


def test_values_that_cannot_be_weights_are_refused(tmp_path: Path) -> None:
    """A tensor with NaN, or in two files of the same model, is refused."""
    file = tmp_path / "model.safetensors"
    name = "encoder.layer.0.output.dense.bias"
    spec = ModelSpec("small", 48, 128, len(WORDS), 1, 4, 144, "mean", {})
    check(file, TENSORS, spec)

    with pytest.raises(SourceRefused, match=f"{name} has NaN or infinite values"):
        check(file, TENSORS | {name: TENSORS[name] * np.float32("nan")}, spec)
    save(TENSORS, file)
    with pytest.raises(SourceRefused, match="occurs twice in the checkpoint"):
        read([file, file])
