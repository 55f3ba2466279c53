"""The LlamaIndex adapter in a LlamaIndex vector index."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ov_minilm import Embedder, ManifestInvalid

pytest.importorskip("llama_index.core", reason="pip install -e '.[llama-index]'")

from llama_index.core import Document, VectorStoreIndex
from pydantic import ValidationError

from ov_minilm.integrations.llama_index import MiniLMEmbedding

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]


def test_vectors_are_those_of_the_embedder(shipped: Embedder) -> None:
    """Texts and queries have the exact vectors of Embedder.encode, in batches of any size."""
    embedding = MiniLMEmbedding(embed_batch_size=3)

    vectors = embedding.get_text_embedding_batch(TEXTS * 4)
    assert np.array_equal(shipped.encode(TEXTS * 4), np.array(vectors, np.float32))
    assert vectors[0] == embedding.get_query_embedding(TEXTS[0]) == embedding.get_text_embedding(TEXTS[0])


def test_async_calls_give_the_same_vectors() -> None:
    """Awaited batches and queries give what plain calls give."""
    embedding = MiniLMEmbedding()

    expected = embedding.get_text_embedding_batch(TEXTS)
    assert expected == asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
    assert expected[0] == asyncio.run(embedding.aget_query_embedding(TEXTS[0]))


def test_an_index_finds_what_is_meant() -> None:
    """An index of LlamaIndex's, filled and asked in its own words, puts the right text first."""
    documents = [Document(text=text) for text in TEXTS]
    index = VectorStoreIndex.from_documents(documents, embed_model=MiniLMEmbedding())

    found = index.as_retriever(similarity_top_k=1).retrieve("a pet indoors")
    assert [TEXTS[0]] == [node.get_content() for node in found]


def test_it_is_stored_and_made_again() -> None:
    """A component goes through LlamaIndex's dict and keeps its values."""
    stored = MiniLMEmbedding(threads=1, truncate="mean").to_dict()

    made = MiniLMEmbedding.from_dict(stored)
    assert (1, "mean", 1) == (made.threads, made.truncate, made.embedder.info.threads)


def test_wrong_values_are_refused_when_it_is_made() -> None:
    """A folder without a model, an unknown choice and a typo each fail before the first text."""
    with pytest.raises(ManifestInvalid, match="no such folder"):
        MiniLMEmbedding(model="nowhere")
    with pytest.raises(ValidationError, match="'end', 'error' or 'mean'"):
        MiniLMEmbedding(truncate="middle")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"takes .*threads.*; not thread$"):
        MiniLMEmbedding(thread=1)  # type: ignore[call-arg]
    with pytest.raises(
        ValidationError, match="model_name is 'BAAI/bge-m3', but this model is sentence-transf"
    ):
        MiniLMEmbedding(model_name="BAAI/bge-m3")
