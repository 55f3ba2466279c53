"""What the shipped model costs, measured again on real sentences and long passages."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from support.processes import python

from ov_minilm import Embedder, TruncationWarning
from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.drift.scores import Encode, measure, once, spearman

pytestmark = [
    pytest.mark.accuracy,
    pytest.mark.convert,
    pytest.mark.filterwarnings(f"ignore::{TruncationWarning.__module__}.TruncationWarning"),
]

ENCODE = """
import warnings, numpy as np
from ov_minilm import Embedder, TruncationWarning
from ov_minilm.drift.evaluation import find
warnings.simplefilter("ignore", TruncationWarning)
data = find([], [])
with Embedder.open(precision="f32") as embedder:
    texts = data.pairs["stsb_test"].texts[::4] + data.collections["passages"][::16]
    np.save({path!r}, embedder.encode(texts))
"""


@pytest.fixture(scope="module")
def reference(fp32: Embedder) -> Encode:
    """FP32's `encode`, which does no text twice: it takes most of the time here."""
    return once(partial(fp32.encode, progress=False))


def test_fp32_reproduces_the_published_score(reference: Encode, evaluation: Evaluation) -> None:
    """Spearman on the STS-B test set is 82.03, as published for this model."""
    pairs = evaluation.pairs["stsb_test"]

    cosines = (reference(pairs.left) * reference(pairs.right)).sum(1)

    assert 82.03 == round(100 * spearman(cosines, np.array(pairs.scores)), 2)


SLOW = [pytest.param(lowering, 1, marks=pytest.mark.slow) for lowering in ("native", "conv")]


@pytest.mark.parametrize(("lowering", "every"), [("native", 8), *SLOW])
def test_the_drift_in_the_shipped_manifest_is_reproduced(
    lowering: Literal["native", "conv"], every: int, fp32: Embedder, reference: Encode, evaluation: Evaluation
) -> None:
    """Measured here, every figure is within the gate, and near what the build wrote down.

    On all texts, or on the STS test set and every eighth passage.
    """
    if every > 1:
        pairs, passages = evaluation.pairs["stsb_test"], evaluation.collections["passages"][::every]
        evaluation = Evaluation({"stsb_test": pairs}, {"some": passages})
    (recorded,) = (d for d in Manifest.read(SHIPPED).drift if (d.lowering, d.precision) == (lowering, "f32"))
    with Embedder.open(precision="f32", lowering=lowering) as int8:
        found = measure(
            reference,
            partial(int8.encode, progress=False),
            fp32.count_tokens,
            evaluation,
            precision="f32",
            lowering=lowering,
        )

    assert [] == gate([found], Gate())
    for name, cosine in found.cosine.items():
        assert cosine.mean == pytest.approx(recorded.cosine[name].mean, abs=2e-4)
        assert cosine.mean >= 0.9985
    assert {*evaluation.pairs, *evaluation.collections} == found.overlap.keys()
    for name in found.overlap.keys() & recorded.overlap.keys():
        assert found.overlap[name] == pytest.approx(recorded.overlap[name], abs=0.005)
    for name, sts in found.sts.items():
        assert sts.spearman == pytest.approx(recorded.sts[name].spearman, abs=0.08)


@pytest.mark.usefixtures("evaluation")
def test_vectors_carry_over_between_kinds_of_cpu(tmp_path: Path) -> None:
    """A CPU without VNNI gives nearly the vectors of this one: mean cosine 0.9998, least 0.997."""
    vectors = []
    for isa in ("ALL", "AVX2"):
        path = tmp_path / f"{isa}.npy"
        done = python(ENCODE.format(path=str(path)), ONEDNN_MAX_CPU_ISA=isa)
        assert 0 == done.returncode, done.stderr
        vectors.append(np.load(path))

    cosines = (vectors[0] * vectors[1]).sum(1)

    assert cosines.mean() >= 0.9998
    assert cosines.min() >= 0.997
