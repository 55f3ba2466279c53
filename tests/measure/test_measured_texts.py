"""Workloads: the lengths that their titles say, the same texts every time."""

from __future__ import annotations

import pytest

from ov_minilm import Embedder
from ov_minilm.measure.texts import SHAPES, Texts

TOKENS = {
    "query": (8, 16),
    "sentences": (6, 40),
    "chunks": (180, 256),
    "documents": (257, 700),
    "mix": (4, 700),
}


@pytest.mark.parametrize("name", SHAPES)
def test_lengths(shipped: Embedder, name: str) -> None:
    """Every text has as many tokens as its workload says, [CLS] and [SEP] included."""
    texts = Texts(shipped.count_tokens).make(name)

    counts = shipped.count_tokens(texts)

    low, high = TOKENS[name]
    assert SHAPES[name][0] == len(texts)
    assert low <= min(counts) <= max(counts) <= high
    assert len(set(texts)) > 0.9 * len(texts)


def test_the_same_texts_every_time(shipped: Embedder) -> None:
    """Figures of two days, or of two libraries, are of the same work; more texts begin with the same ones."""
    first, second = Texts(shipped.count_tokens), Texts(shipped.count_tokens)

    assert first.make("mix") == second.make("mix") == first.make("mix", 300)[: SHAPES["mix"][0]]
