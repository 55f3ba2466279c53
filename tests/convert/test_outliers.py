"""Outlier channels: which channels are selected, and that a float branch for them changes no result."""

from pathlib import Path

import numpy as np
import pytest

from ov_minilm.convert import outliers
from ov_minilm.runtime.backend import ov
from ov_minilm.spec import FloatArray, IntArray

SAMPLE: dict[str, IntArray] = {
    "input_ids": np.array([[101, 2035, 3556, 5282, 102]], np.int32),
    "position_ids": np.arange(5, dtype=np.int32)[None],
    "segment_ids": np.ones((1, 5), np.int32),
}


def vectors(model: ov.Model) -> FloatArray:
    """Run SAMPLE in FP32."""
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    output: FloatArray = compiled(SAMPLE)[0]
    return output[0, :1]


def test_channels_far_above_the_others_are_selected() -> None:
    """An outlier is above twice the 99.5th percentile of the peaks; a layer may have no outlier."""
    peak = np.linspace(1, 6, 1536, dtype=np.float32)
    assert [] == outliers.select(peak).tolist()

    peak[[7, 900]] = 14, 25
    assert [7, 900] == outliers.select(peak).tolist()


@pytest.mark.convert
def test_outliers_of_the_model_are_found_and_moved(built: Path) -> None:
    """One channel of the first layer has by far the largest peak; a float branch keeps the vectors."""
    plain = ov.Core().read_model(built / "fp32/model.xml")
    rescaled = plain.clone()

    peaks = outliers.peaks(plain, [SAMPLE])
    outliers.split(rescaled, [np.array([3, 856])] * 6)

    assert [(1536,)] * 6 == [peak.shape for peak in peaks]
    assert 856 == int(peaks[0].argmax())
    assert peaks[0].max() > 10
    left = [peak for peak in outliers.peaks(rescaled, [SAMPLE]) if len(peak) == 1536]
    assert [(0, 0)] * 6 == [(peak[3], peak[856]) for peak in left]  # zeros do not widen the range
    assert 12 == sum("outliers" in node.get_friendly_name() for node in rescaled.get_ordered_ops())
    np.testing.assert_allclose(vectors(rescaled), vectors(plain), atol=1e-6)
