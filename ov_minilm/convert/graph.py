"""optimum-intel's export becomes the packed graph.

Before: input_ids, attention_mask, token_type_ids -> hidden states of every token.
After:  input_ids, position_ids, segment_ids (int32, [R, W]) -> unit vectors [R, S, D].

Texts that share a row are kept apart by the mask (segment == segment) and start at position 0 each.
A sum over a text's tokens followed by L2 normalisation is mean pooling followed by L2 normalisation; a sum
over its first token alone is what the "cls" pooling of others takes.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from ov_minilm.runtime.backend import ops, ov
from ov_minilm.spec import SLOTS, ModelSpec

MASK_BIAS = -1e4  # finite: INT8 calibration must not see -inf; exp() underflows to 0 in float32 all the same
EPSILON = 1e-12  # torch.nn.functional.normalize's, under "max"

_AUTOMATIC_NAME = re.compile(r"^[A-Za-z0-9]+_\d+(?:_\d+)*(?=$|/)")  # Gelu_104901, Gelu_104901_0_0/nncf_…


def export(folder: Path) -> ov.Model:
    """Export the checkpoint to an FP32 graph of dynamic shape."""
    from optimum.intel import OVModelForFeatureExtraction

    exported = OVModelForFeatureExtraction.from_pretrained(
        folder, export=True, compile=False, local_files_only=True, load_in_8bit=False
    )
    model: ov.Model = exported.model
    return model


def pack(exported: ov.Model, spec: ModelSpec) -> ov.Model:
    """Return the packed graph; the export is used up."""
    ids, positions, segments = (
        ops.parameter([-1, -1], ov.Type.i32, name=name)
        for name in ("input_ids", "position_ids", "segment_ids")
    )
    for parameter in (ids, positions, segments):
        parameter.output(0).set_names({parameter.get_friendly_name()})

    old_ids = next(p for p in exported.get_parameters() if "input_ids" in p.output(0).names)
    _replace(old_ids, ids)
    _gather(exported, "position_embeddings").input(1).replace_source_output(positions.output(0))
    # One sentence, never a pair: every token is of type 0, whatever the shape of the batch.
    first_type = ops.constant(np.zeros((1, 1), np.int32))
    _gather(exported, "token_type_embeddings").input(1).replace_source_output(first_type.output(0))

    same = ops.equal(ops.unsqueeze(segments, np.int32(2)), ops.unsqueeze(segments, np.int32(1)))
    mask = ops.unsqueeze(ops.select(same, np.float32(0), np.float32(MASK_BIAS)), np.int32(1))
    attentions = [
        node for node in exported.get_ordered_ops() if node.get_type_name() == "ScaledDotProductAttention"
    ]
    if len(attentions) != spec.layers:
        raise RuntimeError(f"the export has {len(attentions)} attention nodes, expected {spec.layers}")
    for attention in attentions:
        attention.input(3).replace_source_output(mask.output(0))

    hidden = exported.get_results()[0].input_value(0)
    slots = ops.constant(np.arange(1, SLOTS + 1, dtype=np.int32).reshape(1, -1, 1))
    pooled_segments = segments
    if spec.pooling == "cls":
        first = ops.equal(positions, np.int32(0))
        pooled_segments = ops.select(first, segments, np.int32(0))
    owner = ops.convert(ops.equal(ops.unsqueeze(pooled_segments, np.int32(1)), slots), "f32")
    pooled = ops.matmul(owner, hidden, False, False)
    pooled.set_friendly_name("pooling")
    vectors = ops.normalize_l2(pooled, np.array([-1], np.int64), EPSILON, "max")
    vectors.set_friendly_name("normalize")
    vectors.output(0).set_names({"embeddings"})
    return ov.Model([vectors.output(0)], [ids, positions, segments], "packed")


def save(model: ov.Model, path: Path) -> None:
    """Write the IR so that equal graphs give equal bytes: names that count up in a process are renumbered.

    Raises:
        OSError: the files could not be written whole.
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
    # A new Model leaves behind rt_info: option dumps and local settings that the manifest says better.
    clean = ov.Model(model.outputs, model.get_parameters(), model.get_friendly_name())
    try:
        ov.save_model(clean, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"{path.parent} could not be written, the disk may be full ({error})") from error


def _gather(model: ov.Model, table: str) -> ov.Node:
    """Find the one lookup into an embedding table."""
    found = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Gather" and table in node.get_friendly_name()
    ]
    if len(found) != 1:
        raise RuntimeError(f"the export has {len(found)} lookups into {table}, expected 1")
    return found[0]


def _replace(old: ov.Node, new: ov.Node) -> None:
    for reader in list(old.output(0).get_target_inputs()):
        reader.replace_source_output(new.output(0))
