"""The cache of vectors of earlier texts."""

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


def test_a_stored_vector_is_found_by_its_ids() -> None:
    """The vector has the same bits; storing it twice takes no more memory; other ids are not found."""
    cache = VectorCache(1)
    vector = np.arange(384, dtype=np.float32)
    for _ in range(2):
        cache.put([b"ids"], vector[None])

    actual = cache.get([b"id", b"ids"])
    assert [1] == list(actual)
    assert np.array_equal(vector, actual[1])
    assert (1, 3 + 1536 + ENTRY_BYTES) == (cache.hits, cache.bytes)


def test_the_least_recently_used_vectors_are_evicted() -> None:
    """Threads that fill the cache keep to its memory limit; a recently used vector stays."""
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


def test_a_cached_text_is_not_computed_again() -> None:
    """A cached text in a call with new texts is not computed again; `started` is called for every call."""
    cache, scheduler = VectorCache(1), Scheduler(FakeEngine(), workers=0)  # type: ignore[arg-type]
    started_calls: list[str] = []
    for count in (3, 3, 5):
        windows = [[np.full(4, 1 + i, np.int32)] for i in range(count)]
        call = Call(Tokenized(windows, {}), 1, cache=cache, started=lambda: started_calls.append("started"))
        scheduler.submit(call)
        while scheduler.run_next():
            pass
        assert [4.0 * (1 + i) for i in range(count)] == call.result(0)[:, 0].tolist()
    assert (5, 6, 3) == (scheduler.stats.texts, cache.hits, len(started_calls))


@pytest.mark.filterwarnings("ignore::ov_minilm.TruncationWarning")
def test_the_cache_changes_no_bit(shipped: Embedder) -> None:
    """Repeated texts have the same bits as without the cache; the self-check does not use the cache."""
    with Embedder.open(cache_mb=1) as cached:
        for truncate in ("end", "mean"):
            options: dict[str, Any] = {"truncate": truncate}
            expected = np.stack([shipped.encode(text, **options) for text in TEXTS])
            for step in (1, -1, 3, 1):
                assert np.array_equal(expected[::step], cached.encode(TEXTS[::step], **options))
        cached_count = cached.stats.cached
        assert 2 * 13 <= cached_count <= 40
        assert 0.99 < cached.self_check() <= cached.self_check() <= 1
        assert cached_count == cached.stats.cached
