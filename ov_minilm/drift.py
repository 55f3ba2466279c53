"""How far quantized vectors are from FP32, and the gate that a build has to pass.

Cosine says how far a vector moved, neighbour overlap what that does to search, the Spearman correlation on
STS what it does to meaning. Long texts are measured on their own: clipped ranges show only there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ov_minilm.evaluation import Evaluation
from ov_minilm.spec import FloatArray

NEIGHBOURS = 10
LENGTH_BINS = ((1, 64), (65, 128), (129, 256))  # tokens, inclusive
FEW = 30  # a mean over fewer texts is not gated; overlap is measured in collections of more

Encode = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine between FP32 and quantized vectors of the texts in one length bin."""

    texts: int
    mean: float
    p1: float
    min: float


@dataclass(frozen=True, slots=True)
class Sts:
    """Correlation with human scores, in points (100 x rho)."""

    pairs: int
    spearman_reference: float
    spearman: float
    pearson_reference: float
    pearson: float

    @property
    def delta(self) -> float:
        """Spearman points gained (+) or lost (-) against the reference."""
        return self.spearman - self.spearman_reference


@dataclass(frozen=True, slots=True)
class Drift:
    """One measurement of one way to run an artefact."""

    precision: str
    lowering: str
    cosine: dict[str, Cosine]  # by token count, "1-64"
    overlap: dict[str, float]  # by collection: share of the FP32 top 10 kept
    sts: dict[str, Sts]  # by file


@dataclass(frozen=True, slots=True)
class Gate:
    """The most drift that a build may have."""

    cosine_mean: float = 0.9975
    overlap: float = 0.95
    spearman: float = 0.1  # points, either way
    few: int = field(default=FEW, repr=False)

    def broken(self, drift: Drift) -> list[str]:
        """List every limit that the measurement breaks, each with both numbers; empty: it passes."""
        where = f"{drift.lowering}/{drift.precision}"
        found = [
            f"{where}: mean cosine of texts of {name} tokens {cosine.mean:.5f} < {self.cosine_mean}"
            for name, cosine in drift.cosine.items()
            if cosine.texts >= self.few and not cosine.mean >= self.cosine_mean
        ]
        found += [
            f"{where}: neighbour overlap@{NEIGHBOURS} of {name} {overlap:.4f} < {self.overlap}"
            for name, overlap in drift.overlap.items()
            if not overlap >= self.overlap
        ]
        found += [
            f"{where}: Spearman on {name} moved by {sts.delta:+.3f} points, allowed is {self.spearman}"
            for name, sts in drift.sts.items()
            if not abs(sts.delta) <= self.spearman
        ]
        return found


def measure(
    reference: Encode,
    candidate: Encode,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    evaluation: Evaluation,
    *,
    precision: str,
    lowering: str,
) -> Drift:
    """Encode every text of the evaluation both ways and compare."""
    collections = {name: pairs.texts for name, pairs in evaluation.pairs.items()} | evaluation.collections
    texts = list(dict.fromkeys(text for collection in collections.values() for text in collection))
    place = {text: index for index, text in enumerate(texts)}
    expected, found = reference(texts), candidate(texts)
    tokens = np.minimum(count_tokens(texts), LENGTH_BINS[-1][1])

    sts = {}
    for name, pairs in evaluation.pairs.items():
        left, right = [place[t] for t in pairs.left], [place[t] for t in pairs.right]
        old, new = ((v[left] * v[right]).sum(1) for v in (expected, found))
        sts[name] = Sts(
            len(pairs.scores),
            *(
                round(100 * correlation(values, np.array(pairs.scores)), 4)
                for correlation in (spearman, pearson)
                for values in (old, new)
            ),
        )
    overlaps = {}
    for name, collection in collections.items():
        if len(set(collection)) > FEW:
            rows = [place[text] for text in dict.fromkeys(collection)]
            overlaps[name] = round(neighbour_overlap(expected[rows], found[rows]), 4)
    return Drift(precision, lowering, cosine_by_length(expected, found, tokens), overlaps, sts)


def cosine_by_length(expected: FloatArray, found: FloatArray, tokens: NDArray[np.int64]) -> dict[str, Cosine]:
    """Compare unit vectors [N, D] row by row, in bins of token counts [N]; empty bins are left out."""
    cosines = (expected.astype(np.float64) * found).sum(1)
    result = {}
    for low, high in LENGTH_BINS:
        mine = cosines[(tokens >= low) & (tokens <= high)]
        if len(mine):
            figures = (
                round(float(figure), 6) for figure in (mine.mean(), np.percentile(mine, 1), mine.min())
            )
            result[f"{low}-{high}"] = Cosine(len(mine), *figures)
    return result


def neighbour_overlap(expected: FloatArray, found: FloatArray, k: int = NEIGHBOURS) -> float:
    """Mean share of each vector's k nearest others in `expected` [N, D] that `found` [N, D] keeps.

    Raises:
        ValueError: with k or fewer vectors, where every overlap would be perfect.
    """
    if len(expected) <= k:
        raise ValueError(f"{len(expected)} vectors; overlap@{k} needs more than {k}")
    kept = 0
    for start in range(0, len(expected), 1024):  # bounded memory: 1024 rows of the N x N matrix at a time
        mine = slice(start, start + 1024)
        kept += sum(
            len(set(old) & set(new))
            for old, new in zip(
                _nearest(expected, mine, k).tolist(), _nearest(found, mine, k).tolist(), strict=True
            )
        )
    return kept / (k * len(expected))


def _nearest(vectors: FloatArray, rows: slice, k: int) -> NDArray[np.int64]:
    """Return the k nearest others of some rows, [rows, k]."""
    similar = vectors[rows] @ vectors.T
    similar[np.arange(len(similar)), np.arange(rows.start, rows.start + len(similar))] = -np.inf
    nearest: NDArray[np.int64] = np.argpartition(-similar, k, axis=1)[:, :k]
    return nearest


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(counts).astype(np.float64)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return shared


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Linear correlation of two columns; NaN, which no gate passes, where one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation of two columns, ties averaged."""
    return pearson(ranks(np.asarray(a)), ranks(np.asarray(b)))


def gate(drifts: Sequence[Drift], limits: Gate) -> list[str]:
    """List every broken limit of several measurements."""
    return [line for drift in drifts for line in limits.broken(drift)]


def worst(drifts: Sequence[Drift]) -> Mapping[str, float]:
    """Summarise measurements by their worst figures, for one line of output."""
    figures = {}
    cosines = [cosine.mean for drift in drifts for cosine in drift.cosine.values() if cosine.texts >= FEW]
    if cosines:
        figures["mean cosine"] = min(cosines)
    overlaps = [overlap for drift in drifts for overlap in drift.overlap.values()]
    if overlaps:
        figures[f"overlap@{NEIGHBOURS}"] = min(overlaps)
    deltas = [sts.delta for drift in drifts for sts in drift.sts.values()]
    if deltas:
        figures["Spearman points"] = max(deltas, key=abs)
    return figures
