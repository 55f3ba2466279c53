"""Keeps outlier channels of the feed-forward layers in float, so that they do not widen the INT8 range.

In four of six layers, one or two of the 1,536 GELU outputs reach values of 14 to 25, all others stay below 6,
and one static range must hold all. An outlier channel c can be computed exactly, outside the INT8 product:

    down(gelu(up(x))) = down'(gelu(up'(x))) + gelu(x up_c' + b_c) down_c'

where up' and down' have zeros for channel c. Only the product with down_c stays in float, one multiplication
by a vector in each layer; the product with up_c is quantized like any linear layer. The idea of a float path
for outlier channels comes from Dettmers et al., "LLM.int8()", 2022, who choose the channels at run time; here
they are chosen by the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.spec import FloatArray, IntArray

OUTLIER_RATIO = 2.0  # a channel is an outlier if its peak is over this many times the PERCENTILE of its layer
PERCENTILE = 99.5  # which percentile of the peaks of a layer's channels
# part of the names of nodes that stay in float; calibrate.py does not quantize them
FLOAT_NODE_NAME = "outliers_down"


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The nodes of one layer's down(gelu(up(x) + b)) + d."""

    up: ov.Node
    up_bias: ov.Node
    gelu: ov.Node
    down: ov.Node
    down_bias: ov.Node


def feed_forwards(model: ov.Model) -> list[FeedForward]:
    """Return the feed-forward layers in order; each is a linear layer after a GELU."""
    layers = []
    for down, _ in linear_layers(model):
        gelu = down.input_value(0).get_node()
        if gelu.get_type_name() == "Gelu":
            up_bias = gelu.input_value(0).get_node()
            up = up_bias.input_value(0).get_node()
            down_bias = next(iter(down.output(0).get_target_inputs())).get_node()
            kinds = (up.get_type_name(), up_bias.get_type_name(), down_bias.get_type_name())
            if kinds != ("MatMul", "Add", "Add"):
                raise RuntimeError(f"a feed-forward layer is {kinds}, expected MatMul, Add and Add")
            layers.append(FeedForward(up, up_bias, gelu, down, down_bias))
    return layers


def peaks(model: ov.Model, samples: Iterable[Mapping[str, IntArray]]) -> list[FloatArray]:
    """Return the largest |GELU output| of every channel over the samples: one [I] for each layer."""
    probe = model.clone()
    outputs = [
        ops.reduce_max(ops.abs(layer.gelu.output(0)), np.array([0, 1], np.int64)).output(0)
        for layer in feed_forwards(probe)
    ]
    compiled = ov.compile_model(
        ov.Model(outputs, probe.get_parameters(), "peaks"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    largest = [
        np.zeros(output.get_partial_shape()[0].get_length(), np.float32) for output in compiled.outputs
    ]
    for sample in samples:
        request.infer(sample)
        for index, peak in enumerate(largest):
            np.maximum(peak, request.get_output_tensor(index).data, out=peak)
    return largest


def select(peak: FloatArray) -> NDArray[np.int64]:
    """Return the channels [k] of one layer whose peaks are far above all others; often there are none."""
    channels: NDArray[np.int64] = np.flatnonzero(peak > OUTLIER_RATIO * np.percentile(peak, PERCENTILE))
    return channels


def split(model: ov.Model, channels: list[NDArray[np.int64]]) -> None:
    """Move channels of each layer from its linear layers into a parallel float branch, in place."""
    for number, (layer, chosen) in enumerate(zip(feed_forwards(model), channels, strict=True)):
        if not len(chosen):
            continue
        up, up_bias, down = (
            _constant(layer.up, 1),
            _constant(layer.up_bias, 1),
            _constant(layer.down, 1),
        )
        hidden = ops.matmul(layer.up.input_value(0), ops.constant(up[chosen]), False, True)
        hidden.set_friendly_name(f"outliers_up_layer{number}")
        hidden = ops.add(hidden, ops.constant(up_bias.reshape(-1)[chosen].reshape(1, 1, -1)))
        hidden = ops.gelu(hidden, layer.gelu.get_attributes()["approximation_mode"])
        branch = ops.matmul(hidden, ops.constant(np.ascontiguousarray(down[:, chosen])), False, True)
        branch.set_friendly_name(f"{FLOAT_NODE_NAME}_layer{number}")

        up[chosen] = 0
        up_bias.reshape(-1)[chosen] = 0
        down[:, chosen] = 0
        for node, value in ((layer.up, up), (layer.up_bias, up_bias), (layer.down, down)):
            node.input(1).replace_source_output(ops.constant(value).output(0))
        readers = list(layer.down_bias.output(0).get_target_inputs())
        whole = ops.add(layer.down_bias.output(0), branch.output(0))
        for reader in readers:
            reader.replace_source_output(whole.output(0))
    model.validate_nodes_and_infer_types()


def _constant(node: ov.Node, index: int) -> FloatArray:
    """Return a copy of a constant input, looking through conversions."""
    source = node.input_value(index).get_node()
    while source.get_type_name() == "Convert":
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Constant":
        raise RuntimeError(f"{node.get_friendly_name()}: input {index} is {source.get_type_name()}")
    return np.array(source.data, np.float32)
