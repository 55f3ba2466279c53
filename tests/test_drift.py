"""Drift: our statistics are the textbook's, and the gate lets nothing over a limit through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ov_minilm.drift import (
    Cosine,
    Drift,
    Encode,
    Gate,
    Sts,
    cosine_by_length,
    gate,
    measure,
    neighbour_overlap,
    pearson,
    ranks,
    spearman,
    worst,
)
from ov_minilm.evaluation import Evaluation, Pairs
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
    return Sts(100, 80.0, spearman, 80.0, 80.0)


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


def test_measure_by_hand() -> None:
    """Two of four vectors turn by 30 degrees, so two of three pairs change places: rho falls to 1/2."""
    pairs = Pairs([0.0, 1.0, 2.0], ["x", "x", "x"], ["far", "near", "same"])
    tokens = {"x": 64, "far": 65, "near": 200, "same": 300}

    found = measure(
        encoder({"x": 0, "far": 90, "near": 60, "same": 0}),
        encoder({"x": 0, "far": 60, "near": 90, "same": 0}),
        lambda texts: [tokens[text] for text in texts],
        Evaluation({"dev": pairs}),
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
        sts={"dev": Sts(3, 100.0, 50.0, 100.0, 50.0)},
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
