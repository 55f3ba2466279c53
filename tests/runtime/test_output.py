"""Smaller vectors: equal to sentence-transformers where it has the same, and the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_minilm.runtime.output import DTYPES, Dtype, cast, fixed_ranges, shrink
from ov_minilm.spec import FloatArray

REFERENCE = ("int8", "uint8", "binary", "ubinary")


def unit_vectors(count: int, dimensions: int = 384, seed: int = 0) -> FloatArray:
    """Random directions of length one."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.mark.parametrize("dimensions", [1, 7, 64, 384])
@pytest.mark.parametrize("dtype", REFERENCE)
def test_the_layout_is_that_of_sentence_transformers(dtype: Dtype, dimensions: int) -> None:
    """With our ranges the real library returns the same bytes, type and shape."""
    quantization = pytest.importorskip("sentence_transformers.util.quantization")
    vectors = unit_vectors(200, dimensions)
    vectors[0, 0], vectors[1, 0] = 0, -0.0

    expected = quantization.quantize_embeddings(vectors, dtype, ranges=fixed_ranges(dimensions))
    found = cast(vectors, dtype)

    assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
    assert expected.tobytes() == found.tobytes()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_ranges_of_the_caller_give_what_sentence_transformers_gives(dtype: Dtype) -> None:
    """Ranges taken from a batch, one component constant, values beyond them: all the same bytes."""
    quantization = pytest.importorskip("sentence_transformers.util.quantization")
    vectors = unit_vectors(200)
    ranges = np.stack([vectors[:100].min(0), vectors[:100].max(0)])
    ranges[:, 5] = 0.01

    expected = quantization.quantize_embeddings(vectors, dtype, ranges=ranges)

    assert np.array_equal(expected, cast(vectors, dtype, ranges))


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 40),
    dimensions=st.integers(1, 384),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_same_vector_same_bits_in_any_batch(count: int, dimensions: int, dtype: Dtype, seed: int) -> None:
    """A vector alone, as [D], and in a batch becomes the same bytes in every form."""
    vectors = unit_vectors(count, seed=seed)
    together = cast(shrink(vectors, dimensions), dtype)

    for vector, expected in zip(vectors, together, strict=True):
        assert expected.tobytes() == cast(shrink(vector, dimensions), dtype).tobytes()


def test_int8_is_the_nearest_step_and_keeps_the_cosine() -> None:
    """With the fixed ranges int8 vectors point where the float ones do: no offset, 0 stays 0."""
    for dimensions in (384, 64):
        vectors = unit_vectors(500, dimensions)
        low, high = fixed_ranges(dimensions)[:, 0]

        found = cast(vectors, "int8").astype(np.float32)

        inside = np.abs(vectors) < -0.98 * low
        assert np.abs(found * (high - low) / 255 - vectors)[inside].max() <= (high - low) / 255 * 0.501
        cosines = (found * vectors).sum(1) / np.linalg.norm(found, axis=1)
        assert cosines.min() > 0.999
        assert cosines.mean() > 0.9999
    assert 0 == cast(np.zeros(8, np.float32), "int8").max()


def test_uint8_is_int8_from_another_zero() -> None:
    """The two differ by 128, as binary and ubinary do."""
    vectors = unit_vectors(50)

    assert np.array_equal(cast(vectors, "uint8").astype(int) - 128, cast(vectors, "int8"))
    assert np.array_equal(cast(vectors, "ubinary").astype(int) - 128, cast(vectors, "binary"))


def test_ubinary_is_a_bit_for_each_sign() -> None:
    """The first component is the highest bit; zero and negative are 0; what is missing of a byte is 0."""
    vector = np.array([0.5, -0.5, 0, 0.1, -0.0, 0, 0, 0.2, 0.3], np.float32)

    assert [0b10010001, 0b10000000] == cast(vector, "ubinary").tolist()
    assert [0b10010001 - 128, 0] == cast(vector, "binary").tolist()


def test_float32_is_what_it_was_and_float16_is_rounded() -> None:
    """Nothing is copied without need; half precision is numpy's."""
    vectors = unit_vectors(3)

    assert cast(vectors, "float32") is vectors
    assert np.array_equal(vectors.astype(np.float16), cast(vectors, "float16"))


def test_shrinking_keeps_the_first_components_and_unit_length() -> None:
    """The direction is that of the first components, as sentence-transformers cuts and normalises."""
    vectors = unit_vectors(20)
    expected = vectors[:, :100] / np.linalg.norm(vectors[:, :100], axis=1, keepdims=True)

    found = shrink(vectors, 100)

    np.testing.assert_allclose(expected, found, rtol=1e-6)
    np.testing.assert_allclose(np.ones(20), np.linalg.norm(found, axis=1), rtol=1e-6)
    assert shrink(vectors, 384) is vectors
    assert [[0, 0]] == shrink(np.array([[0, 0, 1]], np.float32), 2).tolist()


def test_no_vectors_stay_no_vectors() -> None:
    """Of nothing there is nothing, in the right type and width."""
    none = np.empty((0, 384), np.float32)

    assert (0, 100) == shrink(none, 100).shape
    for dtype, width in zip(DTYPES, (384, 384, 384, 384, 48, 48), strict=True):
        assert (0, width) == cast(none, dtype).shape


@pytest.mark.parametrize("dimensions", [0, -1, 385])
def test_impossible_dimensions_are_refused(dimensions: int) -> None:
    """The error has both numbers."""
    with pytest.raises(ValueError, match=rf"dimensions={dimensions}; a vector has 1 to 384"):
        shrink(unit_vectors(1), dimensions)


def test_wrong_types_and_ranges_are_refused() -> None:
    """A dtype that does not exist lists those that do; ranges must fit the vectors and the type."""
    vectors = unit_vectors(1)

    with pytest.raises(ValueError, match="dtype='int4'; choose one of float32, float16, int8"):
        cast(vectors, "int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ranges of shape \(2, 3\); for these vectors it is \(2, 384\)"):
        cast(vectors, "int8", np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="not for binary"):
        cast(vectors, "binary", fixed_ranges(384))
