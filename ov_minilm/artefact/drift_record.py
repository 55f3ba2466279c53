"""Measured drift of an artefact, and the limits (the gate) that a build must keep: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NEIGHBOURS = 10  # k of overlap@k and nDCG@k
# fewer texts are not compared with a limit; overlap needs more than this number
MIN_TEXTS_TO_GATE = 30


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
    # in 95 % of bootstrap resamples of the pairs, `delta` is between delta_low and delta_high
    delta_low: float
    delta_high: float

    @property
    def delta(self) -> float:
        """Spearman points gained (+) or lost (-) against the reference."""
        return self.spearman - self.spearman_reference


@dataclass(frozen=True, slots=True)
class Ndcg:
    """How well a search ranks documents judged relevant by people: nDCG@10 in points (100 x the mean)."""

    documents: int
    queries: int
    ndcg_reference: float
    ndcg: float

    @property
    def delta(self) -> float:
        """Points gained (+) or lost (-) against the reference."""
        return self.ndcg - self.ndcg_reference


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of an artefact with one precision and one lowering."""

    precision: str
    lowering: str
    cosine: dict[str, Cosine]  # range of token counts, such as "1-64" -> cosine
    # collection -> share of each text's ten nearest neighbours in FP32 that are the same in INT8
    overlap: dict[str, float]
    sts: dict[str, Sts]  # file of sentence pairs -> change of Spearman
    ndcg: dict[str, Ndcg] = field(default_factory=dict)  # folder of a search -> nDCG; without a limit


@dataclass(frozen=True, slots=True)
class Gate:
    """The limits of drift that a build must keep. Means of fewer than `few` texts have no limit."""

    cosine_mean: float = 0.9975
    overlap: float = 0.95
    spearman: float = 0.1  # largest change in points, up or down
    few: int = field(default=MIN_TEXTS_TO_GATE, repr=False)

    def broken(self, drift: Drift) -> list[str]:
        """Return a message for every limit that `drift` breaks, with the value and the limit."""
        config = f"{drift.lowering}/{drift.precision}"
        messages = [
            f"{config}: mean cosine of texts of {name} tokens {cosine.mean:.5f} < {self.cosine_mean}"
            for name, cosine in drift.cosine.items()
            if cosine.texts >= self.few and not cosine.mean >= self.cosine_mean
        ]
        messages += [
            f"{config}: neighbour overlap@{NEIGHBOURS} of {name} {overlap:.4f} < {self.overlap}"
            for name, overlap in drift.overlap.items()
            if not overlap >= self.overlap
        ]
        messages += [
            f"{config}: Spearman on {name} changed by {sts.delta:+.3f} points, the limit is {self.spearman}"
            for name, sts in drift.sts.items()
            if not abs(sts.delta) <= self.spearman
        ]
        return messages


def gate(drifts: Sequence[Drift], limits: Gate) -> list[str]:
    """Return a message for every limit that one of these measurements breaks."""
    return [line for drift in drifts for line in limits.broken(drift)]


def summarize(drifts: Sequence[Drift]) -> Mapping[str, float]:
    """Return the lowest "mean cosine", the lowest "overlap@10" and the largest change in "Spearman points".

    Kinds that were not measured are left out.
    """
    figures = {}
    cosines = [
        cosine.mean
        for drift in drifts
        for cosine in drift.cosine.values()
        if cosine.texts >= MIN_TEXTS_TO_GATE
    ]
    if cosines:
        figures["mean cosine"] = min(cosines)
    overlaps = [overlap for drift in drifts for overlap in drift.overlap.values()]
    if overlaps:
        figures[f"overlap@{NEIGHBOURS}"] = min(overlaps)
    deltas = [sts.delta for drift in drifts for sts in drift.sts.values()]
    if deltas:
        figures["Spearman points"] = max(deltas, key=abs)
    return figures
