"""Metrics of drift equal those of scipy, scikit-learn and trec_eval; the gate refuses values over a limit."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from ov_minilm.artefact.drift_record import Cosine, Drift, Gate, Ndcg, Sts, gate, summarize
from ov_minilm.drift.evaluation import Evaluation, Pairs, Retrieval
from ov_minilm.drift.scores import (
    Encode,
    cosine_by_length,
    delta_interval,
    measure,
    memoize,
    ndcg,
    neighbour_overlap,
    pearson,
    ranks,
    resampled_spearman,
    spearman,
)
from ov_minilm.spec import FloatArray

NAN = float("nan")
score = st.integers(0, 10).map(lambda n: n / 2) | st.floats(-5, 5, width=16)  # halves give ties, as in STS-B


def at_degrees(*degrees: float) -> FloatArray:
    """Return unit vectors at these angles, [N, 2]."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(score, score), min_size=3, max_size=40), st.integers(0, 1000))
def test_ranks_and_correlations_are_those_of_scipy(pairs: list[tuple[float, float]], seed: int) -> None:
    """Ties change nothing; the correlation of a resample, given as counts of rows, is that of its rows."""
    a, b = np.array(pairs).T
    counts = np.bincount(np.random.default_rng(seed).integers(len(a), size=len(a)), minlength=len(a))
    resampled = [np.repeat(column, counts) for column in (a, b)]
    # there is no correlation with a constant
    assume(all(len(set(column)) > 1 for column in (a, b, *resampled)))

    actual = resampled_spearman(a, b, np.stack([counts, np.ones(len(a), np.int64)]))

    assert stats.rankdata(a).tolist() == ranks(a).tolist()
    assert pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9) == pearson(a, b)
    assert pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9) == spearman(a, b)
    assert pytest.approx([stats.spearmanr(*resampled).statistic, spearman(a, b)], abs=1e-9) == actual.tolist()


