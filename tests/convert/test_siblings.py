"""Sentence encoders of another depth, width, length or pooling keep their vectors when converted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import FAST_KINDS, KINDS, TEXTS

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import Manifest

pytestmark = [pytest.mark.convert, pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in FAST_KINDS else pytest.mark.slow) for kind in KINDS]
)
def test_a_converted_model_keeps_its_vectors(converted: Callable[[str], Path], kind: str) -> None:
    """FP32 equals sentence-transformers to 1e-5, with every prompt; every batch gives the same bits."""
    folder, properties = converted(kind), KINDS[kind]
    rng = np.random.default_rng(7)
    texts = [*TEXTS, *("word " * int(n) for n in rng.integers(1, 160, 60))]

    for weights in ("fp32", "int8"):
        with Embedder.open(folder / weights, precision="f32" if weights == "fp32" else "auto") as embedder:
            for name, prompt in ({"plain": ""} | embedder.prompts).items() if weights == "fp32" else ():
                vectors = embedder.encode([prompt + text for text in TEXTS])
                np.testing.assert_allclose(vectors, np.load(folder / f"{name}.npy"), rtol=0, atol=1e-5)
            single_vectors = np.stack([embedder.encode(text) for text in texts]).tobytes()
            assert single_vectors == embedder.encode(texts).tobytes()
            assert single_vectors == embedder.encode(texts[::-1])[::-1].tobytes()
            assert single_vectors == b"".join(
                embedder.encode(texts[i : i + 2]).tobytes() for i in range(0, len(texts), 2)
            )

    manifest = Manifest.read(folder / "int8")
    spec = manifest.spec
    assert (properties.layers, properties.width, properties.heads) == (spec.layers, spec.dim, spec.heads)
    assert (properties.pooling, properties.max_tokens, properties.prompts) == (
        spec.pooling,
        spec.max_tokens,
        spec.prompts,
    )
    assert max(grid.width for grid in manifest.grids) < 2 * properties.max_tokens
