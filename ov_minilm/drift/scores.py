"""Metrics of the distance between quantized and FP32 vectors.

Cosine measures how far a vector moved, neighbour overlap and nDCG the effect on search, the Spearman
correlation on STS the effect on similarity. Long texts have their own figures: clipped activations affect
only them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ov_minilm.artefact.drift_record import MIN_TEXTS_TO_GATE, NEIGHBOURS, Cosine, Drift, Ndcg, Sts
from ov_minilm.drift.evaluation import Evaluation, Retrieval
from ov_minilm.spec import MINILM, FloatArray

LENGTH_BINS = ((1, 64), (65, 128), (129, 256), (257, 512))  # first and last number of tokens of each bin
# number of bootstrap resamples, confidence level of the interval, and seed (fixed, for equal results)
RESAMPLES, COVERAGE, SEED = 1000, 0.95, 0

Encode = Callable[[Sequence[str]], FloatArray]
Column = NDArray[np.floating[Any]]  # [N]


def memoize(encode: Encode) -> Encode:
    """Wrap an encoder so that it encodes each text once and returns the stored vector after that."""
    known: dict[str, FloatArray] = {}

    def encode_new(texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(new, encode(new), strict=True))
        return np.array([known[text] for text in texts])

    return encode_new


def measure(
    reference: Encode,
    candidate: Encode,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    evaluation: Evaluation,
    *,
    precision: str,
    lowering: str,
    max_tokens: int = MINILM.max_tokens,
) -> Drift:
    """Encode every text of the evaluation with both models, and compare.

    Longer texts count as having `max_tokens` tokens, because the model does not read the rest.
    """
    collections = {name: pairs.texts for name, pairs in evaluation.pairs.items()} | evaluation.collections
    searched = (retrieval.texts for retrieval in evaluation.retrieval.values())
    texts = list(dict.fromkeys(text for part in (*collections.values(), *searched) for text in part))
    index_of_text = {text: index for index, text in enumerate(texts)}
    expected, actual = reference(texts), candidate(texts)
    tokens = np.minimum(count_tokens(texts), max_tokens)

    sts = {}
    for name, pairs in evaluation.pairs.items():
        left, right = [index_of_text[t] for t in pairs.left], [index_of_text[t] for t in pairs.right]
        scores = np.array(pairs.scores)
        old, new = ((v[left] * v[right]).sum(1) for v in (expected, actual))
        correlations = (f(values, scores) for f in (spearman, pearson) for values in (old, new))
        figures = (*correlations, *delta_interval(old, new, scores))
        sts[name] = Sts(len(scores), *(round(100 * figure, 4) for figure in figures))
    overlaps = {}
    for name, collection in collections.items():
        if len(set(collection)) > MIN_TEXTS_TO_GATE:
            rows = [index_of_text[text] for text in dict.fromkeys(collection)]
            overlaps[name] = round(neighbour_overlap(expected[rows], actual[rows]), 4)
    ndcgs = {}
    for name, retrieval in evaluation.retrieval.items():
        documents = [index_of_text[t] for t in retrieval.documents.values()]
        queries = [index_of_text[t] for t in retrieval.queries.values()]
        means = (float(ndcg(v[queries], v[documents], retrieval).mean()) for v in (expected, actual))
        ndcgs[name] = Ndcg(len(documents), len(queries), *(round(100 * mean, 4) for mean in means))
    return Drift(precision, lowering, cosine_by_length(expected, actual, tokens), overlaps, sts, ndcgs)


def cosine_by_length(
    expected: FloatArray, actual: FloatArray, tokens: NDArray[np.int64]
) -> dict[str, Cosine]:
    """Compare unit vectors [N, D] row by row, in bins of token counts [N]; empty bins are left out."""
    cosines = (expected.astype(np.float64) * actual).sum(1)
    result = {}
    for low, high in LENGTH_BINS:
        in_bin = cosines[(tokens >= low) & (tokens <= high)]
        if len(in_bin):
            figures = (
                round(float(figure), 6) for figure in (in_bin.mean(), np.percentile(in_bin, 1), in_bin.min())
            )
            result[f"{low}-{high}"] = Cosine(len(in_bin), *figures)
    return result


def neighbour_overlap(expected: FloatArray, actual: FloatArray, k: int = NEIGHBOURS) -> float:
    """Return the mean share of the k nearest neighbours in `expected` [N, D] that `actual` [N, D] keeps.

    Raises:
        ValueError: there are k or fewer vectors; every overlap would be 1.
    """
    if len(expected) <= k:
        raise ValueError(f"{len(expected)} vectors; overlap@{k} needs more than {k}")
    common = 0
    for start in range(0, len(expected), 1024):  # 1024 rows of the N x N matrix at a time, to bound memory
        block = slice(start, start + 1024)
        common += sum(
            len(set(old) & set(new))
            for old, new in zip(
                _nearest(expected, block, k).tolist(), _nearest(actual, block, k).tolist(), strict=True
            )
        )
    return common / (k * len(expected))


def _nearest(vectors: FloatArray, rows: slice, k: int) -> NDArray[np.int64]:
    """Return the k nearest neighbours of some rows, [rows, k]."""
    cosines = vectors[rows] @ vectors.T
    cosines[np.arange(len(cosines)), np.arange(rows.start, rows.start + len(cosines))] = -np.inf
    nearest: NDArray[np.int64] = np.argpartition(-cosines, k, axis=1)[:, :k]
    return nearest


def ranks(values: Column) -> NDArray[np.float64]:
    """Return ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(counts).astype(np.float64)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return shared


