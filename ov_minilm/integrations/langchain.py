"""LangChain: an Embeddings for any of its vector stores. Extra: langchain."""

from __future__ import annotations

from ov_minilm.integrations import DOCUMENT, QUERY, Adapter, extra

with extra("langchain"):
    from langchain_core.embeddings import Embeddings


class MiniLMEmbeddings(Adapter, Embeddings):
    """Embeds documents and queries, with the artefact's prompts if it has any."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a unit vector of 384 floats for each text."""
        return self._lists(texts, DOCUMENT)

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of one text."""
        return self._lists([text], QUERY)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do the same as `embed_documents` for asyncio."""
        return await self._alists(texts, DOCUMENT)

    async def aembed_query(self, text: str) -> list[float]:
        """Do the same as `embed_query` for asyncio."""
        return (await self._alists([text], QUERY))[0]
