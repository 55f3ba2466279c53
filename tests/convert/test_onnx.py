"""Weights are read from an ONNX graph bit for bit, or the graph is refused with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.checkpoints import KINDS

from ov_minilm import SourceRefused
from ov_minilm.artefact.manifest import file_facts
from ov_minilm.convert.onnx import tensors
from ov_minilm.convert.source import find

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[convert,dev]'")
safetensors = pytest.importorskip("safetensors.numpy", reason="the convert extra is not installed")
pytestmark = pytest.mark.convert

LINEAR = "model.encoder.layer.0.attention.self.query.bias"  # the encoder is the submodule named "model"
KEY_BIAS = LINEAR.replace("query", "key")
KIND = KINDS["Xenova"]


@pytest.fixture
def exported(converted: Callable[[str], Path]) -> Path:
    """A small checkpoint and its ONNX graphs, one as for Transformers.js, one with unfolded transposes."""
    return converted("Xenova")


def test_the_tensors_of_a_graph_are_those_of_the_checkpoint(exported: Path) -> None:
    """Names, shapes and bits are equal, also for a graph whose transposes were not folded."""
    expected = safetensors.load_file(exported / "checkpoint/model.safetensors")

    for graph in ("onnx-checkpoint/onnx/model.onnx", "unfolded.onnx"):
        actual = tensors(exported / graph, KIND.layers)

        assert expected.keys() == actual.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(tensor, actual[name], strict=True)


def test_the_layout_of_transformers_js_is_a_source(exported: Path) -> None:
    """A folder with only ONNX needs --pooling; if a file names the pooling, another value is refused."""
    graph = exported / "onnx-checkpoint/onnx/model.onnx"
    sha256 = file_facts(graph).sha256
    official = file_facts(exported / "checkpoint/model.safetensors").sha256

    checkpoint = find(str(exported / "onnx-checkpoint"), None, sha256, "cls")

    assert (graph, sha256) == (checkpoint.onnx, checkpoint.source.weights_sha256)
    assert ("cls", 512) == (checkpoint.spec.pooling, checkpoint.spec.max_tokens)
    with pytest.raises(SourceRefused, match="pass --pooling mean or --pooling cls"):
        find(str(exported / "onnx-checkpoint"), None, sha256)
    with pytest.raises(SourceRefused, match="pooling is cls, but --pooling says mean"):
        find(str(exported / "checkpoint"), None, official, "mean")


def replace_input(graph: Any, old: str, new: str) -> None:
    """Let every node that reads the tensor `old` read the tensor `new`."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def store_as_fp16(graph: Any) -> None:
    """Store the word embeddings as FP16 with a Cast, as converters for browsers do."""
    (tensor,) = (t for t in graph.initializer if t.name == "model.embeddings.word_embeddings.weight")
    values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    replace_input(graph, tensor.name, "as_fp32")
    graph.node.insert(0, onnx.helper.make_node("Cast", [tensor.name], ["as_fp32"], to=onnx.TensorProto.FLOAT))


def rename_bias(graph: Any) -> None:
    """Give a bias another name, as an optimizer does that fuses layers."""
    (tensor,) = (t for t in graph.initializer if t.name == LINEAR)
    tensor.name = "fused_17"
    replace_input(graph, LINEAR, "fused_17")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (store_as_fp16, "word_embeddings.weight is f16; only FP32 weights are converted"),
        (rename_bias, f"no tensor {LINEAR}; export the model in plain FP32"),
        (
            lambda graph: replace_input(graph, KEY_BIAS, LINEAR),
            f"{LINEAR} is not the bias of exactly one matrix product",
        ),
    ],
)
def test_a_changed_graph_is_refused(
    exported: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    """The error names the tensor that is FP16 or part of a fused layer."""
    model = onnx.load(exported / "onnx-checkpoint/onnx/model.onnx")
    change(model.graph)
    onnx.save(model, tmp_path / "model.onnx")

    with pytest.raises(SourceRefused, match=message):
        tensors(tmp_path / "model.onnx", KIND.layers)


def test_an_unreadable_or_incomplete_graph_is_refused(tmp_path: Path) -> None:
    """The error has OpenVINO's reason in one line; weights in another file, without a hash, are refused."""
    (tmp_path / "model.onnx").write_bytes(b"no graph")

    with pytest.raises(SourceRefused, match=r"model\.onnx: OpenVINO cannot read it: .") as caught:
        tensors(tmp_path / "model.onnx", 2)

    assert "\n" not in str(caught.value)
    (tmp_path / "model.onnx_data").write_bytes(b"weights")
    with pytest.raises(SourceRefused, match=r"its weights are in another file, model\.onnx_data"):
        find(str(tmp_path), None, None)
