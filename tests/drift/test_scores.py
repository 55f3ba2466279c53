"""Drift: our statistics are the textbook's, and the gate lets nothing over a limit through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ov_minilm.artefact.drift_record import Cosine, Drift, Gate, Ndcg, Sts, gate, worst
from ov_minilm.drift.evaluation import Evaluation, Pairs, Retrieval
from ov_minilm.drift.scores import (
    Encode,
    cosine_by_length,
    delta_interval,
    measure,
    ndcg,
    neighbour_overlap,
    once,
    pearson,
    ranks,
    resampled_spearman,
    spearman,
)
from ov_minilm.spec import FloatArray

NAN = float("nan")

score = st.integers(0, 10).map(lambda n: n / 2) | st.floats(-5, 5, width=16)  # halves: ties, as in STS-B
two_columns = st.lists(st.tuples(score, score), min_size=3, max_size=40)


def columns(pairs: list[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two columns, none of them constant: a correlation with a constant is not defined."""
    a, b = np.array(pairs).T
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    return a, b


def circle(*degrees: float) -> FloatArray:
    """Return unit vectors at these angles, [N, 2]."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def drift(
    cosine: dict[str, Cosine] | None = None,
    overlap: dict[str, float] | None = None,
    sts: dict[str, Sts] | None = None,
) -> Drift:
    """Make a measurement with only the figures that matter."""
    return Drift("f32", "conv", cosine or {}, overlap or {}, sts or {})


def mean_of(mean: float, texts: int = 100) -> Cosine:
    """Cosines of a bin with this mean."""
    return Cosine(texts, mean, mean, mean)


def moved_to(spearman: float) -> Sts:
    """STS scores that were 80 points in the reference."""
    return Sts(100, 80.0, spearman, 80.0, 80.0, spearman - 80.1, spearman - 79.9)


@settings(max_examples=300, deadline=None)
@given(two_columns)
def test_pearson_is_scipys(pairs: list[tuple[float, float]]) -> None:
    """Equal up to the order of summation."""
    a, b = columns(pairs)

    assert pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9) == pearson(a, b)


@settings(max_examples=300, deadline=None)
@given(two_columns)
def test_spearman_is_scipys(pairs: list[tuple[float, float]]) -> None:
    """Equal up to the order of summation, ties included."""
    a, b = columns(pairs)

    assert pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9) == spearman(a, b)


@settings(max_examples=300, deadline=None)
@given(st.lists(score, min_size=1, max_size=40))
def test_ranks_are_scipys(values: list[float]) -> None:
    """Exactly the average method, which halves represent without rounding."""
    assert stats.rankdata(values).tolist() == ranks(np.array(values)).tolist()


def test_equal_values_share_a_rank() -> None:
    """Three values at ranks 2, 3 and 4 have rank 3 each."""
    assert ranks(np.array([9.0, 4.0, 1.0, 4.0, 4.0])).tolist() == [5.0, 3.0, 1.0, 3.0, 3.0]


@settings(max_examples=200, deadline=None)
@given(two_columns, st.integers(0, 1000))
def test_the_spearman_of_a_resample_is_scipys(pairs: list[tuple[float, float]], seed: int) -> None:
    """Counting how often a row was drawn gives what drawing the rows and ranking them again gives."""
    a, b = columns(pairs)
    counts = np.bincount(np.random.default_rng(seed).integers(len(a), size=len(a)), minlength=len(a))
    drawn, other = np.repeat(a, counts), np.repeat(b, counts)
    assume(len(set(drawn)) > 1 and len(set(other)) > 1)

    found = resampled_spearman(a, b, np.stack([counts, np.ones(len(a), np.int64)]))

    assert pytest.approx(stats.spearmanr(drawn, other).statistic, abs=1e-9) == found[0]
    assert pytest.approx(spearman(a, b), abs=1e-9) == found[1]


def noisy(seed: int, noise: float, change: float) -> tuple[FloatArray, FloatArray, NDArray[np.float64]]:
    """Two columns of similarities that differ by `change`, and 300 scores with ties."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 11, 300) / 2
    before = scores + noise * rng.normal(size=300)
    after = before + change * rng.normal(size=300)
    return before.astype(np.float32), after.astype(np.float32), scores


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    """Another implementation, with draws of its own, bounds the change at the same places."""
    before, after, scores = noisy(seed=1, noise=1.0, change=0.4)

    def change(a: FloatArray, b: FloatArray, human: NDArray[np.float64]) -> float:
        return spearman(b, human) - spearman(a, human)

    theirs = stats.bootstrap(
        (before, after, scores),
        change,
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert pytest.approx((theirs.low, theirs.high), abs=0.003) == delta_interval(before, after, scores)
    assert 0.003 < (theirs.high - theirs.low) / 3  # so the tolerance cannot hide another interval


def test_the_interval_is_the_same_each_time_and_around_the_change() -> None:
    """The draws are fixed; a column that was spoilt is bounded away from no change."""
    before, after, scores = noisy(seed=3, noise=0.5, change=3.0)

    low, high = delta_interval(before, after, scores)

    assert (low, high) == delta_interval(before, after, scores)
    assert low < spearman(after, scores) - spearman(before, scores) < high < 0


def test_pairing_cancels_what_both_columns_find_hard() -> None:
    """The same similarities in another scale have not changed at all, however noisy the file."""
    before, _, scores = noisy(seed=4, noise=5.0, change=0.0)

    assert (0.0, 0.0) == delta_interval(before, 2 * before + 1, scores)


def test_an_interval_needs_resamples_that_vary() -> None:
    """Resamples of one value only are left out; a file of one value only has no interval."""
    two, same = np.array([0.0, 1.0]), np.array([2.0, 2.0])

    assert (0.0, 0.0) == delta_interval(two, two, two)
    assert np.isnan(delta_interval(two, two, same)).all()


def search(judgements: dict[str, dict[str, int]], documents: int = 12) -> Retrieval:
    """Documents d0, d1, … and the queries that are judged."""
    names = [f"d{n}" for n in range(documents)]
    return Retrieval({n: n for n in names}, {query: query for query in judgements}, judgements)


def test_ndcg_by_hand() -> None:
    """Of gains of 3, 2 and 1 to be had, 3 and 1 were found, at ranks 2 and 3."""
    retrieval = search({"q": {"d1": 3, "d2": 1, "d5": 2, "d0": 0, "d3": -1}}, documents=6)

    found = ndcg(circle(0), circle(1, 2, 3, 4, 5, 90), retrieval, k=5)

    had, could = 3 / np.log2(3) + 1 / np.log2(4), 3 / np.log2(2) + 2 / np.log2(3) + 1 / np.log2(4)
    assert pytest.approx([had / could], abs=1e-12) == found.tolist()
    assert 0.50249 == round(had / could, 5)


def test_ndcg_is_that_of_scikit_learn() -> None:
    """Another implementation agrees on random searches, with more than ten to find and with fewer."""
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the convert extra")
    rng = np.random.default_rng(6)
    gains = rng.choice([0, 0, 0, 1, 2, 3], size=(40, 60))
    gains[:5, 8:] = 0
    judgements = {
        f"q{q}": {f"d{d}": int(gain) for d, gain in enumerate(row) if gain} for q, row in enumerate(gains)
    }
    queries, documents = (rng.normal(size=(n, 8)).astype(np.float32) for n in (40, 60))

    found = ndcg(queries, documents, search(judgements, 60))

    expected = [
        metrics.ndcg_score(true[None], near[None], k=10)
        for true, near in zip(gains, queries @ documents.T, strict=True)
    ]
    assert pytest.approx(expected, abs=1e-9) == found.tolist()


def test_of_equal_cosines_the_larger_id_comes_first() -> None:
    """As trec_eval has it: by letters, so d9 is before d11 and d10."""
    retrieval = search({"q": {"d9": 1}, "p": {"d11": 1}, "o": {"d10": 1}})

    found = ndcg(circle(0, 0, 0), circle(*[90] * 9, 5, 5, 5), retrieval)

    assert pytest.approx([1.0, 1 / np.log2(3), 1 / np.log2(4)], abs=1e-12) == found.tolist()


def test_a_query_is_not_its_own_answer() -> None:
    """A document with the id of the query is passed over, and one more rank is looked at."""
    retrieval = search({"d0": {"d2": 1}}, documents=3)

    assert [1.0] == ndcg(circle(0), circle(0, 90, 10), retrieval, k=1).tolist()


def test_a_query_with_nothing_to_find_has_none_of_it() -> None:
    """Judgements of 0 and below are no answers: the query counts as 0, as in trec_eval."""
    assert [0.0] == ndcg(circle(0), circle(0, 90), search({"q": {"d0": 0, "d1": -1}}, 2)).tolist()


def test_identical_vectors_keep_all_neighbours() -> None:
    """No drift, no loss; a mirror image of the whole space is none either."""
    vectors = circle(*np.random.default_rng(1).uniform(0, 360, 50))

    assert neighbour_overlap(vectors, vectors.copy()) == 1.0
    assert neighbour_overlap(vectors, vectors[:, ::-1].copy()) == 1.0


def test_overlap_by_hand() -> None:
    """With k = 1, the first and the last of four vectors keep their nearest other, the two between do not."""
    expected, found = circle(0, 10, 50, 65), circle(0, 45, 50, 65)  # nearest: 1 0 3 2, then 1 2 1 2

    assert neighbour_overlap(expected, found, k=1) == 0.5


def test_overlap_counts_shares_not_order() -> None:
    """With k = 2, one neighbour of two kept is a half, and which of the two is nearer is no matter."""
    expected = circle(0, 10, 25, 100)  # nearest two: 12 02 10 21
    reordered = circle(0, 20, 5, 100)  # nearest two: 21 20 01 12
    moved = circle(0, 95, 25, 100)  # nearest two: 21 32 01 12

    assert neighbour_overlap(expected, reordered, k=2) == 1.0
    assert neighbour_overlap(expected, moved, k=2) == 7 / 8


def test_overlap_of_many_vectors_is_that_of_a_full_sort() -> None:
    """More rows than one block of the similarity matrix give what sorting whole rows gives."""
    rng = np.random.default_rng(3)
    expected = rng.normal(size=(1100, 8)).astype(np.float32)
    found = rng.normal(size=(1100, 8)).astype(np.float32)  # so little is kept that counting itself shows

    def nearest(vectors: FloatArray) -> list[set[int]]:
        order = np.argsort(-(vectors @ vectors.T), axis=1)
        return [set([i for i in row.tolist() if i != me][:10]) for me, row in enumerate(order)]

    kept = sum(len(old & new) for old, new in zip(nearest(expected), nearest(found), strict=True))
    assert pytest.approx(kept / 11000, abs=2e-4) == neighbour_overlap(expected, found)


def test_too_few_vectors_have_no_overlap() -> None:
    """With ten others or fewer every overlap would be perfect; eleven vectors are enough."""
    with pytest.raises(ValueError, match=r"^10 vectors; overlap@10 needs more than 10$"):
        neighbour_overlap(circle(*range(10)), circle(*range(10)))
    assert neighbour_overlap(circle(*range(11)), circle(*range(11))) == 1.0


def test_cosines_fall_into_bins_by_tokens() -> None:
    """Bins include both ends, and a bin without texts is left out."""
    expected, found = circle(0, 0, 0, 0), circle(0, 60, 90, 180)

    bins = cosine_by_length(expected, found, np.array([1, 64, 129, 256]))

    assert {"1-64": Cosine(2, 0.75, 0.505, 0.5), "129-256": Cosine(2, -0.5, -0.99, -1.0)} == bins


@pytest.mark.parametrize(
    ("tokens", "name"), [(64, "1-64"), (65, "65-128"), (128, "65-128"), (129, "129-256")]
)
def test_bins_meet_without_gap(tokens: int, name: str) -> None:
    """Every length from 1 to 256 is in exactly one bin."""
    assert [name] == list(cosine_by_length(circle(0), circle(0), np.array([tokens])))


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (drift({"1-64": mean_of(0.99)}), "conv/f32: mean cosine of texts of 1-64 tokens 0.99000 < 0.9975"),
        (drift({"1-64": mean_of(NAN)}), "conv/f32: mean cosine of texts of 1-64 tokens nan < 0.9975"),
        (drift(overlap={"news": 0.9}), "conv/f32: neighbour overlap@10 of news 0.9000 < 0.95"),
        (drift(overlap={"news": NAN}), "conv/f32: neighbour overlap@10 of news nan < 0.95"),
        (
            drift(sts={"dev": moved_to(79.5)}),
            "conv/f32: Spearman on dev moved by -0.500 points, allowed is 0.1",
        ),
        (
            drift(sts={"dev": moved_to(80.5)}),
            "conv/f32: Spearman on dev moved by +0.500 points, allowed is 0.1",
        ),
        (drift(sts={"dev": moved_to(NAN)}), "conv/f32: Spearman on dev moved by +nan points, allowed is 0.1"),
    ],
)
def test_a_broken_limit_is_named_with_both_numbers(measured: Drift, message: str) -> None:
    """Too far either way is too far, and a figure that is no number passes no limit."""
    assert [message] == Gate().broken(measured)


