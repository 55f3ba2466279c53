# /// script
# dependencies = [
#   "ctranslate2==4.8.5",
#   "tokenizers==0.22.2",
#   "transformers==4.57.6",
#   "torch==2.14.1",
# ]
# ///
"""CTranslate2: C++, sorted batches without padding, one batch on each thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np

VARIANTS = {"int8": "CTranslate2, INT8", "float32": "CTranslate2, FP32"}
PROVIDES = ("ctranslate2",)
REQUIRES = ("checkpoint",)
BATCHES = (4, 8, 16, 32, 64)
CONCURRENT = True  # batches of several callers run at the same time, one per thread
SORTED = False  # `load` sorts, so that it has all batches and can run several at once


def prepare(models: dict[str, str]) -> None:
    """Convert in FP32; INT8 weights are computed when the model is loaded."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(models["checkpoint"]).convert(models["ctranslate2"], force=True)


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the encoder; tokenizing, pooling and normalization are done here, outside of the library."""
    # One OpenMP thread per batch: more would wait for CPUs that other batches use.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    from ctranslate2 import Encoder
    from tokenizers import Tokenizer

    encoder = Encoder(models["ctranslate2"], compute_type=variant, inter_threads=threads, intra_threads=1)
    tokenizer = Tokenizer.from_file(models["checkpoint"] + "/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def run(ids: list[list[int]]) -> Any:  # -> [N, D]
        hidden = np.asarray(encoder.forward_batch(ids).last_hidden_state)  # [N, T, D]
        mask = np.arange(hidden.shape[1]) < np.array([[len(row)] for row in ids])
        vectors = (hidden * mask[..., None]).sum(1)  # a sum is enough, because the next line normalizes it
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    pool = ThreadPoolExecutor(threads)

    def encode(texts: list[str], batch: int) -> Any:  # -> [N, D]
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        batches = [[ids[i] for i in order[start : start + batch]] for start in range(0, len(ids), batch)]
        vectors = np.empty((len(texts), 384), np.float32)
        vectors[order] = list(chain.from_iterable(pool.map(run, batches)))
        return vectors

    return encode


def versions(variant: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("ctranslate2", "tokenizers")} | {"precision": variant}
