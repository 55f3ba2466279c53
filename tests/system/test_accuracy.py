"""The accuracy of the shipped model, measured on real sentences and long passages."""

from functools import partial
from typing import Literal

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.artefact.drift_record import Gate, gate
from ov_minilm.artefact.manifest import SHIPPED, Manifest
from ov_minilm.drift.evaluation import Evaluation
from ov_minilm.drift.scores import Encode, measure, memoize, spearman

pytestmark = [
    pytest.mark.accuracy,
    pytest.mark.convert,
    pytest.mark.slow,  # test_embedder.py compares with vectors of sentence-transformers in seconds
    pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning"),
]


@pytest.fixture(scope="module")
def reference(fp32: Embedder) -> Encode:
    """`encode` of the FP32 model, which computes each text once, because FP32 is slow."""
    return memoize(partial(fp32.encode, progress=False))


@pytest.mark.parametrize("lowering", ["native", "conv"])
def test_the_published_score_and_the_recorded_drift_are_reproduced(
    lowering: Literal["native", "conv"], fp32: Embedder, reference: Encode, evaluation: Evaluation
) -> None:
    """FP32 has Spearman 82.03 on the STS-B test set; INT8 is within the limits and near its manifest."""
    test = evaluation.pairs["stsb_test"]
    (recorded,) = (d for d in Manifest.read(SHIPPED).drift if (d.lowering, d.precision) == (lowering, "f32"))
    with Embedder.open(precision="f32", lowering=lowering) as int8:
        encode = partial(int8.encode, progress=False)
        drift = measure(reference, encode, fp32.count_tokens, evaluation, precision="f32", lowering=lowering)

    cosines = (reference(test.left) * reference(test.right)).sum(1)
    assert 82.03 == round(100 * spearman(cosines, np.array(test.scores)), 2)
    assert [] == gate([drift], Gate())
    for name, cosine in drift.cosine.items():
        assert cosine.mean == pytest.approx(recorded.cosine[name].mean, abs=2e-4)
        assert cosine.mean >= 0.9985
    assert {*evaluation.pairs, *evaluation.collections} == drift.overlap.keys()
    for name in drift.overlap.keys() & recorded.overlap.keys():
        assert drift.overlap[name] == pytest.approx(recorded.overlap[name], abs=0.005)
    for name, sts in drift.sts.items():
        assert sts.spearman == pytest.approx(recorded.sts[name].spearman, abs=0.08)
