# /// script
# dependencies = [
#   "fastembed==0.9.1",
#   "onnxruntime==1.32.0",
# ]
# ///
"""fastembed, on ONNX Runtime in FP32, with its own tokenizing and pooling."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

VARIANTS = {"f32": "fastembed on ONNX Runtime, FP32"}
PROVIDES = ()
REQUIRES = ("onnx",)
BATCHES = (2, 4, 8, 16, 32, 64)
SORTED = True


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open the model and set 256 tokens: by default it uses the 128 of tokenizer_config.json."""
    from fastembed import TextEmbedding

    embedding = TextEmbedding(
        "sentence-transformers/all-MiniLM-L6-v2",
        specific_model_path=models["onnx"],
        threads=threads,
        local_files_only=True,
    )
    embedding.model.tokenizer.enable_truncation(256)
    return lambda texts: np.array(list(embedding.embed(texts, batch_size=len(texts))))


def versions(_: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("fastembed", "onnxruntime")} | {"precision": "f32"}
