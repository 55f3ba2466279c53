# /// script
# dependencies = [
#   "embed_anything==0.7.1",
#   "numpy==2.4.6",
# ]
# ///
"""embed_anything, in Rust, on Candle or on ONNX Runtime."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = {"candle": "embed_anything on Candle, FP32", "onnx": "embed_anything on ONNX Runtime, FP32"}
PROVIDES = ("hub-cache",)
REQUIRES = ("checkpoint", "onnx")
BATCHES = (1, 4, 16, 32)
SORTED = True


REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"


def prepare(models: dict[str, str]) -> None:
    """Copy the files into the layout of the hub's cache; the library opens models only by their hub names."""
    folder = Path(models["hub-cache"], "hub", f"models--{REPOSITORY.replace('/', '--')}")
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("local")
    shutil.copytree(models["checkpoint"], folder / "snapshots" / "local")
    shutil.copytree(models["onnx"], folder / "snapshots" / "local" / "onnx")


def load(variant: str, models: dict[str, str], _: int) -> Callable[[list[str]], Any]:
    """Open the model; RAYON_NUM_THREADS sets the number of threads."""
    os.environ["HF_HOME"] = models["hub-cache"]
    import embed_anything
    from embed_anything import EmbeddingModel, WhichModel

    if variant == "candle":
        model = EmbeddingModel.from_pretrained_hf(model_id=REPOSITORY)
    else:
        model = EmbeddingModel.from_pretrained_onnx(
            WhichModel.Bert, hf_model_id=REPOSITORY, path_in_repo="onnx/model.onnx"
        )

    def encode(texts: list[str]) -> Any:  # -> [N, D]
        config = embed_anything.TextEmbedConfig(batch_size=len(texts))
        found = embed_anything.embed_query(texts, embedder=model, config=config)
        return np.array([one.embedding for one in found], np.float32)

    return encode


def versions(_: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {"embed_anything": version("embed_anything"), "precision": "f32"}