def test_every_broken_limit_is_named() -> None:
    """One bad figure does not hide another, in one measurement or in several."""
    bad = drift({"1-64": mean_of(0.9), "129-256": mean_of(0.8)}, {"news": 0.5}, {"dev": moved_to(0.0)})

    assert len(Gate().broken(bad)) == 4
    assert Gate().broken(bad) * 2 == gate([bad, drift(), bad], Gate())


def test_figures_at_their_limits_pass() -> None:
    """The limit itself is allowed."""
    just = drift({"1-64": mean_of(0.9)}, {"news": 0.8}, {"dev": moved_to(80.5)})

    assert Gate(cosine_mean=0.9, overlap=0.8, spearman=0.5).broken(just) == []


def test_a_mean_over_few_texts_is_not_gated() -> None:
    """29 texts say too little about a bin to refuse a build; 30 are enough."""
    few, enough = drift({"1-64": mean_of(0.5, texts=29)}), drift({"1-64": mean_of(0.5, texts=30)})

    assert [len(Gate().broken(few)), len(Gate().broken(enough))] == [0, 1]


def test_worst_figures_summarise() -> None:
    """The lowest cosine and overlap, and the largest move either way; what nobody measured is left out."""
    drifts = [
        drift(
            {"1-64": mean_of(0.99), "65-128": mean_of(0.5, texts=29)}, {"news": 0.97}, {"dev": moved_to(80.1)}
        ),
        drift({"1-64": mean_of(0.98)}, {"news": 0.99}, {"dev": moved_to(79.0)}),
    ]

    assert worst(drifts) == {"mean cosine": 0.98, "overlap@10": 0.97, "Spearman points": -1.0}
    assert worst([drift()]) == {}


