"""Benchmarks for pytest-benchmark: `pytest bench --benchmark-compare` compares two commits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ov_minilm import Embedder
from ov_minilm.measure.texts import WORKLOAD_TEXTS, Texts


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    """The model in the package."""
    with Embedder.open() as found:
        yield found


# some documents are longer than 256 tokens, and are cut
@pytest.mark.filterwarnings("ignore:text .* has .* tokens")
@pytest.mark.parametrize("name", WORKLOAD_TEXTS)
def test_workload(benchmark: Any, embedder: Embedder, name: str) -> None:
    """Encode one query, or the list of a workload in one call."""
    texts = Texts(embedder.count_tokens).make(name, 1 if name == "query" else None)

    assert (len(texts), embedder.spec.dim) == benchmark(embedder.encode, texts, progress=False).shape
