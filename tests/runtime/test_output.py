"""Smaller vectors equal those of sentence-transformers, with the same bits in any batch."""

import re
from typing import Any

import numpy as np
import pytest

from ov_minilm.runtime.output import (
    DTYPES,
    Dtype,
    Vectors,
    cast,
    convert_vectors,
    fixed_ranges,
    shrink,
    similarity,
)
from ov_minilm.spec import FloatArray


def unit_vectors(count: int, dimensions: int = 384, seed: int = 0) -> FloatArray:
    """Return random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def quantized(vectors: FloatArray, dtype: Dtype, ranges: FloatArray) -> Vectors:
    """Compute what `quantize_embeddings` of sentence-transformers does, without importing torch."""
    if dtype.endswith("binary"):
        packed: Vectors = np.packbits(vectors > 0, axis=1)
        return packed if dtype == "ubinary" else (packed.astype(int) - 128).astype(np.int8)
    steps = np.where((step := (ranges[1] - ranges[0]) / 255) == 0, 1, step)
    levels: FloatArray = np.clip(np.floor((vectors - ranges[0]) / steps), 0, 255)
    return levels.astype(np.uint8) if dtype == "uint8" else (levels - 128).astype(np.int8)


# sentence-transformers imports torch
@pytest.mark.parametrize("library", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dimensions", [1, 7, 64, 384])
@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_quantization_is_that_of_sentence_transformers(dtype: Dtype, dimensions: int, library: bool) -> None:
    """Results are equal, also with given ranges, constant components and values out of range."""
    reference = quantized
    if library:
        reference = pytest.importorskip("sentence_transformers.util.quantization").quantize_embeddings
    vectors = unit_vectors(200, dimensions)
    vectors[0, 0], vectors[1, 0] = 0, -0.0
    narrow = np.stack([vectors[:100].min(0), vectors[:100].max(0)])
    narrow[:, dimensions // 2] = -0.5
    for own_ranges in (None, narrow) if dtype.endswith("int8") else (None,):
        ranges = fixed_ranges(dimensions) if own_ranges is None else own_ranges
        expected, actual = reference(vectors, dtype, ranges=ranges), cast(vectors, dtype, own_ranges)

        assert (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
        assert expected.tobytes() == actual.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_has_the_same_bytes_in_any_batch(dtype: Dtype) -> None:
    """A vector [D] and a row of a batch [N, D] agree in each dtype and size; N may be 0."""
    for count, dimensions in ((0, 64), (1, 383), (1, 1), (7, 100), (40, 384), (40, 9)):
        vectors = unit_vectors(count, seed=count)
        converted = convert_vectors(vectors, dimensions, dtype)

        assert (count, -(-dimensions // 8) if "binary" in dtype else dimensions) == converted.shape
        assert dtype.replace("ubinary", "uint8").replace("binary", "int8") == converted.dtype
        for vector, expected in zip(vectors, converted, strict=True):
            assert expected.tobytes() == cast(shrink(vector, dimensions), dtype).tobytes()
        assert np.array_equal(cast(vectors, dtype), convert_vectors(vectors, None, dtype))


@pytest.mark.parametrize("dimensions", [64, 384])
def test_int8_is_the_nearest_step_and_keeps_the_cosine(dimensions: int) -> None:
    """With fixed ranges an int8 vector keeps its direction, because 0 stays 0."""
    vectors = unit_vectors(500, dimensions)
    low, high = fixed_ranges(dimensions)[:, 0]

    actual = cast(vectors, "int8").astype(np.float32)

    inside = np.abs(vectors) < -0.98 * low
    assert np.abs(actual * (high - low) / 255 - vectors)[inside].max() <= (high - low) / 255 * 0.501
    cosines = (actual * vectors).sum(1) / np.linalg.norm(actual, axis=1)
    assert cosines.min() > 0.999
    assert cosines.mean() > 0.9999
    assert 0 == cast(np.zeros(8, np.float32), "int8").max()
    assert 4.5 * 255 / 127 == pytest.approx((high - low) * dimensions**0.5, rel=1e-6)  # 4.5 deviations


def test_known_vectors_in_every_form() -> None:
    """The highest bit is the first component, 1 if positive; unchanged vectors are not copied."""
    vector = np.array([0.5, -0.5, 0, 0.1, -0.0, 0, 0, 0.2, 0.3], np.float32)
    vectors, others = unit_vectors(20), unit_vectors(2, seed=1)

    assert [0b10010001, 0b10000000] == cast(vector, "ubinary").tolist()
    assert [0b10010001 - 128, 0] == cast(vector, "binary").tolist()
    assert np.array_equal(vectors.astype(np.float16), cast(vectors, "float16"))
    assert vectors is cast(vectors, "float32") is shrink(vectors, 384)

    kept = vectors[:, :100] / np.linalg.norm(vectors[:, :100], axis=1, keepdims=True)
    np.testing.assert_allclose(kept, shrink(vectors, 100), rtol=1e-6)
    assert np.float32 == shrink(vectors, 100).dtype
    assert [[0, 0]] == shrink(np.array([[0, 0, 1]], np.float32), 2).tolist()

    cosines = [[x.dot(y) for y in others] for x in vectors]
    np.testing.assert_allclose(cosines, similarity(vectors, others), atol=1e-6)
    assert [(1, 2), (20, 1)] == [
        similarity(*pair).shape for pair in ((vectors[0], others), (vectors, others[0]))
    ]


VECTORS = unit_vectors(1)
INTEGERS = cast(VECTORS, "int8")


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (shrink, (VECTORS, 0), "dimensions=0; a vector has 1 to 384"),
        (shrink, (VECTORS, 385), "dimensions=385; a vector has 1 to 384"),
        (cast, (VECTORS, "int4"), f"dtype='int4'; choose one of {', '.join(DTYPES)}"),
        (cast, (VECTORS, "int8", VECTORS), "ranges of shape (1, 384); for these vectors it is (2, 384)"),
        (cast, (VECTORS, "binary", fixed_ranges(384)), "ranges are for int8 and uint8, not for binary"),
        (similarity, (VECTORS, VECTORS[:, :3]), "vectors of 384 and 3 components"),
        (similarity, (INTEGERS, VECTORS), "similarity needs float vectors, not int8 and float32"),
        (similarity, (VECTORS, INTEGERS), "similarity needs float vectors, not float32 and int8"),
    ],
)
def test_impossible_forms_are_refused(function: Any, arguments: tuple[Any, ...], message: str) -> None:
    """The error has the value and the allowed values; similarity of integers, which overflow, fails."""
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        function(*arguments)