def encoder(angles: dict[str, float]) -> Encode:
    """Make an encoder that knows the angle of every text it may be asked for."""

    def encode(texts: Sequence[str]) -> FloatArray:
        assert len(set(texts)) == len(texts)  # each is encoded once
        return circle(*(angles[text] for text in texts))

    return encode


def test_once_asks_for_each_text_one_time() -> None:
    """Repeated texts, in one call or in several, come from memory, each in its place."""
    asked: list[str] = []

    def encode(texts: Sequence[str]) -> FloatArray:
        asked.extend(texts)
        return np.array([[len(text), 0.0] for text in texts], np.float32).reshape(-1, 2)

    remembering = once(encode)

    assert [[1, 0], [2, 0], [1, 0]] == remembering(["a", "bb", "a"]).tolist()
    assert [[3, 0], [2, 0]] == remembering(["ccc", "bb"]).tolist()
    assert ["a", "bb", "ccc"] == asked


def test_measure_by_hand() -> None:
    """Two of four vectors turn by 30 degrees, so two of three pairs change places: rho falls to 1/2."""
    pairs = Pairs([0.0, 1.0, 2.0], ["x", "x", "x"], ["far", "near", "same"])
    tokens = {"x": 64, "far": 65, "near": 200, "same": 300}

    found = measure(
        encoder({"x": 0, "far": 90, "near": 60, "same": 0}),
        encoder({"x": 0, "far": 60, "near": 90, "same": 0}),
        lambda texts: [tokens[text] for text in texts],
        Evaluation(
            {"dev": pairs},
            retrieval={"news": Retrieval({"1": "far", "2": "near"}, {"3": "x"}, {"3": {"2": 1}})},
        ),
        precision="f32",
        lowering="native",
    )

    turned = 0.866025  # cos 30 degrees
    expected = Drift(
        "f32",
        "native",
        cosine={
            "1-64": Cosine(1, 1.0, 1.0, 1.0),
            "65-128": Cosine(1, turned, turned, turned),
            "129-256": Cosine(2, 0.933013, 0.867365, turned),  # 300 tokens count as the 256 that are read
        },
        overlap={},  # four texts are too few
        sts={
            "dev": Sts(3, 100.0, 50.0, 100.0, 50.0, -200.0, 0.0)
        },  # of two pairs, their order may turn round
        ndcg={"news": Ndcg(2, 1, 100.0, 63.0930)},  # the answer fell to the second rank: 1 / log2 3
    )
    assert expected == found


def test_overlap_is_measured_in_collections_that_are_large_enough() -> None:
    """Collections and the sentences of pairs count alike; 30 distinct texts are too few, 31 are not."""
    moved, kept = [f"moved {n}" for n in range(31)], [f"kept {n}" for n in range(31)]
    rng = np.random.default_rng(5)
    before = dict(zip(moved + kept, rng.uniform(0, 360, 62).tolist(), strict=True))
    after = before | dict(zip(moved, rng.uniform(0, 360, 31).tolist(), strict=True))

    found = measure(
        encoder(before),
        encoder(after),
        lambda texts: [5] * len(texts),
        Evaluation(
            {"dev": Pairs([float(n) for n in range(31)], kept, kept[::-1])},
            {"few": moved[:30] * 2, "all": moved},
        ),
        precision="f32",
        lowering="native",
    )

    assert list(found.overlap) == ["dev", "all"]
    assert 1.0 == found.overlap["dev"] > found.overlap["all"]
