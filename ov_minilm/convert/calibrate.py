"""NNCF post-training quantization of the packed graph, with the recipe that was best in measurements.

Each activation gets one static range (u8), and weights one scale for each output channel (i8). SmoothQuant
(Xiao et al., 2022) first shifts range from activations to weights. Attention, pooling and L2 normalization
stay in float, because ranges that are measured on short calibration texts would clip long texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ov_minilm.artefact.manifest import Recipe, file_facts
from ov_minilm.convert.outliers import FLOAT_NODE_NAME
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.runtime.tokens import Tokens
from ov_minilm.spec import IntArray

CALIBRATION = Path(__file__).with_name("calibration.txt")
MIN_TEXTS = 100  # fewest texts for calibration; fewer do not contain the extremes of the activations

SMOOTH_QUANT_ALPHA = 0.8
FLOAT_TYPES = ("ScaledDotProductAttention", "NormalizeL2")


def samples(texts: Sequence[str], tokens: Tokens) -> list[dict[str, IntArray]]:
    """Return the graph's inputs for each text: one row [1, T] of its T tokens, without padding."""
    return [
        {
            "input_ids": ids[None],
            "position_ids": np.arange(len(ids), dtype=np.int32)[None],
            "segment_ids": np.ones((1, len(ids)), np.int32),
        }
        for ids, *_ in tokens.windows(texts)
    ]


def recipe(calibration: Path, texts: int, float_channels: int, pair_limit: int) -> Recipe:
    """Record how the artefact is quantized."""
    return Recipe(
        smooth_quant_alpha=SMOOTH_QUANT_ALPHA,
        activation_range="minmax",
        float_channels=float_channels,
        pair_limit=pair_limit,
        calibration=calibration.name,
        calibration_sha256=file_facts(calibration).sha256,
        calibration_texts=texts,
    )


def quantize(model: ov.Model, calibration: Sequence[dict[str, IntArray]]) -> ov.Model:
    """Return a quantized copy: FakeQuantize before every linear layer that is not an outlier branch."""
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    linear = {node.get_friendly_name() for node, _ in linear_layers(model)}
    in_float = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and (node.get_friendly_name() not in linear or FLOAT_NODE_NAME in node.get_friendly_name())
    ]
    quantized: ov.Model = nncf.quantize(
        model.clone(),
        nncf.Dataset(calibration),
        subset_size=len(calibration),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(types=list(FLOAT_TYPES), names=in_float),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTH_QUANT_ALPHA, convolution=-1),
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        ),
    )
    return quantized
