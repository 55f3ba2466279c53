"""How good vectors are: every contender's against FP32 and people's scores, and ours in smaller forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ov_minilm.drift import evaluation
from ov_minilm.drift.scores import neighbour_overlap, spearman
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import FP32, OURS, Row
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import Dtype
from ov_minilm.spec import FloatArray

SET = "stsb_test"
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "binary")  # the unsigned ones hold the same
DIMENSIONS = (384, 256, 128, 64)


class NotMeasured(Exception):
    """Something that a benchmark needs is missing; the message says what."""


def pairs() -> evaluation.Pairs:
    """Return scored sentence pairs, the STS benchmark's test set.

    Raises:
        NotMeasured: they are not there.
    """
    found = evaluation.find([], []).pairs
    if SET not in found:
        raise NotMeasured(f"{evaluation.FOLDER_VARIABLE} names no folder with {SET}.tsv")
    return found[SET]


def accuracy(race: Race[Process]) -> Iterator[Row]:
    """Mean cosine to FP32, and points of Spearman's correlation with people's scores gained or lost to it."""
    data = pairs()
    path = race.file(SET, data.texts)
    vectors = race.each(lambda process: process.vectors(path))
    if FP32 not in vectors:
        raise NotMeasured("needs the FP32 artefact as the reference: out/fp32")
    place = {text: number for number, text in enumerate(data.texts)}
    left, right = ([place[text] for text in side] for side in (data.left, data.right))

    def points(found: FloatArray) -> float:
        return 100 * spearman((found[left] * found[right]).sum(1), np.array(data.scores))

    reference = unit(vectors[FP32])
    for name, found in vectors.items():
        mine = unit(found)
        cosine = float((reference * mine).sum(1).mean()) if mine.shape == reference.shape else 0.0
        yield race.row("accuracy", name, "cosine", [cosine])  # another width: other vectors
        yield race.row("accuracy", name, "spearman", [points(mine)])
        yield race.row("accuracy", name, "spearman_change", [points(mine) - points(reference)])


def unit(vectors: FloatArray) -> FloatArray:  # [N, D] -> [N, D]
    """Return directions."""
    found: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def smaller_vectors(race: Race[Process]) -> Iterator[Row]:
    """Every dtype with every number of dimensions: bytes, Spearman, and nearest neighbours kept."""
    data = pairs()
    scores = np.array(data.scores)
    with Embedder.open() as embedder:
        whole = embedder.encode(data.texts, progress=False)
        place = {text: number for number, text in enumerate(data.texts)}
        left, right = ([place[text] for text in side] for side in (data.left, data.right))
        for dimensions in DIMENSIONS:
            for dtype in DTYPES:
                stored = embedder.encode(data.texts, dimensions=dimensions, dtype=dtype, progress=False)
                mine = unit(directions(stored, dimensions, dtype))
                name = f"smaller vectors, {dtype} {dimensions}"
                similar = (mine[left] * mine[right]).sum(1)
                yield race.row(name, OURS, "bytes", [stored[0].nbytes])
                yield race.row(name, OURS, "spearman", [100 * spearman(similar, scores)])
                yield race.row(name, OURS, "overlap", [neighbour_overlap(whole, mine)])


def directions(stored: np.ndarray, dimensions: int, dtype: Dtype) -> FloatArray:
    """Return floats that point where a stored vector does; bits stand for 1 and -1."""
    if dtype == "binary":
        bits = np.unpackbits(stored.view(np.uint8) ^ np.uint8(128), axis=-1)[:, :dimensions]
        return bits.astype(np.float32) * 2 - 1
    return stored.astype(np.float32)