def test_the_interval_is_that_of_scipys_paired_bootstrap() -> None:
    """The bounds agree with scipy and are always the same; constant resamples are left out."""
    rng = np.random.default_rng(1)
    human = rng.integers(0, 11, 300) / 2  # with ties
    reference = human + rng.normal(size=300)
    candidate = reference + 0.4 * rng.normal(size=300)
    expected = stats.bootstrap(
        (reference, candidate, human),
        lambda reference, candidate, human: spearman(candidate, human) - spearman(reference, human),
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    pair, ties = np.array([0.0, 1.0]), np.array([2.0, 2.0])

    low, high = delta_interval(reference.astype(np.float32), candidate.astype(np.float32), human)

    assert pytest.approx((expected.low, expected.high), abs=0.003) == (low, high)
    assert 0.003 < (high - low) / 3  # the interval is wide compared with the tolerance
    assert (low, high) == delta_interval(reference.astype(np.float32), candidate.astype(np.float32), human)
    assert (0.0, 0.0) == delta_interval(reference, 2 * reference + 1, human)  # same ranks
    assert (0.0, 0.0) == delta_interval(pair, pair, pair)
    assert np.isnan(delta_interval(pair, pair, ties)).all()


def retrieval(judgements: dict[str, dict[str, int]], documents: int = 12) -> Retrieval:
    """Return a collection of documents d0, d1, … and the judged queries."""
    names = [f"d{n}" for n in range(documents)]
    return Retrieval({n: n for n in names}, {query: query for query in judgements}, judgements)


def test_ndcg_is_that_of_scikit_learn() -> None:
    """The values agree on random searches, with fewer and with more than ten relevant documents."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the convert extra")
    rng = np.random.default_rng(6)
    gains = rng.choice([0, 0, 0, 1, 2, 3], size=(40, 60))
    gains[:5, 8:] = 0
    judged = {
        f"q{q}": {f"d{d}": int(gain) for d, gain in enumerate(row) if gain} for q, row in enumerate(gains)
    }
    queries, documents = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 60))

    for k in (10, 3):
        pairs = zip(gains, queries @ documents.T, strict=True)
        expected = [metrics.ndcg_score(true[None], close[None], k=k) for true, close in pairs]
        assert (
            pytest.approx(expected, abs=1e-9) == ndcg(queries, documents, retrieval(judged, 60), k=k).tolist()
        )


# trec_eval sorts documents of equal cosine by id, as text and descending: d9, d11, d10.
@pytest.mark.parametrize(
    ("judged", "angles", "expected"),
    [
        ({"q": {"d9": 1}, "p": {"d11": 1}, "o": {"d10": 1}}, [*[90] * 9, 5, 5, 5], [1, 0.63093, 0.5]),
        ({"d0": {"d1": 1}}, [0, 1], [1]),  # a document with the id of the query is left out
        ({"q": {"d0": 0, "d1": -1}}, [0, 90], [0]),  # judgements of 0 and below are not relevant
    ],
)
def test_ndcg_follows_trec_eval(
    judged: dict[str, dict[str, int]], angles: list[float], expected: list[float]
) -> None:
    """Ties are ordered by id; a query is not its own result; without relevant documents nDCG is 0."""
    actual = ndcg(at_degrees(*[0] * len(judged)), at_degrees(*angles), retrieval(judged, len(angles)))

    assert pytest.approx(expected, abs=1e-5) == actual.tolist()


@pytest.mark.parametrize(
    ("reference", "candidate", "k", "overlap"),
    [
        ((0, 10, 50, 65), (0, 45, 50, 65), 1, 0.5),  # nearest neighbours: first 1 0 3 2, then 1 2 1 2
        ((0, 10, 25, 100), (0, 20, 5, 100), 2, 1.0),  # two nearest: 12 02 10 21, then the same sets
        ((0, 10, 25, 100), (0, 95, 25, 100), 2, 7 / 8),  # then 21 32 01 12
        (range(11), range(0, -11, -1), 10, 1.0),  # a mirror image has the same neighbours
    ],
)
def test_overlap_is_the_share_of_neighbours_kept(
    reference: Sequence[float], candidate: Sequence[float], k: int, overlap: float
) -> None:
    """The sets of the k nearest other vectors are compared; k vectors are too few for a result."""
    assert overlap == neighbour_overlap(at_degrees(*reference), at_degrees(*candidate), k=k)
    with pytest.raises(ValueError, match=rf"^{k} vectors; overlap@{k} needs more than {k}$"):
        neighbour_overlap(at_degrees(*range(k)), at_degrees(*range(k)), k=k)


def test_overlap_in_blocks_is_that_of_a_full_sort() -> None:
    """Collections of over 1024 rows, which take several blocks, have the same result."""
    rng = np.random.default_rng(3)
    reference, candidate = (rng.normal(size=(1100, 8)).astype(np.float32) for _ in range(2))
    nearest = [
        np.argsort(-(v @ v.T - 200 * np.eye(1100)), axis=1)[:, :10].tolist() for v in (reference, candidate)
    ]

    kept = sum(len({*old} & {*new}) for old, new in zip(*nearest, strict=True))
    assert pytest.approx(kept / 11000, abs=2e-4) == neighbour_overlap(reference, candidate)


def test_cosines_are_grouped_by_token_count() -> None:
    """Bins include both ends and have no gaps; a bin without texts is left out."""
    expected, actual = at_degrees(0, 0, 0, 0), at_degrees(0, 60, 90, 180)

    bins = cosine_by_length(expected, actual, np.array([1, 64, 129, 256]))

    assert {"1-64": Cosine(2, 0.75, 0.505, 0.5), "129-256": Cosine(2, -0.5, -0.99, -1.0)} == bins
    assert ["65-128"] == list(cosine_by_length(at_degrees(0, 0), at_degrees(0, 0), np.array([65, 128])))


def drift(
    cosine: dict[str, float] | None = None,
    overlap: dict[str, float] | None = None,
    sts: dict[str, float] | None = None,
    texts: int = 100,
) -> Drift:
    """Return a Drift with these mean cosines (in bins of `texts` texts), overlaps and Spearman deltas."""
    cosines = {name: Cosine(texts, mean, mean, mean) for name, mean in (cosine or {}).items()}
    changes = {name: Sts(100, 80.0, 80 + d, 80.0, 80.0, d - 0.1, d + 0.1) for name, d in (sts or {}).items()}
    return Drift("f32", "conv", cosines, overlap or {}, changes)


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (drift({"1-64": 0.99}), "mean cosine of texts of 1-64 tokens 0.99000 < 0.9975"),
        (drift({"1-64": 0.99}, texts=30), "mean cosine of texts of 1-64 tokens 0.99000 < 0.9975"),
        (drift({"1-64": NAN}), "mean cosine of texts of 1-64 tokens nan < 0.9975"),
        (drift(overlap={"news": 0.9}), "neighbour overlap@10 of news 0.9000 < 0.95"),
        (drift(overlap={"news": NAN}), "neighbour overlap@10 of news nan < 0.95"),
        (drift(sts={"dev": -0.5}), "Spearman on dev changed by -0.500 points, the limit is 0.1"),
        (drift(sts={"dev": 0.5}), "Spearman on dev changed by +0.500 points, the limit is 0.1"),
        (drift(sts={"dev": NAN}), "Spearman on dev changed by +nan points, the limit is 0.1"),
    ],
)
def test_an_exceeded_limit_is_named_with_both_numbers(measured: Drift, message: str) -> None:
    """A change in either direction counts, and NaN exceeds every limit."""
    assert [f"conv/f32: {message}"] == Gate().broken(measured)


def test_the_gate_lists_every_exceeded_limit_and_allows_the_limit_itself() -> None:
    """Bins of fewer than 30 texts are not judged; the summary has the worst figure of each kind."""
    bad = drift({"1-64": 0.9, "129-256": 0.8}, {"news": 0.5}, {"dev": -80})
    at_limit, too_few_texts = (
        drift({"1-64": 0.9}, {"news": 0.8}, {"dev": 0.5}),
        drift({"1-64": 0.5}, texts=29),
    )
    beyond_limit = drift({"1-64": 0.98}, {"news": 0.99}, {"dev": 0.4})

    assert len(Gate().broken(bad)) == 4
    assert Gate().broken(bad) * 2 == gate([bad, too_few_texts, bad], Gate())
    assert [] == gate([at_limit, too_few_texts], Gate(cosine_mean=0.9, overlap=0.8, spearman=0.5))
    expected = {"mean cosine": 0.9, "overlap@10": 0.8, "Spearman points": 0.5}
    assert (expected, {}) == (summarize([at_limit, too_few_texts, beyond_limit]), summarize([too_few_texts]))
    assert summarize([drift(sts={"a": 0.1, "b": -1})]) == {"Spearman points": -1}


def encoder(angles: dict[str, float]) -> Encode:
    """Return an encoder of texts with known angles; it fails if a text is encoded twice."""
    not_encoded_yet = dict(angles)

    def encode(texts: Sequence[str]) -> FloatArray:
        return at_degrees(*(not_encoded_yet.pop(text) for text in texts))

    return encode


def test_memoize_encodes_each_text_once() -> None:
    """Texts repeated in a call or in a later one get their stored vectors, in the order of the call."""
    encode = memoize(encoder({"x": 0, "y": 90, "z": 180}))

    assert at_degrees(0, 90, 0).tolist() == encode(["x", "y", "x"]).tolist()
    assert at_degrees(180, 90).tolist() == encode(["z", "y"]).tolist()


def test_measure_reports_known_figures() -> None:
    """Cosines, correlations and nDCG are correct for vectors that turn by known angles."""
    tokens = {"x": 64, "far": 65, "near": 200, "same": 300}
    corpus = Retrieval({"1": "far", "2": "near"}, {"3": "x"}, {"3": {"2": 1}})

    actual = measure(
        encoder({"x": 0, "far": 90, "near": 60, "same": 0}),
        encoder({"x": 0, "far": 60, "near": 90, "same": 0}),
        lambda texts: [tokens[text] for text in texts],
        Evaluation(
            {"dev": Pairs([0.0, 1.0, 2.0], ["x"] * 3, ["far", "near", "same"])}, retrieval={"news": corpus}
        ),
        precision="f32",
        lowering="native",
    )

    turned = 0.866025  # cos 30 degrees
    cosine = {
        "1-64": Cosine(1, 1.0, 1.0, 1.0),
        "65-128": Cosine(1, turned, turned, turned),
        "129-256": Cosine(2, 0.933013, 0.867365, turned),  # 300 tokens count as the 256 that are read
    }
    sts = {"dev": Sts(3, 100.0, 50.0, 100.0, 50.0, -200.0, 0.0)}  # some resamples have two pairs only
    ndcgs = {"news": Ndcg(2, 1, 100.0, 63.0930)}  # the relevant document is second: 1 / log2 3
    assert Drift("f32", "native", cosine, {}, sts, ndcgs) == actual  # four texts are too few for an overlap


def test_overlap_needs_more_than_30_distinct_texts() -> None:
    """Collections, and the sentences of pairs, are measured with 31 distinct texts, not with 30."""
    moved, unchanged = [f"moved {n}" for n in range(31)], [f"kept {n}" for n in range(31)]
    rng = np.random.default_rng(5)
    reference = dict(zip(moved + unchanged, rng.uniform(0, 360, 62).tolist(), strict=True))
    candidate = reference | dict(zip(moved, rng.uniform(0, 360, 31).tolist(), strict=True))
    pairs = Pairs([float(n) for n in range(31)], unchanged, unchanged[::-1])

    actual = measure(
        encoder(reference),
        encoder(candidate),
        lambda texts: [5] * len(texts),
        Evaluation({"dev": pairs}, {"few": moved[:30] * 2, "all": moved}),
        precision="f32",
        lowering="native",
    )

    assert list(actual.overlap) == ["dev", "all"]
    assert 1.0 == actual.overlap["dev"] > actual.overlap["all"]
