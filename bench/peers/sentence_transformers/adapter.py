"""sentence-transformers as most people run it: PyTorch, FP32, its own sorting and batching."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

BATCHES = (8, 16, 32, 64, 128)
SORTED = False  # encode sorts by length itself


def load(_: str, models: dict[str, str], threads: int) -> Callable[[list[str], int], Any]:
    """Open the checkpoint."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(models["checkpoint"], device="cpu", local_files_only=True)
    model.max_seq_length = 256
    return lambda texts, batch: model.encode(
        texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False
    )


def facts(_: str) -> dict[str, str]:
    """Versions, and the best instruction set that PyTorch's own kernels found."""
    import torch

    found = {name: version(name) for name in ("sentence-transformers", "transformers", "torch")}
    return found | {"precision": "f32", "isa": torch.backends.cpu.get_cpu_capability()}
