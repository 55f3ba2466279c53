"""Token ids as input, and of which vocabulary they are.

A client may send ids of the model's own vocabulary, as OpenAI's API has it, or of cl100k, OpenAI's, because
LangChain's OpenAIEmbeddings does so by default, whatever the model. Read in the wrong one they still give
vectors, of other texts. What tells them apart, for all lists of a request together:

- An id over 30,521, or one of the model's unused ids, is in no text of the model's vocabulary: cl100k.
  Unused are 1..99 and 104..998, where cl100k has punctuation and the commonest words.
- Lists that begin with 101 [CLS] and end with 102 [SEP], as the model's tokenizer makes them: native. In
  cl100k, 101 is a byte that no UTF-8 text begins with.
- A request that names a model of OpenAI's whose vocabulary is cl100k: cl100k. LangChain names one by default.

All this holds for the uncased vocabulary of BERT, which MiniLM and most of its relatives have. What none
of it decides, as the ids of "hello world" under another model's name, is refused.
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
WAY_OUT = (
    "send text instead: LangChain's OpenAIEmbeddings does so with check_embedding_ctx_length=False; "
    "or start the server with --token-ids native or --token-ids cl100k, to say which ids are meant"
)


class TokenIdReader:
    """Turns the token ids of requests into what the embedder takes, by one policy."""

    def __init__(self, policy: TokenIds, hello_world: Ids) -> None:
        """Take what the model's tokenizer makes of "hello world": it tells whether `auto` knows its ids."""
        self._policy = policy
        self._known = list(hello_world) == HELLO_WORLD
        self._encoding: Encoding | None = None
        self._loading = threading.Lock()
        if policy == "cl100k":
            self._encoding = _load()

    def read(self, lists: list[list[int]], model: str | None) -> list[str] | list[list[int]]:
        """Return texts, if the ids are of cl100k, else the ids; ApiError 400 if it is unclear."""
        if self._policy == "reject":
            raise ApiError("bad_token_ids", f"this server takes no token ids; {WAY_OUT}", param="input")
        if self._policy == "cl100k" or (self._policy == "auto" and self._is_cl100k(lists, model)):
            return self._decode(lists)
        for index, ids in enumerate(lists):
            _check_native(ids, index)
        return lists

    def _is_cl100k(self, lists: list[list[int]], model: str | None) -> bool:
        if not self._known:
            raise ApiError(
                "bad_token_ids",
                f"which vocabulary these token ids are of cannot be told; {WAY_OUT}",
                param="input",
            )
        foreign = any(map(_foreign, lists))
        begun = any(ids[0] == CLS for ids in lists)
        if not foreign and all(map(_is_framed, lists)):
            return False
        if not begun and (foreign or model in CL100K_MODELS):
            return True
        raise ApiError(
            "ambiguous_token_ids",
            "input holds token ids that may be of this model's vocabulary or of OpenAI's cl100k; " + WAY_OUT,
            param="input",
        )

    def _decode(self, lists: list[list[int]]) -> list[str]:
        with self._loading:
            if self._encoding is None:
                if not ranks_path().exists():
                    raise ApiError(
                        "cl100k_unavailable",
                        "input holds token ids of OpenAI's cl100k, and this server has no ranks to read "
                        f"them; {WAY_OUT}, which fetches the ranks once",
                        param="input",
                    )
                self._encoding = _load()
        try:
            return [self._encoding.decode_bytes(ids).decode("utf-8", "replace") for ids in lists]
        except KeyError as error:
            raise ApiError(
                "bad_token_ids", f"input has an id that cl100k does not have: {error}", param="input"
            ) from error


def ranks_path() -> Path:
    """Return where tiktoken keeps the ranks of cl100k, so that no request makes it fetch them."""
    folder = (
        os.environ.get("TIKTOKEN_CACHE_DIR")
        or os.environ.get("DATA_GYM_CACHE_DIR")
        or Path(tempfile.gettempdir(), "data-gym-cache")
    )
    return Path(folder) / hashlib.sha1(RANKS.encode(), usedforsecurity=False).hexdigest()


def _load() -> Encoding:
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")


def _foreign(ids: Ids) -> bool:
    """Tell whether an id is in no text of the model's vocabulary."""
    return any(PAD < one < 100 or 103 < one < 999 or one >= VOCABULARY for one in ids)


def _is_framed(ids: Ids) -> bool:
    return len(ids) > 1 and ids[0] == CLS and ids[-1] == SEP


def _check_native(ids: Ids, index: int) -> None:
    if PAD in ids:
        raise ApiError(
            "bad_token_ids", f"input[{index}] holds [PAD], id 0; send ids without padding", param="input"
        )
