"""Stand-ins for the slow and the large parts, each with one method."""

from __future__ import annotations

import numpy as np

from ov_minilm.runtime.packing import Batch
from ov_minilm.spec import FloatArray


class FakeEngine:
    """Sums token ids per slot: a wrong owner or segment shows at once."""

    def run(self, batch: Batch) -> FloatArray:  # -> [R, S, 1]
        """Return, for every slot of every row, the sum of the ids in its segment; empty slots hold 0."""
        slot = np.arange(1, batch.owner.shape[1] + 1)
        mine = batch.segments[:, None, :] == slot[None, :, None]
        sums: FloatArray = (mine * batch.ids[:, None, :]).sum(-1, keepdims=True).astype(np.float32)
        return sums
