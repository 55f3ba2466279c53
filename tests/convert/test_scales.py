"""Pair-safe INT8 weights: no pair of neighbours can saturate int16, and little precision is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ov_minilm.convert.scales import exact_in_bf16, pair_safe


def largest_pair(weights: NDArray[np.int8]) -> int:  # [O, C]
    """Return the largest |w[2k]| + |w[2k + 1]| of two weights of the same sign."""
    positive_and_negative = [np.maximum(sign * weights.astype(np.int32), 0) for sign in (1, -1)]
    return max(int((part[:, 0::2] + part[:, 1::2]).max()) for part in positive_and_negative)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.1, 3), channels=st.sampled_from([2, 8, 384]))
def test_pairs_stay_within_the_limit(seed: int, spread: float, channels: int) -> None:
    """For any weights, pairs sum to at most 128 and a weight differs by at most 1.51 steps."""
    W = np.random.default_rng(seed).standard_normal((16, channels)) ** 3 * spread

    quantized, scale = pair_safe(W)

    assert (np.int8, np.float32, (16, 1)) == (quantized.dtype.type, scale.dtype.type, scale.shape)
    assert largest_pair(quantized) <= 128
    assert np.abs(quantized.astype(np.int32)).max() <= 127
    assert np.abs(quantized * scale - W).max(1) == pytest.approx(np.zeros(16), abs=1.51 * float(scale.max()))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(1e-3, 10))
def test_scales_of_tables_are_exact_in_bf16(seed: int, spread: float) -> None:
    """The lower 16 bits are zero, no row is clipped, and a weight differs by at most half a step."""
    W = (np.random.default_rng(seed).standard_normal((50, 16)) * spread).astype(np.float32)
    W[7] = 0

    q, scale = exact_in_bf16(W)

    assert 0 == int((scale.view(np.uint32) & 0xFFFF).max())
    assert np.abs(q.astype(np.int32)).max() <= 127
    assert (np.abs(q * scale - W) <= 0.501 * scale).all()


@pytest.mark.parametrize(
    ("weights", "expected", "scale"),
    [
        ([1.0, 0.0, -0.5, 0.2], [127, 0, -64, 25], 1 / 127),  # no large pair: the largest weight is 127
        ([1.0, 1.0], [64, 64], 1 / 64),  # two equal neighbours share the limit
        ([1.0, -1.0], [127, -127], 1 / 127),  # opposite signs cancel
        ([593.2291666666667, 1193.4375], [43, 85], 13.9583333),  # 42.5 and 85.5: floats round both up
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], 1.0),  # a channel that outliers.py moved to the float branch
    ],
)
def test_scales_of_known_weights(weights: list[float], expected: list[int], scale: float) -> None:
    """The largest weight is 127 if pairs allow it; an odd number of channels is refused."""
    q, scales = pair_safe(np.array([weights]))

    assert [expected] == q.tolist()
    assert scale == pytest.approx(scales.item())
    with pytest.raises(ValueError, match=f"{len(weights) + 1} input channels"):
        pair_safe(np.ones((1, len(weights) + 1)))
