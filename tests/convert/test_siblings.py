"""Sentence encoders of other depth, width, length and pooling: converted, they stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import KINDS, SOON, TEXTS

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import Manifest

pytestmark = [pytest.mark.convert, pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")]

kinds = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in SOON else pytest.mark.slow) for kind in KINDS]
)


@kinds
def test_fp32_vectors_are_those_of_sentence_transformers(converted: Callable[[str], Path], kind: str) -> None:
    """Whatever the layers, the pooling and the length, and with every prompt: the same vectors at 1e-5."""
    folder = converted(kind)

    with Embedder.open(folder / "fp32", precision="f32") as embedder:
        for name, prompt in ({"plain": ""} | embedder.prompts).items():
            vectors = embedder.encode([prompt + text for text in TEXTS])

            np.testing.assert_allclose(vectors, np.load(folder / f"{name}.npy"), rtol=0, atol=1e-5)


@kinds
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_a_text_has_the_same_bits_in_every_batch(
    converted: Callable[[str], Path], kind: str, weights: str
) -> None:
    """In grids of every width up to the model's own, and beside any texts: not one bit differs."""
    rng = np.random.default_rng(7)
    texts = [*TEXTS, *("word " * int(n) for n in rng.integers(1, 160, 60))]

    with Embedder.open(converted(kind) / weights) as embedder:
        alone = np.stack([embedder.encode(text) for text in texts])
        together = embedder.encode(texts)
        backwards = embedder.encode(texts[::-1])[::-1]
        pairs = np.concatenate([embedder.encode(texts[i : i + 2]) for i in range(0, len(texts), 2)])

    assert [alone.tobytes()] * 3 == [vectors.tobytes() for vectors in (together, backwards, pairs)]


@kinds
def test_the_manifest_says_what_the_model_is(converted: Callable[[str], Path], kind: str) -> None:
    """Facts that MiniLM does not have are in the artefact, with a grid as wide as the model reads."""
    facts = KINDS[kind]

    manifest = Manifest.read(converted(kind) / "int8")

    spec = manifest.spec
    assert (facts.layers, facts.width, facts.heads) == (spec.layers, spec.dim, spec.heads)
    assert (facts.pooling, facts.max_tokens, facts.prompts) == (spec.pooling, spec.max_tokens, spec.prompts)
    assert max(grid.width for grid in manifest.grids) < 2 * facts.max_tokens
