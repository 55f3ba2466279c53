"""LangChain: an Embeddings for any of its vector stores. Extra: langchain."""

from __future__ import annotations

from ov_minilm.integrations import Adapter, extra

with extra("langchain"):
    from langchain_core.embeddings import Embeddings


class MiniLMEmbeddings(Adapter, Embeddings):
    """Embeds documents and queries alike: the model was trained without prompts."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return a unit vector of 384 floats for each text."""
        return self._lists(texts)

    def embed_query(self, text: str) -> list[float]:
        """Return the unit vector of one text."""
        return self._lists([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the same for asyncio."""
        return await self._alists(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Return the same for asyncio."""
        return (await self._alists([text]))[0]
