"""The LangChain adapter in a LangChain vector store."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ov_minilm import Embedder

pytest.importorskip("langchain_core", reason="pip install -e '.[langchain]'")

from langchain_core.vectorstores import InMemoryVectorStore

from ov_minilm.integrations.langchain import MiniLMEmbeddings

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are.", ""]


def test_vectors_are_those_of_the_embedder(shipped: Embedder) -> None:
    """Documents and queries have the exact vectors of Embedder.encode, as Python floats."""
    embeddings = MiniLMEmbeddings()

    documents = embeddings.embed_documents(TEXTS)
    assert np.array_equal(shipped.encode(TEXTS), np.array(documents, np.float32))
    assert documents[0] == embeddings.embed_query(TEXTS[0])
    assert {float} == {type(value) for value in documents[0]}
    assert [] == embeddings.embed_documents([])


def test_a_vector_store_finds_what_is_meant() -> None:
    """A store of LangChain's, filled and asked in its own words, puts the right text first."""
    store = InMemoryVectorStore.from_texts(TEXTS, MiniLMEmbeddings())

    assert [TEXTS[0]] == [found.page_content for found in store.similarity_search("a pet indoors", k=1)]


def test_async_calls_give_the_same_vectors() -> None:
    """Many awaited calls at once give what one call gives."""
    embeddings = MiniLMEmbeddings()

    async def ask() -> list[list[float]]:
        return list(await asyncio.gather(*(embeddings.aembed_query(text) for text in TEXTS * 5)))

    assert embeddings.embed_documents(TEXTS * 5) == asyncio.run(ask())
    assert embeddings.embed_documents(TEXTS) == asyncio.run(embeddings.aembed_documents(TEXTS))
