"""An embedder without a model: a vector is a hash of its text, so a wrong text gives a wrong vector."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np

from ov_minilm.bulk.pipeline import MODEL_FACTS
from ov_minilm.runtime.output import convert_vectors
from ov_minilm.runtime.texts import mend_surrogates
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.spec import FloatArray

COMPONENTS = 8


def vector(text: str) -> FloatArray:  # -> [D]
    """Return a vector [D] that depends on every character; half a surrogate pair counts as U+FFFD."""
    digest = hashlib.blake2b(mend_surrogates(text).encode(), digest_size=2 * COMPONENTS).digest()
    numbers: FloatArray = np.frombuffer(digest, np.int16).astype(np.float32) / np.float32(1 << 15)
    return numbers


class HashEmbedder:
    """Implements the methods of Embedder that a bulk job uses. `submit` can interrupt the job once."""

    def __init__(self, interrupt_at: int = 0) -> None:
        facts: dict[str, Any] = dict.fromkeys(MODEL_FACTS, "hash")
        self.info = SimpleNamespace(**facts, versions={"openvino": "0", "tokenizers": "0"})
        self._interrupt_in = interrupt_at

    def encode(self, texts: list[str], dimensions: int | None = None, dtype: Any = "float32") -> Any:
        """Return the vectors [N, D] of texts."""
        vectors = np.array([vector(text) for text in texts], np.float32).reshape(-1, COMPONENTS)
        return convert_vectors(vectors, dimensions, dtype)

    def tokenize(self, texts: list[str], truncate: str = "end") -> Tokenized:
        """Return the UTF-8 bytes of each text as its token ids."""
        del truncate
        ids = [np.frombuffer(mend_surrogates(text).encode(), np.uint8).astype(np.int32) for text in texts]
        return Tokenized([[token_ids] for token_ids in ids], {})

    def submit(self, tokenized: Tokenized) -> Future[FloatArray]:
        """Return a finished future of the vectors, or interrupt the job."""
        self._interrupt_in -= 1
        if not self._interrupt_in:
            raise KeyboardInterrupt
        texts = [windows[0].astype(np.uint8).tobytes().decode() for windows in tokenized.windows]
        future: Future[FloatArray] = Future()
        future.set_result(self.encode(texts))
        return future
