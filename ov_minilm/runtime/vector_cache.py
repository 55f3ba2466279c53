"""Vectors of texts that came before, so that equal texts in later calls are not computed again.

A text has the same bits in every batch, so a vector that was kept is the one that would be computed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from ov_minilm.spec import FloatArray

ENTRY_BYTES = 400  # that Python needs for an entry beside token ids and vector: measured, rounded up


class VectorCache:
    """The vectors that were used last, by token ids, within a bound in MB. Threads may share it."""

    def __init__(self, mb: int) -> None:
        """Keep up to `mb` MB: some 470 vectors of 384 components a MB.

        Raises:
            ValueError: `mb` is not 1 or more.
        """
        if mb < 1:
            raise ValueError(f"cache_mb={mb}; at least 1, or None for no cache")
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()  # the one used last at the end
        self._lock = threading.Lock()
        self._max_bytes = mb * 1_000_000
        self.bytes = 0  # in use
        self.hits = 0  # texts that were found

    def get(self, ids: bytes) -> FloatArray | None:  # -> [D]
        """Return the vector of a text, given its token ids as bytes; None if it is not kept."""
        with self._lock:
            vector = self._vectors.get(ids)
            if vector is None:
                return None
            self._vectors.move_to_end(ids)
            self.hits += 1
        return np.frombuffer(vector, np.float32)

    def put(self, ids: bytes, vector: FloatArray) -> None:
        """Keep a vector [D]; those that were not used for longest make room for it."""
        kept = vector.tobytes()
        with self._lock:
            if ids in self._vectors:
                return
            self._vectors[ids] = kept
            self.bytes += len(ids) + len(kept) + ENTRY_BYTES
            while self.bytes > self._max_bytes:
                old, dropped = self._vectors.popitem(last=False)
                self.bytes -= len(old) + len(dropped) + ENTRY_BYTES
