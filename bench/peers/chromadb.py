# /// script
# dependencies = [
#   "chromadb==1.5.9",
#   "onnxruntime==1.32.0",
# ]
# ///
"""chromadb's default embedding function: ONNX Runtime in FP32, every text padded to 256 tokens."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = {"f32": "chromadb's default embedding function, FP32"}
PROVIDES = ()
REQUIRES = ("onnx",)
BATCHES = ()  # the library always uses batches of 32
SORTED = False  # all texts are padded to one length, so sorting gains nothing


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the model with a session of `threads` threads; the library's own session would use every CPU."""
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    folder = Path(models["onnx"])
    ONNXMiniLM_L6_V2.DOWNLOAD_PATH, ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME = folder.parent, folder.name
    embed = ONNXMiniLM_L6_V2()
    options = embed.ort.SessionOptions()
    options.intra_op_num_threads = threads
    embed.model = embed.ort.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
    return lambda texts, _: np.array(embed(texts))


def versions(_: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("chromadb", "onnxruntime")} | {"precision": "f32"}
