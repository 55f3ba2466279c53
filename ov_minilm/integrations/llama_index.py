"""LlamaIndex: a BaseEmbedding for its indices. Extra: llama-index."""

from __future__ import annotations

from typing import Any

from ov_minilm.integrations import DOCUMENT, QUERY, Adapter, extra
from ov_minilm.runtime.texts import check_texts

with extra("llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import ConfigDict


class MiniLMEmbedding(BaseEmbedding, Adapter):
    """Embeds nodes and queries. LlamaIndex splits text into nodes of 1,024 tokens, MiniLM reads 256.

    Use smaller nodes, SentenceSplitter(chunk_size=256), or truncate="mean".
    """

    model_config = ConfigDict(extra="forbid")  # an unknown argument is an error, as in the other adapters

    embed_batch_size: int = 512  # fills batches; the library's default of ten texts does not

    def model_post_init(self, context: Any, /) -> None:
        """Open the model, so that a wrong folder, device or option is an error here."""
        super().model_post_init(context)
        self.__post_init__()
        name = self.embedder.spec.name
        if "model_name" in self.model_fields_set and self.model_name not in (name, name.rpartition("/")[2]):
            raise ValueError(
                f"model_name is {self.model_name!r}, but this model is {name}: write model=FOLDER"
            )
        self.model_name = name

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex stores this component."""
        return "MiniLMEmbedding"

    def get_text_embedding_batch(self, texts: Any, *rest: Any, **options: Any) -> list[list[float]]:
        """Return a list of vectors. TypeError for a str or dict, which the library would iterate over."""
        return super().get_text_embedding_batch(check_texts(texts), *rest, **options)

    async def aget_text_embedding_batch(self, texts: Any, *rest: Any, **options: Any) -> list[list[float]]:
        """Do the same as `get_text_embedding_batch` for asyncio."""
        return await super().aget_text_embedding_batch(check_texts(texts), *rest, **options)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._lists([query], QUERY)[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._lists([text], DOCUMENT)[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._lists(texts, DOCUMENT)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._alists([query], QUERY))[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._alists([text], DOCUMENT))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._alists(texts, DOCUMENT)
