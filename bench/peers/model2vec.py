# /// script
# dependencies = [
#   "model2vec[distill,quantization]==0.10.0",
#   "transformers==5.3.0",
#   "torch==2.14.1",
# ]
# ///
"""model2vec, distilled from the same checkpoint: another model, a table of token vectors."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {"static": "model2vec: one vector per token, no transformer"}
PROVIDES = ("model2vec",)
REQUIRES = ("checkpoint",)
BATCHES = (256, 1024, 4096)
SORTED = False  # nothing is padded, so sorting gains nothing


def prepare(models: dict[str, str]) -> None:
    """Distill the checkpoint with default settings."""
    from model2vec.distill import distill

    distill(models["checkpoint"], device="cpu").save_pretrained(models["model2vec"])


def load(_: str, models: dict[str, str], __: int) -> Callable[[list[str], int], Any]:
    """Open the table; only its tokenizer has threads, and RAYON_NUM_THREADS sets their number."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(models["model2vec"])
    return lambda texts, batch: model.encode(
        texts, max_length=256, batch_size=batch, use_multiprocessing=False
    )


def versions(_: str) -> dict[str, str]:
    """Return the versions of the libraries."""
    return {name: version(name) for name in ("model2vec", "tokenizers")} | {"precision": "f16 table"}
