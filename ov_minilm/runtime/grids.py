"""One compiled grid, and the infer requests that run batches in it."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.packing import Batch
from ov_minilm.spec import FloatArray, Grid, IntArray

INPUTS = ("input_ids", "position_ids", "segment_ids")


class Request(NamedTuple):
    """An infer request with buffers of its own, so that nothing it reads can be freed under it."""

    infer: ov.InferRequest
    inputs: list[IntArray]  # [R, W] each, in the order of INPUTS
    output: FloatArray  # [R, S, D], filled by each run


class CompiledGrid:
    """A compiled grid. Threads may share it: there come to be as many requests as ever ran at once."""

    def __init__(self, compiled: ov.CompiledModel, grid: Grid) -> None:
        self._compiled = compiled
        self._grid = grid
        self.cosine = math.nan  # the lowest to the golden vector, once it is checked
        self._requests: list[Request] = []
        self._idle: deque[Request] = deque()

    @property
    def owned(self) -> list[object]:
        """What OpenVINO made for this grid."""
        return [self._compiled, *(request.infer for request in self._requests)]

    def run(self, batch: Batch) -> FloatArray:  # -> [N, D]
        """Return the vectors of the batch's texts, in their order."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._new_request()
        for buffer, values in zip(request.inputs, batch.inputs, strict=True):
            buffer[:] = values
        request.infer.infer()  # after an error it may still be running, and is not used again
        vectors: FloatArray = request.output[batch.rows, batch.slots]  # a copy
        self._idle.append(request)
        return vectors

    def _new_request(self) -> Request:
        infer = self._compiled.create_infer_request()
        inputs = [np.zeros((self._grid.rows, self._grid.width), np.int32) for _ in INPUTS]
        for name, buffer in zip(INPUTS, inputs, strict=True):
            infer.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
        self._requests.append(Request(infer, inputs, infer.get_output_tensor(0).data))
        return self._requests[-1]
