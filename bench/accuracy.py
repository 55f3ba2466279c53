"""How good vectors are: every contender's against FP32 and people's scores, and ours in smaller forms."""

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

SET = "stsb_test"
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "int8", "binary")  # the unsigned ones hold the same
DIMENSIONS = (384, 256, 128, 64)


class NotMeasured(Exception):
    """Something that a benchmark needs is missing; the message says what."""


class Pairs:
    """Scored sentence pairs: the STS benchmark's test set."""

    def __init__(self) -> None:
        """Read them. NotMeasured: they are not there."""
        found = evaluation.find([], []).pairs
        if SET not in found:
            raise NotMeasured(f"{evaluation.FOLDER_VARIABLE} names no folder with {SET}.tsv")
        self.texts = found[SET].texts
        place = {text: number for number, text in enumerate(self.texts)}
        self._left, self._right = ([place[t] for t in side] for side in (found[SET].left, found[SET].right))
        self._scores = np.array(found[SET].scores)

    def spearman(self, vectors: FloatArray) -> float:
        """Return how well the similarities of unit vectors [N, D] rank as people do, in points."""
        return 100 * spearman((vectors[self._left] * vectors[self._right]).sum(1), self._scores)


def accuracy(race: Race[Process]) -> Iterator[Row]:
    """Mean cosine to FP32, and points of Spearman's correlation with people's scores gained or lost to it."""
    pairs = Pairs()
    path = race.file(SET, pairs.texts)
    vectors = {name: directions(found) for name, found in race.each(lambda one: one.vectors(path)).items()}
    if FP32 not in vectors:
        raise NotMeasured("needs the FP32 artefact as the reference: out/fp32")
    reference = vectors[FP32]
    for name, mine in vectors.items():
        same_width = mine.shape == reference.shape  # else they are other vectors
        cosine = float((reference * mine).sum(1).mean()) if same_width else 0.0
        points = pairs.spearman(mine)
        yield race.row("accuracy", name, "cosine", [cosine])
        yield race.row("accuracy", name, "spearman", [points])
        yield race.row("accuracy", name, "spearman_change", [points - pairs.spearman(reference)])


def smaller_vectors(race: Race[Process]) -> Iterator[Row]:
    """Every dtype with every number of dimensions: bytes, Spearman, and nearest neighbours kept."""
    pairs = Pairs()
    with Embedder.open() as embedder:
        whole = embedder.encode(pairs.texts, progress=False)
        for dimensions, dtype in product(DIMENSIONS, DTYPES):
            stored = embedder.encode(pairs.texts, dimensions=dimensions, dtype=dtype, progress=False)
            mine = directions(stored, bits=dimensions if dtype == "binary" else 0)
            name = f"smaller vectors, {dtype} {dimensions}"
            yield race.row(name, OURS, "bytes", [stored[0].nbytes])
            yield race.row(name, OURS, "spearman", [pairs.spearman(mine)])
            yield race.row(name, OURS, "overlap", [neighbour_overlap(whole, mine)])


def directions(stored: np.ndarray, *, bits: int = 0) -> FloatArray:  # [N, D]
    """Return unit vectors that point where stored ones do; packed bits stand for 1 and -1."""
    if bits:
        stored = np.unpackbits(stored.view(np.uint8) ^ np.uint8(128), axis=-1)[:, :bits] * 2.0 - 1
    found: FloatArray = stored / np.linalg.norm(stored.astype(np.float32), axis=1, keepdims=True)
    return found
