"""Pair-safe weights: no neighbouring pair can saturate int16, and little precision is lost for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ov_minilm.artefact.manifest import SHIPPED
from ov_minilm.convert.scales import exact_in_bf16, pair_safe
from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.lowering import linear_layers
from ov_minilm.runtime.weights import is_compressed


def largest_pair(q: NDArray[np.int8]) -> int:  # [O, C]
    """Return the largest sum of neighbours (2k, 2k+1) of one sign."""
    wide = q.astype(np.int32)
    return max(
        int((np.maximum(sign * wide, 0)[:, 0::2] + np.maximum(sign * wide, 0)[:, 1::2]).max())
        for sign in (1, -1)
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0.1, 3), channels=st.sampled_from([2, 8, 384]))
def test_no_pair_exceeds_the_limit(seed: int, spread: float, channels: int) -> None:
    """Whatever the weights, pairs stay within 128 and each weight within a step and a bit of its value."""
    W = np.random.default_rng(seed).standard_normal((16, channels)) ** 3 * spread

    q, scale = pair_safe(W)

    assert (np.int8, np.float32, (16, 1)) == (q.dtype.type, scale.dtype.type, scale.shape)
    assert largest_pair(q) <= 128
    assert np.abs(q.astype(np.int32)).max() <= 127
    assert np.abs(q * scale - W).max(1) == pytest.approx(np.zeros(16), abs=1.51 * float(scale.max()))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(1e-3, 10))
def test_scales_of_tables_are_bf16_numbers(seed: int, spread: float) -> None:
    """The lower half of their bits is empty, no row is clipped, and half a step is the most that is lost."""
    W = (np.random.default_rng(seed).standard_normal((50, 16)) * spread).astype(np.float32)
    W[7] = 0

    q, scale = exact_in_bf16(W)

    assert 0 == int((scale.view(np.uint32) & 0xFFFF).max())
    assert np.abs(q.astype(np.int32)).max() <= 127
    assert (np.abs(q * scale - W) <= 0.501 * scale).all()


def test_the_tables_that_ship_have_such_scales() -> None:
    """The model in the package was built so: in BF16 a word is rounded once, not twice."""
    model = ov.Core().read_model(SHIPPED / "model.xml")
    scales = [
        lookup.input_value(0).get_node().input_value(1).get_node().data
        for lookup in model.get_ordered_ops()
        if is_compressed(lookup)
    ]

    assert 2 == len(scales)
    assert all(0 == int((scale.view(np.uint32) & 0xFFFF).max()) for scale in scales)


def test_a_lone_large_weight_keeps_eight_bits() -> None:
    """Where no pair is large, the scale is the plain one: largest weight to 127."""
    q, scale = pair_safe(np.array([[1.0, 0.0, -0.5, 0.2]]))

    assert [[127, 0, -64, 25]] == q.tolist()
    assert scale[0, 0] == pytest.approx(1 / 127)


def test_a_large_pair_shares_the_limit() -> None:
    """Two equal neighbours get 64 each; opposite signs cancel and need no cut."""
    assert [[64, 64]] == pair_safe(np.array([[1.0, 1.0]]))[0].tolist()
    assert [[127, -127]] == pair_safe(np.array([[1.0, -1.0]]))[0].tolist()


def test_an_empty_channel_stays_zero() -> None:
    """A channel that outliers.py emptied has zero weights and a scale of one."""
    q, scale = pair_safe(np.zeros((1, 4)))

    assert ([[0, 0, 0, 0]], [[1.0]]) == (q.tolist(), scale.tolist())


def test_an_odd_number_of_channels_is_refused() -> None:
    """Without pairs there is nothing to keep safe, so the caller hears of it."""
    with pytest.raises(ValueError, match="3 input channels"):
        pair_safe(np.ones((1, 3)))


def test_the_shipped_model_is_pair_safe() -> None:
    """Every INT8 linear layer in the package respects the limit."""
    model = ov.Core().read_model(SHIPPED / "model.xml")
    pairs = [largest_pair(w.data) for _, w in linear_layers(model) if w.data.dtype == np.int8]

    assert 40 == len(pairs)
    assert max(pairs) <= 128
