"""Scales of INT8 weights: safe from saturation in linear layers, exact in BF16 for embedding tables.

AVX2 kernels add two neighbouring u8 x i8 products in int16 (vpmaddubsw), where the sum may saturate. If no
two neighbouring weights (2k, 2k+1) of one sign sum to more than 128, the sum stays under 255 * 128 < 2**15.
NNCF's own remedy, 7-bit weights in all layers, doubles the error, although most channels do not need it.

If float layers run in BF16, a row of an embedding table is multiplied by its scale in BF16. A scale with more
than BF16's eight bits would be rounded, and every value of the row would change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ov_minilm.runtime.backend import ops, ov
from ov_minilm.runtime.lowering import linear_layers, stored
from ov_minilm.runtime.weights import is_compressed

PAIR_LIMIT = 128
LEVELS = 127


def pair_safe(
    W: NDArray[np.float64], limit: int = PAIR_LIMIT
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize weights [O, C], C even, to int8 [O, C] and scales [O, 1] so that pairs keep the limit.

    The scale of an output channel is the smallest that keeps both its largest weight within 127 and its
    largest pair of one sign within the limit; a pair that exceeds the limit after rounding is reduced.
    """
    if W.shape[1] % 2:
        raise ValueError(f"{W.shape[1]} input channels; pairs need an even number")
    positive, negative = np.maximum(W, 0), np.maximum(-W, 0)
    pairs = np.maximum(_pair_sums(positive), _pair_sums(negative)).max(1)
    scale = np.maximum(pairs / limit, np.abs(W).max(1) / LEVELS)
    scale[scale == 0] = 1  # all weights of a channel are zero if outliers.py has moved it
    q = np.rint(W / scale[:, None])
    for sign in (1, -1):
        signed = np.maximum(sign * q, 0)
        row, pair = np.nonzero(_pair_sums(signed) > limit)
        excess = _pair_sums(signed)[row, pair] - limit
        larger = np.where(signed[row, 2 * pair] >= signed[row, 2 * pair + 1], 2 * pair, 2 * pair + 1)
        q[row, larger] -= sign * excess
    return q.astype(np.int8), scale[:, None].astype(np.float32)


def apply(quantized: ov.Model, source: ov.Model) -> int:
    """Give every INT8 linear layer pair-safe weights, in place; return the number of layers.

    The weights are those of the FP32 source, divided by SmoothQuant's factors, which are the constant of the
    Multiply before the activation's quantizer.
    """
    weights = {
        node.get_friendly_name(): weight.data.astype(np.float64) for node, weight in linear_layers(source)
    }
    count = 0
    for node, _ in list(linear_layers(quantized)):
        quantizer = node.input_value(0).get_node()
        if quantizer.get_type_name() != "FakeQuantize":
            continue
        W = weights[node.get_friendly_name()]
        smooth = quantizer.input_value(0).get_node()
        if (
            smooth.get_type_name() == "Multiply"
            and smooth.input_value(1).get_node().get_type_name() == "Constant"
        ):
            W = W / smooth.input_value(1).get_node().data.reshape(-1)
        q, scale = pair_safe(W)
        dequantized = ops.multiply(ops.convert(ops.constant(q), "f32"), ops.constant(scale))
        node.input(1).replace_source_output(dequantized.output(0))
        count += 1
    return count


def exact_in_bf16(
    W: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantize a table [V, D] to int8 [V, D] and scales [V, 1], rounded up to BF16."""
    scale = np.abs(W).max(1, keepdims=True) / np.float32(LEVELS)
    scale[scale == 0] = 1
    bits = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    scale = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.rint(W / scale).astype(np.int8), scale


def apply_to_tables(quantized: ov.Model, source: ov.Model) -> int:
    """Give every INT8 embedding table scales exact in BF16, in place; return the number of tables."""
    tables = {
        node.get_friendly_name(): stored(node.input_value(0).get_node())
        for node in source.get_ordered_ops()
        if node.get_type_name() == "Gather"
    }
    lookups = [node for node in quantized.get_ordered_ops() if is_compressed(node)]
    for lookup in lookups:
        q, scale = exact_in_bf16(tables[lookup.get_friendly_name()].data.astype(np.float32))
        dequantized = ops.multiply(ops.convert(ops.constant(q), "f32"), ops.constant(scale))
        lookup.input(0).replace_source_output(dequantized.output(0))
    return len(lookups)


def _pair_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = values[:, 0::2] + values[:, 1::2]
    return sums
