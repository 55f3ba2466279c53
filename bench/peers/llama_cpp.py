# /// script
# dependencies = [
#   "llama-cpp-python==0.3.36",
#   "numpy==2.4.1",
# ]
# ///
"""llama.cpp by its Python binding, which is compiled for this CPU at installation: Q8_0 and F16."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

VARIANTS = {"Q8_0": "llama.cpp, Q8_0", "F16": "llama.cpp, F16"}
PROVIDES = ()
REQUIRES = ("gguf",)
BATCHES = (1, 2, 4, 8, 16)
SORTED = True

MAX_BATCH_TOKENS = 4096  # 16 texts of 256 tokens


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open the GGUF file; the texts of a batch are sequences of one call."""
    import llama_cpp

    llm = llama_cpp.Llama(
        f"{models['gguf']}/{variant}.gguf",
        embedding=True,
        n_ctx=MAX_BATCH_TOKENS,
        n_batch=MAX_BATCH_TOKENS,
        n_ubatch=MAX_BATCH_TOKENS,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    batch = llama_cpp.llama_batch_init(MAX_BATCH_TOKENS, 0, 1)

    def encode(texts: list[str]) -> Any:  # -> [N, D]
        batch.n_tokens = 0
        for sequence, text in enumerate(texts):
            ids = llm.tokenize(text.encode())
            for position, token in enumerate(ids if len(ids) <= 256 else [*ids[:255], ids[-1]]):
                place = batch.n_tokens
                batch.token[place], batch.pos[place], batch.logits[place] = token, position, 1
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.n_tokens += 1
        if llama_cpp.llama_encode(llm.ctx, batch):
            raise RuntimeError("llama_encode failed")
        found = [llama_cpp.llama_get_embeddings_seq(llm.ctx, sequence) for sequence in range(len(texts))]
        vectors = np.array([np.ctypeslib.as_array(vector, (384,)) for vector in found])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def versions(variant: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {"llama-cpp-python": version("llama-cpp-python"), "precision": variant}
