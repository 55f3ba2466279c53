"""Reads the weights of a BERT model exported to ONNX, with the names of the original checkpoint.

Exporters keep the names of embeddings, biases and LayerNorms, but store the weights of linear layers
transposed and without names. Each weight is found through its bias: MatMul(x, W) + b. The packed graph is
later checked against the ONNX graph, which would detect a wrong match.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ov_minilm.convert.tensors import linear, norms, tables
from ov_minilm.errors import SourceRefused
from ov_minilm.runtime.backend import ov
from ov_minilm.spec import FloatArray


def tensors(path: Path, layers: int) -> dict[str, FloatArray]:
    """Return every tensor of the encoder in the graph, with the names and layout of transformers."""
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SourceRefused(f"{path}: OpenVINO cannot read it: {reason}") from error
    constants = {
        name: node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant"
        for name in node.output(0).names
    }
    suffix = f"{tables()[0]}.weight"
    prefix = next((name.removesuffix(suffix) for name in constants if name.endswith(suffix)), "")

    def named(name: str) -> ov.Node:
        if prefix + name not in constants:
            raise SourceRefused(
                f"{path}: no tensor {prefix}{name}; export the model in plain FP32, which keeps the names"
            )
        return constants[prefix + name]

    tensors = {}
    for name in tables():
        tensors[f"{name}.weight"] = _values(path, named(f"{name}.weight"))
    for name in norms(layers):
        for part in ("weight", "bias"):
            tensors[f"{name}.{part}"] = _values(path, named(f"{name}.{part}"))
    for name in linear(layers):
        bias = named(f"{name}.bias")
        tensors[f"{name}.bias"] = _values(path, bias)
        tensors[f"{name}.weight"] = _weight_beside(path, bias)
    return tensors


def _weight_beside(path: Path, bias: ov.Node) -> FloatArray:
    """Return the weight [O, C] of the only linear layer that adds this bias [O]."""
    name = bias.get_friendly_name()
    readers = [
        reader.get_node().input_value(1 - reader.get_index()).get_node()
        for reader in bias.output(0).get_target_inputs()
    ]
    if [node.get_type_name() for node in readers] != ["MatMul"]:
        raise SourceRefused(
            f"{path}: {name} is not the bias of exactly one matrix product; export the model without fusions"
        )
    weight = readers[0].input_value(1).get_node()
    rows_are_outputs = readers[0].get_attributes()["transpose_b"]
    if weight.get_type_name() == "Transpose":
        weight, rows_are_outputs = weight.input_value(0).get_node(), not rows_are_outputs
    if weight.get_type_name() != "Constant":
        raise SourceRefused(
            f"{path}: the weight that belongs to {name} is not a constant ({weight.get_type_name()})"
        )
    values = _values(path, weight)
    return values if rows_are_outputs else np.ascontiguousarray(values.T)


def _values(path: Path, node: ov.Node) -> FloatArray:
    if node.get_element_type() != ov.Type.f32:
        kind = node.get_element_type().get_type_name()
        raise SourceRefused(f"{path}: {node.get_friendly_name()} is {kind}; only FP32 weights are converted")
    return np.array(node.data)
