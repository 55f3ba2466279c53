"""LRU cache of vectors, so that repeated texts are not computed again.

A text has the same bits in every batch, so a cached vector equals a computed one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ov_minilm.errors import check_integers
from ov_minilm.spec import FloatArray

ENTRY_BYTES = 400  # memory of an entry without its token ids and vector; measured and rounded up


class VectorCache:
    """The most recently used vectors, by token ids, in at most `mb` MB. Threads may share a VectorCache."""

    def __init__(self, mb: int) -> None:
        """Keep up to `mb` MB, about 470 vectors of 384 components for each MB.

        Raises:
            TypeError: `mb` is not an integer.
            ValueError: `mb` is not 1 or more.
        """
        check_integers(cache_mb=mb)
        if mb < 1:
            raise ValueError(f"cache_mb={mb}; at least 1, or None for no cache")
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()  # the most recently used vector is last
        self._lock = threading.Lock()
        self._max_bytes = mb * 1_000_000
        self.bytes = 0  # memory in use
        self.hits = 0  # number of texts found so far

    def get(self, texts: Sequence[bytes]) -> dict[int, FloatArray]:  # -> [D] each
        """Return {index into `texts`: cached vector}; `texts` are token ids as bytes."""
        with self._lock:
            cached = {index: ids for index, ids in enumerate(texts) if ids in self._vectors}
            for ids in cached.values():
                self._vectors.move_to_end(ids)
            self.hits += len(cached)
            return {index: np.frombuffer(self._vectors[ids], np.float32) for index, ids in cached.items()}

    def put(self, texts: Sequence[bytes], vectors: FloatArray) -> None:  # [N, D]
        """Add the vectors of texts; the least recently used ones are removed."""
        with self._lock:
            for ids, vector in zip(texts, vectors, strict=True):
                data = vector.tobytes()
                if ids not in self._vectors:
                    self.bytes += len(ids) + len(data) + ENTRY_BYTES
                self._vectors[ids] = data
            while self.bytes > self._max_bytes:
                ids_removed, removed = self._vectors.popitem(last=False)
                self.bytes -= len(ids_removed) + len(removed) + ENTRY_BYTES
