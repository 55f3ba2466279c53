# /// script
# dependencies = [
#   "light-embed==1.0.9",
#   "onnxruntime==1.32.0",
# ]
# ///
"""light-embed, on ONNX Runtime without torch: FP32 and dynamic INT8."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {"f32": "light-embed on ONNX Runtime, FP32", "int8": "light-embed on ONNX Runtime, dynamic INT8"}
PROVIDES = ()
REQUIRES = ("onnx", "onnx-int8")
BATCHES = (4, 8, 16, 32, 64)
SORTED = False  # encode sorts by length itself

FILES = {"f32": ("onnx", "model.onnx"), "int8": ("onnx-int8", "model_quantized.onnx")}


def load(variant: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the ONNX file in a folder."""
    from light_embed import TextEmbedding

    folder, file = FILES[variant]
    config = {"onnx_file": file, "pooling_config_path": "1_Pooling", "normalize": True}
    model = TextEmbedding(models[folder], model_config=config, num_threads=threads)
    model.tokenizer.tokenizer.enable_truncation(256)
    return lambda texts, batch: model.encode(texts, batch_size=batch, normalize_embeddings=True)


def versions(variant: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("light-embed", "onnxruntime")} | {"precision": variant}
