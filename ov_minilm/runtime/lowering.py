"""Linear layers as 1x1 convolutions, for CPUs on which these are faster than INT8 matrix products.

Without VNNI an INT8 MatMul falls back to a plain GEMM that is slower than FP32, while the INT8 1x1
convolution is vectorised. With AMX both kernels are good, and the convolution is faster. y = x W' over [R, W,
C] is the same sum as a convolution over [1, C, 1, R*W]. With static shapes the reshapes and transposes around
it move no data.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ov_minilm.runtime.backend import ops, ov
from ov_minilm.spec import FloatArray


def linear_layers(model: ov.Model) -> Iterator[tuple[ov.Node, ov.Node]]:
    """Yield each MatMul with a constant weight [O, C], and the constant, in topological order."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            weight = stored(node.input_value(1).get_node())
            if weight.get_type_name() == "Constant" and len(weight.shape) == 2:
                yield node, weight


def lower(model: ov.Model) -> int:
    """Rewrite every INT8 linear layer of a model with static shapes, in place; return their number.

    A layer is INT8 if its input comes from a FakeQuantize. The quantizer remains fused with the operation
    before it, and layers with the same input (query, key, value) share one change of layout.
    """
    layouts: dict[str, ov.Node] = {}
    layers = [
        (node, weight)
        for node, weight in linear_layers(model)
        if _source(node).get_type_name() == "FakeQuantize"
    ]
    for node, weight in layers:
        quantizer = _source(node)
        rows, width, channels = quantizer.output(0).get_shape()
        outputs = weight.shape[0]
        name = quantizer.get_friendly_name()
        if name not in layouts:
            flat = ops.reshape(quantizer, np.array([1, 1, rows * width, channels]), special_zero=False)
            layouts[name] = ops.transpose(flat, np.array([0, 3, 1, 2]))
        kernel = _as_kernel(node.input_value(1).get_node(), outputs, channels)
        result = ops.convolution(layouts[name], kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        result.set_friendly_name(node.get_friendly_name())  # profiles show layers by name
        last, bias = _bias(node)
        if bias is not None:
            result = ops.add(result, ops.constant(bias.reshape(1, outputs, 1, 1)))
        result = ops.transpose(result, np.array([0, 2, 3, 1]))
        result = ops.reshape(result, np.array([rows, width, outputs]), special_zero=False)
        for reader in list(last.output(0).get_target_inputs()):
            reader.replace_source_output(result.output(0))
    model.validate_nodes_and_infer_types()
    return len(layers)


def write_out_attention(model: ov.Model) -> int:
    """Rewrite every attention node as softmax(Q K' / sqrt(d) + mask) V, in place; return their number.

    OpenVINO fuses these operations into one kernel without changes of layout: this takes 1 to 8 % less time,
    and FP32 vectors have the same bits. BF16 vectors would be rounded differently.
    """
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"]
    for node in nodes:
        query, key, value, mask = (node.input_value(index) for index in range(4))
        scale = np.float32(int(query.get_partial_shape()[3].get_length()) ** -0.5)
        scores = ops.add(ops.multiply(ops.matmul(query, key, False, True), scale), mask)
        result = ops.matmul(ops.softmax(scores, 3), value, False, False)
        for reader in list(node.output(0).get_target_inputs()):
            reader.replace_source_output(result.output(0))
    model.validate_nodes_and_infer_types()
    return len(nodes)


def _source(matmul: ov.Node) -> ov.Node:
    return matmul.input_value(0).get_node()


def stored(node: ov.Node) -> ov.Node:
    """Return the node that stores a value, before its dequantization or its conversion from FP16."""
    while node.get_type_name() in ("FakeQuantize", "Convert", "Multiply", "Subtract"):
        node = node.input_value(0).get_node()
    return node


def _as_kernel(node: ov.Node, outputs: int, channels: int) -> ov.Node:
    """Rebuild constant -> Convert -> Multiply with the weight as [O, C, 1, 1]."""
    kind = node.get_type_name()
    if kind == "Constant":
        whole = node.data.size == outputs * channels
        shape = np.array((outputs, channels, 1, 1) if whole else (-1, 1, 1, 1))
        # a reshape is a view of the weights; a new constant would be a copy
        return ops.reshape(node, shape, special_zero=False)
    first = _as_kernel(node.input_value(0).get_node(), outputs, channels)
    if kind == "Convert":
        return ops.convert(first, "f32")
    combine = {"Multiply": ops.multiply, "Subtract": ops.subtract}[kind]
    return combine(first, _as_kernel(node.input_value(1).get_node(), outputs, channels))


def _bias(matmul: ov.Node) -> tuple[ov.Node, FloatArray | None]:
    """Return the last node of a linear layer, and its bias [O]; None if it adds no constant."""
    readers = list(matmul.output(0).get_target_inputs())
    if len(readers) == 1 and readers[0].get_node().get_type_name() == "Add":
        add = readers[0].get_node()
        other = add.input_value(1 - readers[0].get_index()).get_node()
        if other.get_type_name() == "Constant":
            return add, other.data.astype(np.float32)
    return matmul, None
