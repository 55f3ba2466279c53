"""Vectors of texts that came before, so that equal texts in later calls are not computed again.

A text has the same bits in every batch, so a vector that was kept is the one that would be computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from ov_minilm.errors import check_integers
from ov_minilm.spec import FloatArray

ENTRY_BYTES = 400  # that Python needs for an entry beside token ids and vector: measured, rounded up


class VectorCache:
    """The vectors that were used last, by token ids, within a bound in MB. Threads may share it."""

    def __init__(self, mb: int) -> None:
        """Keep up to `mb` MB: some 470 vectors of 384 components a MB.

        Raises:
            TypeError: `mb` is not an integer.
            ValueError: `mb` is not 1 or more.
        """
        check_integers(cache_mb=mb)
        if mb < 1:
            raise ValueError(f"cache_mb={mb}; at least 1, or None for no cache")
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()  # the one used last at the end
        self._lock = threading.Lock()
        self._max_bytes = mb * 1_000_000
        self.bytes = 0  # in use
        self.hits = 0  # texts that were found

    def get(self, texts: Sequence[bytes]) -> dict[int, FloatArray]:  # -> [D] each
        """Return the vectors that are kept, by the place of the text among these token ids as bytes."""
        with self._lock:
            found = {place: ids for place, ids in enumerate(texts) if ids in self._vectors}
            for ids in found.values():
                self._vectors.move_to_end(ids)
            self.hits += len(found)
            return {place: np.frombuffer(self._vectors[ids], np.float32) for place, ids in found.items()}

    def put(self, texts: Sequence[bytes], vectors: FloatArray) -> None:  # [N, D]
        """Keep the vectors of texts; those that were not used for longest make room for them."""
        with self._lock:
            for ids, vector in zip(texts, vectors, strict=True):
                kept = vector.tobytes()
                if ids not in self._vectors:
                    self.bytes += len(ids) + len(kept) + ENTRY_BYTES
                self._vectors[ids] = kept
            while self.bytes > self._max_bytes:
                old, dropped = self._vectors.popitem(last=False)
                self.bytes -= len(old) + len(dropped) + ENTRY_BYTES
