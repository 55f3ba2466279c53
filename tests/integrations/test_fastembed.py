"""The fastembed adapter: the interface of the real class, one vector after another."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import numpy as np
import pytest

from ov_minilm import Embedder
from ov_minilm.integrations.fastembed import TextEmbedding

TEXTS = ["A cat sleeps on the sofa.", "Interest rates stay where they are."]


def test_vectors_are_those_of_the_embedder(shipped: Embedder) -> None:
    """Documents, queries and passages have the exact vectors of Embedder.encode; a str is one of them."""
    model = TextEmbedding()

    expected = shipped.encode(TEXTS)
    for vectors in (model.embed(TEXTS), model.passage_embed(TEXTS), model.query_embed(TEXTS)):
        assert np.array_equal(expected, list(vectors))
    assert np.array_equal(expected[:1], list(model.embed(TEXTS[0])))
    assert 384 == model.embedding_size


def test_vectors_come_while_texts_are_read() -> None:
    """The first vectors of an endless stream are there at once."""

    def endless() -> Iterator[str]:
        number = 0
        while True:
            yield f"text {number}"
            number += 1

    vectors = TextEmbedding().embed(endless())
    assert (384,) == next(iter(vectors)).shape


@pytest.mark.parametrize("method", ["embed", "query_embed", "passage_embed"])
def test_calls_written_for_fastembed_still_fit(method: str) -> None:
    """Each argument that fastembed's method names has the same place, name and default here."""
    theirs = pytest.importorskip("fastembed", reason="pip install -e '.[guests]'").TextEmbedding

    named = [
        (argument.name, argument.default)
        for argument in inspect.signature(getattr(theirs, method)).parameters.values()
        if argument.kind is not argument.VAR_KEYWORD
    ]
    ours = inspect.signature(getattr(TextEmbedding, method)).parameters.values()
    assert named == [(argument.name, argument.default) for argument in ours]
