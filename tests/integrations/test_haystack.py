"""The Haystack adapters in a pipeline that is stored, loaded and run."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ov_minilm import Embedder

pytest.importorskip("haystack", reason="pip install -e '.[haystack]'")

from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ov_minilm.integrations.haystack import MiniLMDocumentEmbedder, MiniLMTextEmbedder

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]
MODULE = "ov_minilm.integrations.haystack"


def test_vectors_are_those_of_the_embedder(shipped: Embedder) -> None:
    """Documents and queries have the exact vectors of Embedder.encode; what was given stays as it was."""
    documents = [Document(content=text) for text in TEXTS]

    embedded = MiniLMDocumentEmbedder().run(documents)["documents"]
    vectors = np.array([document.embedding for document in embedded], np.float32)
    assert np.array_equal(shipped.encode(TEXTS), vectors)
    assert embedded[0].embedding == MiniLMTextEmbedder().run(TEXTS[0])["embedding"]
    assert [None, None] == [document.embedding for document in documents]


def test_async_calls_give_the_same_vectors() -> None:
    """Awaited components give what plain ones give."""
    documents = [Document(content=text) for text in TEXTS]

    assert MiniLMDocumentEmbedder().run(documents) == asyncio.run(
        MiniLMDocumentEmbedder().run_async(documents)
    )
    assert MiniLMTextEmbedder().run("a") == asyncio.run(MiniLMTextEmbedder().run_async("a"))


def test_meta_is_embedded_before_the_text(shipped: Embedder) -> None:
    """The named fields come first, a line each; missing ones leave no line, and no content is no text."""
    embedder = MiniLMDocumentEmbedder(meta_fields_to_embed=("title", "year"))
    documents = [Document(content="Body.", meta={"title": "Head", "other": "x"}), Document(meta={"year": 1})]

    embedded = embedder.run(documents)["documents"]
    vectors = np.array([document.embedding for document in embedded], np.float32)
    assert np.array_equal(shipped.encode(["Head\nBody.", "1\n"]), vectors)


def test_a_pipeline_finds_what_is_meant_after_it_was_stored() -> None:
    """A pipeline goes through Haystack's YAML, which has to be told to trust the adapter, and still finds."""
    store = InMemoryDocumentStore()
    store.write_documents(
        MiniLMDocumentEmbedder(threads=1).run([Document(content=t) for t in TEXTS])["documents"]
    )
    pipeline = Pipeline()
    pipeline.add_component("embedder", MiniLMTextEmbedder(threads=1))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")

    question = {"embedder": {"text": "a pet indoors"}}
    found = pipeline.run(question)["retriever"]["documents"]
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=[MODULE])
    assert [TEXTS[0]] == [document.content for document in found]
    assert 1 == again.to_dict()["components"]["embedder"]["init_parameters"]["threads"]
