"""One compiled grid, and the infer requests that run batches in it."""

from __future__ import annotations

import math
from collections import deque

from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.packing import Batch
from ov_minilm.spec import FloatArray, IntArray

INPUTS = ("input_ids", "position_ids", "segment_ids")


class CompiledGrid:
    """A compiled grid. Threads may share it: each batch takes an idle infer request, or a new one."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        # request, inputs [R, W], output [R, S, D]
        self._idle: deque[tuple[ov.InferRequest, list[IntArray], FloatArray]] = deque()
        self.cosine = math.nan  # lowest cosine of a row to the golden vector; NaN before the check

    def run(self, batch: Batch) -> FloatArray:  # -> [N, D]
        """Return the vectors of the batch's texts, in their order."""
        try:
            request = self._idle.pop()
        except IndexError:
            infer = self._compiled.create_infer_request()
            request = infer, [infer.get_tensor(name).data for name in INPUTS], infer.get_output_tensor().data
        infer, inputs, output = request
        for buffer, values in zip(inputs, batch.inputs, strict=True):
            buffer[:] = values
        # `start_async` runs in OpenVINO's threads. With many callers this is 10 % faster than `infer`, which
        # runs in the caller's thread.
        infer.start_async()
        infer.wait()  # after an error the request may still be running, so it is not used again
        vectors: FloatArray = output[batch.rows, batch.slots]  # a copy
        self._idle.append(request)
        return vectors
