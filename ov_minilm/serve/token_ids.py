"""Token ids as input: which vocabulary they belong to.

A client may send ids of the model's own vocabulary, or of OpenAI's cl100k, as LangChain's OpenAIEmbeddings
does by default for every model. Ids read with the wrong vocabulary give vectors of other texts. The rules,
for all lists of a request together:

- An id over 30,521, or one of the ids that the model's vocabulary leaves unused (1..99 and 104..998, where
  cl100k has punctuation and the most frequent words): cl100k.
- Lists that begin with 101 [CLS] and end with 102 [SEP], as the model's tokenizer makes them: native. No text
in cl100k begins with 101, which is a byte with which no UTF-8 text begins.
- A request that names an OpenAI model whose vocabulary is cl100k: cl100k. LangChain names such a model by
default.

The rules hold for BERT's uncased vocabulary, which MiniLM and most related models have. If no rule applies,
as for the ids of "hello world" under another model's name, the request is refused.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ov_minilm.serve.errors import ApiError
from ov_minilm.serve.settings import TokenIds
from ov_minilm.spec import MINILM

if TYPE_CHECKING:
    from tiktoken import Encoding

Ids = Sequence[int]

VOCABULARY = MINILM.vocab_size
PAD, CLS, SEP = 0, 101, 102
HELLO_WORLD = [CLS, 7592, 2088, SEP]
CL100K_MODELS = ("text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large")
RANKS = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
HOW_TO_FIX = (
    "send text instead (LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False), or start the server "
    "with --token-ids native or --token-ids cl100k"
)


class TokenIdReader:
    """Turns the token ids of requests into texts or ids for the embedder, by one policy."""

    def __init__(self, policy: TokenIds, hello_world: Ids) -> None:
        """Create a reader of token ids.

        Args:
            policy: the value of `--token-ids`.
            hello_world: the model's ids of "hello world", which show whether it has BERT's vocabulary.
        """
        self._policy = policy
        self._is_bert = list(hello_world) == HELLO_WORLD
        self._encoding: Encoding | None = None
        self._loading = threading.Lock()
        if policy == "cl100k":
            self._encoding = _load()

    def read(self, lists: list[list[int]], model: str | None) -> list[str] | list[list[int]]:
        """Return texts for ids of cl100k, else the ids. ApiError 400 if the vocabulary is unclear."""
        if self._policy == "reject":
            message = f"this server does not accept token ids; {HOW_TO_FIX}"
            raise ApiError("bad_token_ids", message, param="input")
        if self._policy == "cl100k" or (self._policy == "auto" and self._is_cl100k(lists, model)):
            return self._decode(lists)
        for index, ids in enumerate(lists):
            _check_native(ids, index)
        return lists

    def _is_cl100k(self, lists: list[list[int]], model: str | None) -> bool:
        if not self._is_bert:
            raise ApiError(
                "bad_token_ids",
                f"the vocabulary of these token ids is unclear; {HOW_TO_FIX}",
                param="input",
            )
        foreign = any(map(_is_foreign, lists))
        begins_with_cls = any(ids[0] == CLS for ids in lists)
        if not foreign and all(map(_is_framed, lists)):
            return False
        if not begins_with_cls and (foreign or model in CL100K_MODELS):
            return True
        raise ApiError(
            "ambiguous_token_ids",
            "input has token ids that fit both this model's vocabulary and OpenAI's cl100k; " + HOW_TO_FIX,
            param="input",
        )

    def _decode(self, lists: list[list[int]]) -> list[str]:
        with self._loading:
            if self._encoding is None:
                if not ranks_path().exists():
                    raise ApiError(
                        "cl100k_unavailable",
                        "input has token ids of OpenAI's cl100k, but this server has not downloaded that "
                        f"vocabulary; {HOW_TO_FIX}, which downloads the vocabulary once",
                        param="input",
                    )
                self._encoding = _load()
        try:
            return [self._encoding.decode_bytes(ids).decode("utf-8", "replace") for ids in lists]
        except KeyError as error:
            raise ApiError(
                "bad_token_ids", f"input has an id that is not in cl100k: {error}", param="input"
            ) from error


def ranks_path() -> Path:
    """Return the file in which tiktoken caches cl100k.

    Its existence is checked so that no request downloads it.
    """
    folder = (
        os.environ.get("TIKTOKEN_CACHE_DIR")
        or os.environ.get("DATA_GYM_CACHE_DIR")
        or Path(tempfile.gettempdir(), "data-gym-cache")
    )
    return Path(folder) / hashlib.sha1(RANKS.encode(), usedforsecurity=False).hexdigest()


def _load() -> Encoding:
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def _is_foreign(ids: Ids) -> bool:
    """Return whether an id is unused in the model's vocabulary, and so must belong to another vocabulary."""
    return any(PAD < token < 100 or 103 < token < 999 or token >= VOCABULARY for token in ids)


def _is_framed(ids: Ids) -> bool:
    return len(ids) > 1 and ids[0] == CLS and ids[-1] == SEP


def _check_native(ids: Ids, index: int) -> None:
    if PAD in ids:
        raise ApiError(
            "bad_token_ids", f"input[{index}] has [PAD], id 0; send ids without padding", param="input"
        )
