"""Smaller vectors, with fewer components or fewer bits per component.

Every function converts each vector on its own, so that a text has the same bits in every batch.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ov_minilm.errors import check_integers
from ov_minilm.spec import FloatArray

Dtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
Vectors = NDArray[Any]  # the dtype is one of DTYPES

# The components of a unit vector have a standard deviation of 1 / sqrt(D); one component in 100,000 is more
# than 4.5 standard deviations from 0. A wider range would cost more precision than clipping these values; a
# narrower range would clip too many.
RANGE_SIGMAS = 4.5


def shrink(vectors: FloatArray, dimensions: int) -> FloatArray:  # [..., D] -> [..., dimensions]
    """Keep the first components of unit vectors, and scale to unit length again.

    With all D components the vectors are returned unchanged. If all kept components are zero, they stay zero.

    Raises:
        TypeError: `dimensions` is not an integer.
        ValueError: `dimensions` is not in 1..D.
    """
    whole = vectors.shape[-1]
    check_integers(dimensions=dimensions)
    if not 1 <= dimensions <= whole:
        raise ValueError(f"dimensions={dimensions}; a vector has 1 to {whole}")
    if dimensions == whole:
        return vectors
    kept = vectors[..., :dimensions]
    lengths = np.sqrt(np.square(kept).sum(-1, keepdims=True))
    return np.divide(kept, np.where(lengths == 0, 1, lengths), dtype=np.float32)


def fixed_ranges(dimensions: int) -> FloatArray:  # -> [2, D]
    """Return the lowest and highest value of int8 and uint8, for each component of a unit vector.

    All components have the same range, so that integer dot products rank like cosines. An int8 value is the
    nearest multiple of (high - low) / 255, and 0.0 becomes 0.
    """
    step = RANGE_SIGMAS / math.sqrt(dimensions) / 127
    return np.repeat(np.array([[-128.5 * step], [126.5 * step]], np.float32), dimensions, axis=1)


def cast(vectors: FloatArray, dtype: Dtype, ranges: FloatArray | None = None) -> Vectors:
    """Return unit vectors [..., D] in another type, with the layout of sentence-transformers.

    Args:
        vectors: float32.
        dtype: "float32" changes nothing, "float16" rounds. "int8" and "uint8" divide the range of each
            component into 256 steps. "ubinary" packs the signs of eight components into a byte, the first
            into the highest bit: [..., ceil(D / 8)] uint8. "binary" is "ubinary" minus 128, as int8.
        ranges: [2, D] lowest and highest value of each component, for int8 and uint8; None is `fixed_ranges`.
            `quantize_embeddings` of sentence-transformers returns the same values for the same ranges.
            Without ranges, sentence-transformers computes them from the batch, so a text has different bits
            in different batches.

    Raises:
        ValueError: the dtype does not exist or has no ranges, or `ranges` has another shape.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}; choose one of {', '.join(DTYPES)}")
    scalar = dtype in ("int8", "uint8")
    if ranges is not None and not scalar:
        raise ValueError(f"ranges are for int8 and uint8, not for {dtype}")
    if scalar:
        levels = _levels(vectors, fixed_ranges(vectors.shape[-1]) if ranges is None else ranges)
        return levels.astype(np.uint8) if dtype == "uint8" else (levels - 128).astype(np.int8)
    if dtype in ("binary", "ubinary"):
        signs = np.packbits(vectors > 0, axis=-1)
        # x ^ 128, read as int8, is x - 128
        return signs if dtype == "ubinary" else (signs ^ 128).view(np.int8)
    return vectors.astype(dtype, copy=False)


def convert_vectors(vectors: FloatArray, dimensions: int | None, dtype: Dtype) -> Vectors:
    """Return unit vectors [..., D] with the first `dimensions` components (None: all), as `dtype`."""
    return cast(vectors if dimensions is None else shrink(vectors, dimensions), dtype)


def similarity(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the cosines [N, M] of unit vectors a [N, D] and b [M, D]; a single [D] is one row.

    Raises:
        TypeError: the vectors are not floats; integer products would overflow.
        ValueError: `a` and `b` have different numbers of components.
    """
    left, right = np.atleast_2d(a), np.atleast_2d(b)
    if left.dtype.kind != "f" or right.dtype.kind != "f":
        raise TypeError(f"similarity needs float vectors, not {left.dtype} and {right.dtype}")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"vectors of {left.shape[1]} and {right.shape[1]} components")
    cosines: FloatArray = left @ right.T
    return cosines


def _levels(vectors: FloatArray, ranges: FloatArray) -> FloatArray:
    """Return the step, 0 to 255, of each component [..., D] within its range [2, D], as float32."""
    expected = (2, vectors.shape[-1])
    if ranges.shape != expected:
        raise ValueError(f"ranges of shape {ranges.shape}; for these vectors it is {expected}")
    low, high = ranges.astype(np.float32, copy=False)
    steps = (high - low) / 255
    levels: FloatArray = np.clip(np.floor((vectors - low) / np.where(steps == 0, 1, steps)), 0, 255)
    return levels
