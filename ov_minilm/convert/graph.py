"""The packed FP32 graph of a BERT sentence encoder, built from its weights.

input_ids, position_ids, segment_ids (int32, [R, W]) -> unit vectors [R, S, D].

Texts that share a row are separated by the mask (segment == segment); each starts at position 0. Pooling is a
sum over the tokens of a text. After L2 normalization the sum equals mean pooling, because the number of
tokens cancels. For "cls" pooling the sum has only the first token.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ov_minilm.runtime.backend import ops, ov
from ov_minilm.spec import SLOTS, FloatArray, ModelSpec

# finite, because calibration would fail with -inf; its exp() still underflows to 0 in float32
MASK_BIAS = -1e4
EPSILON = 1e-12  # the divisor is max(norm, epsilon), as in torch.nn.functional.normalize

_AUTOMATIC_NAME = re.compile(r"^[A-Za-z0-9]+_\d+(?:_\d+)*(?=$|/)")  # Gelu_104901, Gelu_104901_0_0/nncf_…


def pack(weights: Mapping[str, FloatArray], spec: ModelSpec, epsilon: float) -> ov.Model:
    """Return the graph, with shapes that are dynamic in R and W.

    Args:
        weights: the tensors of a checkpoint, in FP32, with the names of transformers.
        spec: numbers of layers and heads, and the pooling.
        epsilon: the epsilon of the LayerNorms.
    """
    ids, positions, segments = map(_input, ("input_ids", "position_ids", "segment_ids"))
    encoder = _Encoder(weights, spec, epsilon)
    same = ops.equal(ops.unsqueeze(segments, np.int32(2)), ops.unsqueeze(segments, np.int32(1)))
    mask = ops.unsqueeze(ops.select(same, np.float32(0), np.float32(MASK_BIAS)), np.int32(1))
    hidden = encoder.embed(ids, positions)
    for layer in range(spec.layers):
        hidden = encoder.layer(hidden, mask, f"encoder.layer.{layer}")

    slots = ops.constant(np.arange(1, SLOTS + 1, dtype=np.int32).reshape(1, -1, 1))
    pooled_segments = segments
    if spec.pooling == "cls":
        first = ops.equal(positions, np.int32(0))
        pooled_segments = ops.select(first, segments, np.int32(0))
    owner = ops.convert(ops.equal(ops.unsqueeze(pooled_segments, np.int32(1)), slots), "f32")
    pooled = ops.matmul(owner, hidden, False, False)
    vectors = ops.normalize_l2(pooled, np.array([-1], np.int64), EPSILON, "max")
    vectors.output(0).set_names({"embeddings"})
    return ov.Model([vectors.output(0)], [ids, positions, segments], "packed")


def save(model: ov.Model, path: Path) -> None:
    """Write the graph so that equal graphs give equal bytes: names with counters are renumbered.

    Raises:
        OSError: the files could not be written completely.
    """
    counts: Counter[str] = Counter()
    renamed: dict[str, str] = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        automatic = _AUTOMATIC_NAME.match(name)
        if automatic:
            kind = node.get_type_name() if automatic.end() == len(name) else automatic[0].split("_", 1)[0]
            if automatic[0] not in renamed:
                renamed[automatic[0]] = f"{kind}_{counts[kind]}"
                counts[kind] += 1
            node.set_friendly_name(renamed[automatic[0]] + name[automatic.end() :])
    # A new Model has no rt_info (options and local settings); the manifest records the important options.
    clean = ov.Model(model.outputs, model.get_parameters(), model.get_friendly_name())
    try:
        # The path is passed as str: an interrupt while OpenVINO converts a Path would look like a failure to
        # write.
        ov.save_model(clean, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"{path.parent} could not be written, the disk may be full ({error})") from error


class _Encoder:
    """Creates the nodes of each part, named like the tensors of the checkpoint."""

    def __init__(self, weights: Mapping[str, FloatArray], spec: ModelSpec, epsilon: float) -> None:
        self._weights = weights
        self._spec = spec
        self._epsilon = epsilon
        # One node for all layers: with a node in each layer, OpenVINO 2026.4 rounds BF16 attention
        # differently.
        self._scale = ops.constant(np.float32((spec.dim // spec.heads) ** -0.5))

    def embed(self, ids: ov.Node, positions: ov.Node) -> ov.Node:  # [R, W] -> [R, W, D]
        words = self._look_up("embeddings.word_embeddings", ids)
        # Inputs are single sentences, never pairs, so every token has type 0.
        first_type = ops.constant(np.zeros((1, 1), np.int32))
        types = self._look_up("embeddings.token_type_embeddings", first_type)
        places = self._look_up("embeddings.position_embeddings", positions)
        return self._norm(ops.add(ops.add(words, types), places), "embeddings.LayerNorm")

    def layer(self, x: ov.Node, mask: ov.Node, name: str) -> ov.Node:  # [R, W, D] -> [R, W, D]
        attended = self._linear(self._attention(x, mask, name), f"{name}.attention.output.dense")
        x = self._norm(ops.add(attended, x), f"{name}.attention.output.LayerNorm")
        inner = ops.gelu(self._linear(x, f"{name}.intermediate.dense"), "erf")
        outer = self._linear(inner, f"{name}.output.dense")
        return self._norm(ops.add(outer, x), f"{name}.output.LayerNorm")

    def _attention(self, x: ov.Node, mask: ov.Node, name: str) -> ov.Node:
        spec, size = self._spec, self._spec.dim // self._spec.heads
        order = np.array([0, 2, 1, 3], np.int32)  # [R, W, heads, size] <-> [R, heads, W, size]
        query, key, value = (
            ops.transpose(
                ops.reshape(
                    self._linear(x, f"{name}.attention.self.{part}"),
                    np.array([0, 0, spec.heads, size]),
                    special_zero=True,
                ),
                order,
            )
            for part in ("query", "key", "value")
        )
        mixed = ops.scaled_dot_product_attention(query, key, value, mask, self._scale, causal=False)
        return ops.reshape(ops.transpose(mixed, order), np.array([0, 0, spec.dim]), special_zero=True)

    def _linear(self, x: ov.Node, name: str) -> ov.Node:
        product = ops.matmul(x, self._constant(f"{name}.weight"), False, True)
        product.set_friendly_name(name)
        return ops.add(product, self._row(f"{name}.bias"))

    def _norm(self, x: ov.Node, name: str) -> ov.Node:
        scaled = ops.mvn(x, np.array([-1], np.int32), True, self._epsilon, "inside_sqrt")
        return ops.add(ops.multiply(scaled, self._row(f"{name}.weight")), self._row(f"{name}.bias"))

    def _look_up(self, name: str, ids: ov.Node) -> ov.Node:
        rows = ops.gather(self._constant(f"{name}.weight"), ids, np.int32(0))
        rows.set_friendly_name(name)
        return rows

    def _constant(self, name: str) -> ov.Node:
        node = ops.constant(self._weights[name], ov.Type.f32)
        node.set_friendly_name(name)
        return node

    def _row(self, name: str) -> ov.Node:  # [D] -> [1, 1, D]
        return ops.constant(self._weights[name].reshape(1, 1, -1), ov.Type.f32)


def _input(name: str) -> ov.Node:
    parameter = ops.parameter([-1, -1], ov.Type.i32, name=name)
    parameter.output(0).set_names({name})
    return parameter
