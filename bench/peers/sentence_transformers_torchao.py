# /// script
# dependencies = [
#   "sentence-transformers==6.2.0",
#   "transformers==5.5.4",
#   "torch==2.14.1",
#   "torchao==0.18.0",
# ]
# ///
"""sentence-transformers with torchao: dynamic INT8 activations, INT8 weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

VARIANTS = {"int8": "sentence-transformers, torchao INT8, torch.compile"}
PROVIDES = ()
REQUIRES = ("checkpoint",)
BATCHES = (8, 16, 32, 64, 128)
SORTED = False  # encode sorts by length itself


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the checkpoint."""
    import torch
    from sentence_transformers import SentenceTransformer
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    torch.set_num_threads(threads)
    model = SentenceTransformer(models["checkpoint"], device="cpu", local_files_only=True)
    model.max_seq_length = 256
    quantize_(model[0].auto_model, Int8DynamicActivationInt8WeightConfig())
    model[0].auto_model = torch.compile(model[0].auto_model, dynamic=True)
    return lambda texts, batch: model.encode(
        texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def versions(_: str) -> dict[str, str]:
    """Return the versions, and the instruction set that PyTorch uses."""
    import torch

    found = {name: version(name) for name in ("sentence-transformers", "torchao", "torch")}
    return found | {"precision": "dynamic int8", "isa": torch.backends.cpu.get_cpu_capability()}
