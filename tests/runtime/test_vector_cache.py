"""Vectors of texts that came before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.fakes import FakeEngine

from ov_minilm.runtime.embedder import Embedder
from ov_minilm.runtime.scheduler import Call, Scheduler
from ov_minilm.runtime.tokens import Tokenized
from ov_minilm.runtime.vector_cache import ENTRY_BYTES, VectorCache

TEXTS = ["a kettle", "a cup", "a kettle", "", "word " * 300, "a cup", "another long text " * 40]


def test_what_is_kept_comes_back() -> None:
    """The same bits, counted once however often they are put; other ids find nothing."""
    cache = VectorCache(1)
    vector = np.arange(384, dtype=np.float32)
    for _ in range(2):
        cache.put([b"ids"], vector[None])

    found = cache.get([b"id", b"ids"])
    assert [1] == list(found)
    assert np.array_equal(vector, found[1])
    assert (1, 3 + 1536 + ENTRY_BYTES) == (cache.hits, cache.bytes)


def test_what_was_not_used_for_longest_makes_room() -> None:
    """The bound holds, also when threads fill it, and a vector that is used stays."""
    cache = VectorCache(1)
    cache.put([b"used"], np.ones((1, 384), np.float32))

    def fill(start: int) -> None:
        for number in range(start, start + 500):
            cache.put([number.to_bytes(4, "big")], np.zeros((1, 384), np.float32))
            assert cache.get([b"used"])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(fill, range(0, 4000, 500)))
    assert 900_000 < cache.bytes <= 1_000_000
    assert not cache.get([(0).to_bytes(4, "big")])


def test_a_text_that_came_before_is_not_computed_again() -> None:
    """In a later call, also beside texts that are new; the caller hears that it started."""
    cache, scheduler = VectorCache(1), Scheduler(FakeEngine(), workers=0)  # type: ignore[arg-type]
    heard: list[str] = []
    for count in (3, 3, 5):
        windows = [[np.full(4, 1 + i, np.int32)] for i in range(count)]
        call = Call(Tokenized(windows, {}), 1, cache=cache, started=lambda: heard.append("started"))
        scheduler.submit(call)
        while scheduler.run_next():
            pass
        assert [4.0 * (1 + i) for i in range(count)] == call.result(0)[:, 0].tolist()
    assert (5, 6, 3) == (scheduler.stats.texts, cache.hits, len(heard))


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_the_cache_changes_no_bit(shipped: Embedder) -> None:
    """Texts that repeat in a call and over calls have the vectors of no cache; a self check computes."""
    with Embedder.open(cache_mb=1) as cached:
        for truncate in ("end", "mean"):
            form: dict[str, Any] = {"truncate": truncate}
            expected = np.stack([shipped.encode(text, **form) for text in TEXTS])
            for step in (1, -1, 3, 1):
                assert np.array_equal(expected[::step], cached.encode(TEXTS[::step], **form))
        hits = cached.stats.cached
        assert 2 * 13 <= hits <= 40
        assert 0.99 < cached.self_check() <= cached.self_check() <= 1
        assert hits == cached.stats.cached
