"""Our class, which needs no torch, and our module in the real library return equal vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.processes import python

from ov_minilm.integrations.sentence_transformers import SentenceTransformer

ANIMALS = ["a cat sleeps on the sofa", "the dog barks at a cat", "two horses graze", "a horse and a dog run"]
MONEY = [
    "banks raise interest rates",
    "the stock market fell",
    "a bank lends money",
    "stock and money markets",
]
TEXTS = [*ANIMALS, *MONEY, ""]


@pytest.fixture(scope="module")
def library_model() -> Any:
    """A SentenceTransformer of the real library, with our module."""
    library = pytest.importorskip("sentence_transformers", reason="pip install -e '.[sentence-transformers]'")
    from ov_minilm.integrations.sentence_transformers_module import MiniLMModule

    return library.SentenceTransformer(modules=[MiniLMModule(threads=1, truncate="mean")])


@pytest.fixture(scope="module")
def torch_free() -> SentenceTransformer:
    """Our class with the same options."""
    return SentenceTransformer(threads=1, truncate="mean")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2, "show_progress_bar": False, "device": "cpu", "prompt_name": "query"},
        {"convert_to_tensor": True, "pool": None},
        {"convert_to_numpy": False},
        {"precision": "binary"},
        {"precision": "ubinary"},
        {"truncate_dim": 64, "normalize_embeddings": True},
        {"prompt": "to find: "},
    ],
    ids=repr,
)
def test_arguments_mean_the_same_in_both_classes(
    options: dict[str, Any], library_model: Any, torch_free: SentenceTransformer
) -> None:
    """An equal call returns the same type, shape and values, for one text and for several."""
    for texts in (TEXTS[0], TEXTS):
        actual, expected = torch_free.encode(texts, **options), library_model.encode(texts, **options)
        for one, other in ((expected, actual), (expected[0], actual[0])):
            assert (type(one), getattr(one, "dtype", 0)) == (type(other), getattr(other, "dtype", 0))
        assert np.shape(expected) == np.shape(actual)
        np.testing.assert_allclose(np.asarray(expected), np.asarray(actual), atol=1e-7)


def test_sizes_and_similarities_are_the_same_in_both_classes(
    library_model: Any, torch_free: SentenceTransformer, tmp_path: Path
) -> None:
    """Sizes and similarities are equal; the library saves and loads our module with its options."""
    short, vectors = SentenceTransformer(truncate_dim=64), library_model.encode(TEXTS)
    library_model.save_pretrained(str(tmp_path))
    loaded = type(library_model)(str(tmp_path), trust_remote_code=True)[0]

    assert (384, 256) == (torch_free.get_sentence_embedding_dimension(), torch_free.max_seq_length)
    assert (384, 256) == (library_model.get_embedding_dimension(), library_model.max_seq_length)
    with pytest.raises(AttributeError, match="no start_multi_process_pool: encode uses threads= CPUs"):
        torch_free.start_multi_process_pool()  # type: ignore[attr-defined]  # no such attribute
    assert (64, (64,)) == (short.get_embedding_dimension(), short.encode("a").shape)
    assert (1, "mean") == (loaded.threads, loaded.truncate)
    similarities = library_model.similarity(vectors, vectors)
    np.testing.assert_allclose(similarities, torch_free.similarity(vectors, vectors), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_value": "token_embeddings"}, "vectors of texts, not of tokens"),
        ({"output_value": None}, "vectors of texts, not of tokens"),
        ({"device": "cuda"}, "choose one of CPU"),
        ({"prompt_name": "passage"}, "choose one of query, document"),
        ({"precision": "int4"}, "choose one of float32"),
        ({"truncate_dim": 385}, "1 to 384"),
        ({"pool": {}}, "encode takes no pool: write threads="),
        ({"device": ["cpu", "cpu"]}, "choose one of CPU"),
    ],
)
def test_unsupported_arguments_are_refused(
    options: dict[str, Any], message: str, library_model: Any, torch_free: SentenceTransformer
) -> None:
    """Vectors of tokens, another device, an unknown prompt, precision or size: the error says why."""
    with pytest.raises((ValueError, TypeError), match=message):
        torch_free.encode("a", **options)
    if "token_embeddings" in options.values():
        with pytest.raises(ValueError, match=message):
            library_model.encode("a", **options)


def test_the_class_needs_no_torch() -> None:
    """Without torch and the library, everything but tensors works."""
    result = python(
        "import sys; sys.modules |= {'torch': None, 'sentence_transformers': None}\n"
        "from ov_minilm.integrations.sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(); vectors = model.encode(['a', 'b'])\n"
        "print(model.encode('a', precision='int8').dtype, model.similarity(vectors, vectors).shape)"
    )

    assert (0, "int8 (2, 2)\n") == (result.returncode, result.stdout), result.stderr


def test_keybert_accepts_the_module(library_model: Any) -> None:
    """KeyBERT, which checks the model with isinstance (as BERTopic and MTEB do), finds keywords."""
    keybert = pytest.importorskip("keybert", reason="pip install keybert")

    keywords = keybert.KeyBERT(library_model).extract_keywords(" ".join(MONEY), top_n=3)

    assert {"bank", "banks", "money", "stock", "interest"} & {word for word, _ in keywords}
