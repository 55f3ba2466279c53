"""The torch-free stand-in: called as the real library is, beside the real library on the same vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.processes import python

from ov_minilm.integrations.sentence_transformers import SentenceTransformer

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are.", ""]


@pytest.fixture(scope="module")
def real() -> Any:
    """The library's own class around the same Embedder."""
    library = pytest.importorskip("sentence_transformers", reason="pip install -e '.[sentence-transformers]'")
    from ov_minilm.integrations.sentence_transformers_module import MiniLMModule

    return library.SentenceTransformer(modules=[MiniLMModule()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2, "show_progress_bar": False, "device": "cpu", "prompt_name": "query"},
        {"convert_to_tensor": True},
        {"precision": "binary"},
        {"precision": "ubinary"},
        {"truncate_dim": 64, "normalize_embeddings": True},
        {"prompt": "to find: "},
    ],
    ids=repr,
)
def test_arguments_mean_what_they_mean_there(options: dict[str, Any], real: Any) -> None:
    """The same call gives the same type, shape and values, of one text and of several."""
    for texts in (TEXTS[0], TEXTS):
        found, expected = SentenceTransformer().encode(texts, **options), real.encode(texts, **options)
        assert (type(expected), expected.dtype, expected.shape) == (type(found), found.dtype, found.shape)
        np.testing.assert_allclose(np.asarray(expected), np.asarray(found), atol=1e-7)


def test_similarities_and_sizes_are_the_librarys(real: Any) -> None:
    """Cosines of all pairs, as numpy, and how many components a vector has: all, or those that are kept."""
    ours, shorter, vectors = SentenceTransformer(), SentenceTransformer(truncate_dim=64), real.encode(TEXTS)
    sizes = (ours.get_sentence_embedding_dimension(), ours.max_seq_length)

    np.testing.assert_allclose(
        real.similarity(vectors, vectors), ours.similarity(vectors, vectors), atol=1e-6
    )
    assert (real.get_embedding_dimension(), real.max_seq_length) == sizes
    assert (64, (64,)) == (shorter.get_sentence_embedding_dimension(), shorter.encode("a").shape)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"output_value": "token_embeddings"}, "vectors of texts, not of tokens"),
        ({"output_value": None}, "vectors of texts, not of tokens"),
        ({"device": "cuda"}, "choose one of CPU"),
        ({"prompt_name": "passage"}, "choose one of query, document"),
        ({"precision": "int4"}, "choose one of float32"),
        ({"truncate_dim": 385}, "1 to 384"),
    ],
)
def test_what_it_cannot_do_is_refused(options: dict[str, Any], reason: str) -> None:
    """Vectors of tokens, another device, an unknown prompt and an unknown precision each say why."""
    with pytest.raises(ValueError, match=reason):
        SentenceTransformer().encode("a", **options)


def test_torch_is_not_needed() -> None:
    """Without torch and the library, everything but tensors works."""
    done = python(
        "import sys; sys.modules |= {'torch': None, 'sentence_transformers': None}\n"
        "from ov_minilm.integrations.sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(); vectors = model.encode(['a', 'b'])\n"
        "print(model.encode('a', precision='int8').dtype, model.similarity(vectors, vectors).shape)"
    )

    assert (0, "int8 (2, 2)\n") == (done.returncode, done.stdout), done.stderr
