"""Accuracy: vectors of every contender against FP32 and human scores, and vectors in smaller dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from ov_minilm.drift import evaluation
from ov_minilm.drift.scores import neighbour_overlap, spearman
from ov_minilm.measure.contender import Process
from ov_minilm.measure.race import Race
from ov_minilm.measure.row import FP32, OURS, Row
from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.output import Dtype
from ov_minilm.spec import FloatArray

STS_SET = "stsb_test"
# unsigned types have the same information as signed ones
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "binary")
DIMENSIONS = (384, 256, 128, 64)


class NotMeasured(Exception):
    """Something that a benchmark needs is missing; the message says what."""


class Pairs:
    """The test set of the STS benchmark: sentence pairs with human scores."""

    def __init__(self) -> None:
        """Read the pairs. NotMeasured: the file does not exist."""
        found = evaluation.find([], []).pairs
        if STS_SET not in found:
            raise NotMeasured(f"{evaluation.FOLDER_VARIABLE} names no folder with {STS_SET}.tsv")
        pairs = found[STS_SET]
        self.texts = pairs.texts
        place = {text: number for number, text in enumerate(self.texts)}
        self._left, self._right = ([place[t] for t in side] for side in (pairs.left, pairs.right))
        self._scores = np.array(pairs.scores)

    def spearman(self, vectors: FloatArray) -> float:
        """Return Spearman's correlation of cosines of unit vectors [N, D] with human scores, times 100."""
        return 100 * spearman((vectors[self._left] * vectors[self._right]).sum(1), self._scores)


def accuracy(race: Race[Process]) -> Iterator[Row]:
    """Measure the mean cosine to FP32, and how Spearman's correlation with human scores differs from FP32."""
    pairs = Pairs()
    path = race.file(STS_SET, pairs.texts)
    vectors_by_name = {
        name: unit_vectors(vectors)
        for name, vectors in race.each(lambda process: process.vectors(path)).items()
    }
    if FP32 not in vectors_by_name:
        raise NotMeasured("needs the FP32 artefact as the reference: out/fp32")
    reference = vectors_by_name[FP32]
    for name, vectors in vectors_by_name.items():
        same_width = vectors.shape == reference.shape  # no cosine of vectors with different widths
        cosine = float((reference * vectors).sum(1).mean()) if same_width else 0.0
        score = pairs.spearman(vectors)
        yield race.row("accuracy", name, "cosine", [cosine])
        yield race.row("accuracy", name, "spearman", [score])
        yield race.row("accuracy", name, "spearman_change", [score - pairs.spearman(reference)])


def smaller_vectors(race: Race[Process]) -> Iterator[Row]:
    """Measure every dtype with every number of dimensions: bytes, Spearman, nearest neighbours kept."""
    pairs = Pairs()
    with Embedder.open() as embedder:
        full_vectors = embedder.encode(pairs.texts, progress=False)
        for dimensions, dtype in product(DIMENSIONS, DTYPES):
            stored = embedder.encode(pairs.texts, dimensions=dimensions, dtype=dtype, progress=False)
            shortened = unit_vectors(stored, bits=dimensions if dtype == "binary" else 0)
            name = f"smaller vectors, {dtype} {dimensions}"
            yield race.row(name, OURS, "bytes", [stored[0].nbytes])
            yield race.row(name, OURS, "spearman", [pairs.spearman(shortened)])
            yield race.row(name, OURS, "overlap", [neighbour_overlap(full_vectors, shortened)])


def unit_vectors(stored: np.ndarray, *, bits: int = 0) -> FloatArray:  # [N, D]
    """Return stored vectors as float unit vectors; a packed bit becomes 1 or -1."""
    if bits:
        stored = np.unpackbits(stored.view(np.uint8) ^ np.uint8(128), axis=-1)[:, :bits] * 2.0 - 1
    vectors: FloatArray = stored / np.linalg.norm(stored.astype(np.float32), axis=1, keepdims=True)
    return vectors
