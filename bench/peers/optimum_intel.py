# /// script
# dependencies = [
#   "sentence-transformers==6.2.0",
#   "transformers==5.5.4",
#   "optimum-intel[openvino]==2.2.0",
#   "openvino==2026.4.1",
#   "nncf==3.4.0",
#   "datasets==4.8.5",
#   "torch==2.14.1",
#   "torchvision==0.29.1",
# ]
# ///
"""optimum-intel's OpenVINO model in FP32 with dynamic shapes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

VARIANTS = {"f32": "optimum-intel on OpenVINO, FP32 pinned, dynamic shapes"}
PROVIDES = ("openvino",)
REQUIRES = ("checkpoint",)
BATCHES = (4, 8, 16, 32, 64)
SORTED = True

_precision_used: dict[str, str] = {}


def prepare(models: dict[str, str]) -> None:
    """Export graph and tokenizer, as `optimum-cli export openvino` does."""
    from optimum.exporters.openvino import main_export

    main_export(
        models["checkpoint"],
        models["openvino"],
        task="feature-extraction",
        library_name="transformers",
        convert_tokenizer=True,
        local_files_only=True,
    )


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str]], Any]:
    """Open graph and tokenizer; mean pooling and normalization are done here, outside of the library."""
    from optimum.intel import OVModelForFeatureExtraction
    from transformers import AutoTokenizer

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads)}
    model = OVModelForFeatureExtraction.from_pretrained(models["openvino"], ov_config=settings)
    tokenizer = AutoTokenizer.from_pretrained(models["checkpoint"])
    model.compile()
    _precision_used["precision"] = model.request.get_property("INFERENCE_PRECISION_HINT").to_string()

    def encode(texts: list[str]) -> Any:  # -> [N, D]
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="np")
        hidden = model(**tokens).last_hidden_state  # [N, T, D]
        # a sum is enough, because the next line normalizes it
        vectors = (hidden * tokens["attention_mask"][..., None]).sum(1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return encode


def versions(_: str) -> dict[str, str]:
    """Return the versions, and the float type that OpenVINO reports."""
    return {name: version(name) for name in ("optimum-intel", "openvino", "transformers")} | _precision_used