def pearson(a: Column, b: Column) -> float:
    """Return the linear correlation of two columns; NaN, which fails every limit, if one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def spearman(a: Column, b: Column) -> float:
    """Return the rank correlation of two columns; ties are averaged."""
    return pearson(ranks(np.asarray(a)), ranks(np.asarray(b)))


def delta_interval(reference: Column, candidate: Column, scores: Column) -> tuple[float, float]:
    """Return a 95 % interval of the change of Spearman's rho between two columns of similarities [N].

    Paired bootstrap, percentile method (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13): both columns see the same resampled pairs, so pairs that are hard for both cancel out. A
    resample in which a column is constant has no correlation and is left out; NaN if no resample is left.
    """
    pairs, block = len(scores), 100  # 100 resamples at a time, to bound memory
    rng = np.random.default_rng(SEED)
    deltas = []
    for _ in range(RESAMPLES // block):
        drawn = rng.integers(pairs, size=(block, pairs)) + pairs * np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=block * pairs).reshape(block, pairs)
        old, new = (resampled_spearman(column, scores, counts) for column in (reference, candidate))
        deltas.append(new - old)
    defined = np.concatenate(deltas)
    defined = defined[np.isfinite(defined)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def resampled_spearman(a: Column, b: Column, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the exact rank correlations [B] in resamples; resample b has row n counts[b, n] times.

    N values are sorted only once: the ranks in each resample follow from the counts.
    """
    x, y = (_resampled_ranks(column, counts) - (counts.sum(1, keepdims=True) + 1) / 2 for column in (a, b))
    xy, xx, yy = (np.einsum("bn,bn,bn->b", counts, left, right) for left, right in ((x, y), (x, x), (y, y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: NDArray[np.float64] = xy / np.sqrt(xx * yy)
    return rho


def _resampled_ranks(values: Column, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the ranks [B, N] in every resample; the rank of a row that was not drawn is not used."""
    _, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.flatnonzero(np.diff(level[order], prepend=-1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)  # counts of each distinct value
    shared: NDArray[np.float64] = (np.cumsum(drawn, axis=1) - (drawn - 1) / 2)[:, level]
    return shared


def ndcg(
    queries: FloatArray, documents: FloatArray, retrieval: Retrieval, k: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """Return the nDCG@k [Q] of ranking documents [N, D] by cosine for queries [Q, D], rows as in `retrieval`.

    The result equals ndcg_cut of trec_eval, which pytrec_eval and BEIR use. The gain is the
    judgement, discounted by log2(1 + rank). A missing or negative judgement counts as 0. If cosines are
    equal, the larger id comes first. The ideal ranking has all judged documents. A query without a relevant
    document gets 0. As in BEIR, a document with the same id as the query is not ranked.
    """
    ids = list(retrieval.documents)
    # documents are sorted by id first, so that a stable sort by cosine breaks ties by id
    order = sorted(range(len(ids)), key=ids.__getitem__, reverse=True)
    documents = documents[order]
    gains = np.zeros(len(queries))
    for row, (query, judged) in enumerate(retrieval.judgements.items()):
        nearest = np.argsort(-(documents @ queries[row]), kind="stable")[: k + 1]
        ranked = [ids[order[i]] for i in nearest if ids[order[i]] != query][:k]
        ideal = _gain(sorted(judged.values(), reverse=True)[:k])
        if ideal > 0:
            gains[row] = _gain([judged.get(document, 0) for document in ranked]) / ideal
    return gains


def _gain(judgements: Sequence[int]) -> float:
    return sum(max(gain, 0) / math.log2(1 + rank) for rank, gain in enumerate(judgements, 1))
