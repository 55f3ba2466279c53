"""Artefacts with prompts: every adapter that tells queries from documents puts the right one before each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.artefact.manifest import SHIPPED, Manifest, fingerprint

PROMPTS = {"query": "query: ", "passage": "passage: "}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The artefact in the package, if it had been trained with the prompts of e5."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(SHIPPED, folder)
    manifest = Manifest.read(folder)
    spec = replace(manifest.spec, prompts=PROMPTS)
    replace(manifest, spec=spec, fingerprint=fingerprint(spec, manifest.files)).write(folder)
    return str(folder)


def langchain_core(model: str) -> tuple[Any, Any]:
    """LangChain's query and document."""
    from ov_minilm.integrations.langchain import MiniLMEmbeddings

    made = MiniLMEmbeddings(model)
    assert made.embed_query("a") == asyncio.run(made.aembed_query("a"))
    assert made.embed_documents(["a"]) == asyncio.run(made.aembed_documents(["a"]))
    return made.embed_query("a"), made.embed_documents(["a"])[0]


def llama_index(model: str) -> tuple[Any, Any]:
    """LlamaIndex's query and text."""
    from ov_minilm.integrations.llama_index import MiniLMEmbedding

    made = MiniLMEmbedding(model=model)
    assert made.get_text_embedding_batch(["a"]) == asyncio.run(made.aget_text_embedding_batch(["a"]))
    return made.get_query_embedding("a"), made.get_text_embedding("a")


def chromadb(model: str) -> tuple[Any, Any]:
    """Chroma's query and document."""
    from ov_minilm.integrations.chroma import MiniLMEmbeddingFunction

    made = MiniLMEmbeddingFunction(model)
    return made.embed_query(["a"])[0], made(["a"])[0]


def haystack(model: str) -> tuple[Any, Any]:
    """Haystack's text and document."""
    from haystack import Document

    from ov_minilm.integrations.haystack import MiniLMDocumentEmbedder, MiniLMTextEmbedder

    document = MiniLMDocumentEmbedder(model).run([Document(content="a")])["documents"][0]
    return MiniLMTextEmbedder(model).run("a")["embedding"], document.embedding


def fastembed(model: str) -> tuple[Any, Any]:
    """The query and the passage of the class that is like fastembed's."""
    from ov_minilm.integrations.fastembed import TextEmbedding

    made = TextEmbedding(model)
    return next(made.query_embed("a")), next(made.passage_embed(["a"]))


def stand_in(model: str) -> tuple[Any, Any]:
    """The query and the passage of the class without torch."""
    from ov_minilm.integrations.sentence_transformers import SentenceTransformer

    made = SentenceTransformer(model)
    return made.encode_query("a"), made.encode("a", prompt_name="passage")


def sentence_transformers(model: str) -> tuple[Any, Any]:
    """The query and the passage of the library's own class."""
    from sentence_transformers import SentenceTransformer

    from ov_minilm.integrations.sentence_transformers_module import MiniLMModule

    made = SentenceTransformer(modules=[MiniLMModule(model)])
    return made.encode_query("a"), made.encode("a", prompt_name="passage")


@pytest.mark.parametrize(
    "adapter", [langchain_core, llama_index, chromadb, haystack, fastembed, stand_in, sentence_transformers]
)
def test_queries_and_documents_follow_their_prompts(
    adapter: Callable[[str], tuple[Any, Any]], prompted: str, shipped: Embedder
) -> None:
    """The exact vectors of the text with its prompt before it."""
    if adapter not in (fastembed, stand_in):
        pytest.importorskip(adapter.__name__, reason="pip install -e '.[integrations]'")
    query, document = adapter(prompted)

    assert np.array_equal(shipped.encode("query: a"), np.array(query, np.float32))
    assert np.array_equal(shipped.encode("passage: a"), np.array(document, np.float32))
