"""The sentence-transformers module in the real library, and in libraries that ask for its class."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ov_minilm import Embedder

if TYPE_CHECKING:  # the library is imported in the tests: it takes ten seconds, in each process that collects
    from sentence_transformers import SentenceTransformer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="pip install -e '.[sentence-transformers]'",
)

ANIMALS = ["a cat sleeps on the sofa", "the dog barks at a cat", "two horses graze", "a horse and a dog run"]
MONEY = [
    "banks raise interest rates",
    "the stock market fell",
    "a bank lends money",
    "stock and money markets",
]
TEXTS = ANIMALS + MONEY


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    """A real SentenceTransformer of the one module."""
    from sentence_transformers import SentenceTransformer

    from ov_minilm.integrations.sentence_transformers_module import MiniLMModule

    return SentenceTransformer(modules=[MiniLMModule(threads=1, truncate="mean")])


def test_the_rest_is_the_librarys_own(model: SentenceTransformer, shipped: Embedder, tmp_path: Path) -> None:
    """Prompts, sizes, cut dimensions, precisions, similarities, and files for those who trust our code."""
    from sentence_transformers.util import quantize_embeddings

    vectors = shipped.encode(TEXTS)
    model.save_pretrained(str(tmp_path))
    module = type(model)(str(tmp_path), trust_remote_code=True)[0]

    assert (384, 256, 1, "mean") == (
        *(model.get_embedding_dimension(), model.max_seq_length),
        *(module.threads, module.truncate),
    )
    np.testing.assert_array_equal(shipped.encode("query: a cat"), model.encode("a cat", prompt="query: "))
    np.testing.assert_array_equal(vectors[:, :64], model.encode(TEXTS, truncate_dim=64))
    binary = quantize_embeddings(vectors, "ubinary")
    np.testing.assert_array_equal(binary, model.encode(TEXTS, precision="ubinary"))
    np.testing.assert_allclose(vectors @ vectors.T, model.similarity(vectors, vectors), atol=1e-6)
    with pytest.raises(ValueError, match="no token_embeddings: this model gives vectors of texts"):
        model.encode(TEXTS, output_value="token_embeddings")


def test_keybert_takes_it(model: SentenceTransformer) -> None:
    """KeyBERT, which asks isinstance, finds the words that a text is about."""
    keybert = pytest.importorskip("keybert", reason="pip install keybert")

    words = keybert.KeyBERT(model).extract_keywords(" ".join(MONEY), top_n=3)
    assert {"bank", "banks", "money", "stock", "interest"} & {word for word, _ in words}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # it imports by a name that the library gave up
def test_bertopic_takes_it(model: SentenceTransformer) -> None:
    """BERTopic, which asks isinstance, embeds with it and parts animals from money."""
    bertopic = pytest.importorskip("bertopic", reason="pip install bertopic")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    topics = bertopic.BERTopic(
        embedding_model=model, umap_model=PCA(2), hdbscan_model=KMeans(2, random_state=0, n_init=10)
    )
    found, _ = topics.fit_transform(TEXTS)
    assert 1 == len(set(found[:4])) == len(set(found[4:]))
    assert found[0] != found[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # imports of dozens of libraries
def test_mteb_evaluates_it(model: SentenceTransformer) -> None:
    """MTEB, which asks isinstance, scores it on a task made here: pairs in the order of their likeness."""
    mteb = pytest.importorskip("mteb", reason="pip install mteb")
    from datasets import Dataset
    from mteb.abstasks import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata

    class Pairs(AbsTaskSTS):  # type: ignore[misc]  # untyped where it is not installed
        metadata = TaskMetadata(
            name="Pairs",
            description="Four pairs made by hand.",
            dataset={"path": "none", "revision": "none"},
            type="STS",
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
        )

        def load_data(self, num_proc: object = None, **_options: object) -> None:  # noqa: ARG002
            rows = {
                "sentence1": ["a cat sleeps"] * 4,
                "sentence2": ["a cat is sleeping", "a dog sleeps", "a bird flies", "banks lend money"],
                "score": [5.0, 3.0, 1.0, 0.0],
            }
            self.dataset = {"test": Dataset.from_dict(rows)}
            self.data_loaded = True

    result = mteb.evaluate(model, Pairs(), cache=None)
    assert 1.0 == pytest.approx(result.task_results[0].get_score())
