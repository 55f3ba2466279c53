"""The compiled grids of one Engine: made when they have earned it, and only so many kept.

A grid takes 0.3 s to compile and 38 MB; a wide one 19 MB for each further stream. A text has the same bits
in every grid of one precision, so a batch may lodge in a larger grid that is there already. The few rows that
a long list leaves over never earn a grid of their own. Where others would have to make room for it, a grid is
compiled once its lodgings have cost as much as compiling does, the rule of the ski rental (Karlin et al.,
"Competitive snoopy caching", 1988): whatever comes, no more than twice the time of the best choice is spent.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ov_minilm.runtime.backend import ov
from ov_minilm.runtime.packing import Batch
from ov_minilm.runtime.plan import Plan
from ov_minilm.spec import FloatArray, Grid

INPUTS = ("input_ids", "position_ids", "segment_ids")

LONE = 2  # size of a lone row, which has one stream
LODGINGS = 4  # batches that lodge before a grid is compiled where there is room; one call leaves no more
PRICE = 16_384  # cells that threads run for nothing while lodging, in the time that two grids take to compile


class Request:
    """An infer request with input buffers of its own, so that nothing it reads can be freed under it."""

    def __init__(self, compiled: ov.CompiledModel, grid: Grid) -> None:
        self.infer = compiled.create_infer_request()
        self._buffers = [np.zeros((grid.rows, grid.width), np.int32) for _ in INPUTS]
        for name, buffer in zip(INPUTS, self._buffers, strict=True):
            self.infer.set_tensor(name, ov.Tensor(buffer, shared_memory=True))
        self._output: FloatArray = self.infer.get_output_tensor(0).data  # [R, S, D], filled by each run

    def start(self, batch: Batch) -> None:
        """Copy the batch in and begin."""
        for buffer, values in zip(self._buffers, (batch.ids, batch.positions, batch.segments), strict=True):
            if buffer.shape != values.shape:  # a guest from a smaller grid
                buffer.fill(0)
            buffer[: values.shape[0], : values.shape[1]] = values
        self.infer.start_async()

    def finish(self) -> FloatArray:  # -> [R, S, D]
        """Wait for the end; the vectors are the request's own memory and hold until it is started again."""
        self.infer.wait()
        return self._output


class CompiledGrid:
    """A compiled grid and its idle requests; there come to be as many as were ever in flight at once."""

    def __init__(self, compiled: ov.CompiledModel, grid: Grid) -> None:
        self.grid = grid
        self.used = 0  # number of the last batch that ran here
        self._compiled = compiled
        self._idle: deque[Request] = deque()
        self._all: list[Request] = []

    @property
    def owned(self) -> list[object]:
        """What OpenVINO made for this grid."""
        return [self._compiled, *(request.infer for request in self._all)]

    def take(self) -> Request:
        """Return a request that nobody uses."""
        try:
            return self._idle.pop()
        except IndexError:
            self._all.append(Request(self._compiled, self.grid))
            return self._all[-1]

    def give(self, request: Request) -> None:
        """Take a request back. One that failed may still run: it is not given back."""
        self._idle.append(request)


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch under way."""

    batch: Batch
    _compiled: CompiledGrid
    _request: Request

    @classmethod
    def start(cls, batch: Batch, compiled: CompiledGrid) -> Flight:
        """Begin to run a batch in a grid at least as large as its own."""
        request = compiled.take()
        request.start(batch)
        return cls(batch, compiled, request)

    def land(self) -> FloatArray:  # -> [R, S, D]
        """Wait for the vectors; they hold until `release`."""
        return self._request.finish()[: self.batch.grid.rows]

    def release(self) -> None:
        """Let another batch use this one's memory."""
        self._compiled.give(self._request)


class CompiledGrids:
    """Chooses where a batch runs, and keeps the number of compiled streams bounded."""

    def __init__(self, plan: Plan, compile_grid: Callable[[Grid], ov.CompiledModel]) -> None:
        self._plan = plan
        self._compile = compile_grid
        self._kept: dict[Grid, CompiledGrid] = {}
        self._lodged: Counter[Grid] = Counter()  # batches that ran elsewhere since the grid was last compiled
        self._wasted: Counter[Grid] = Counter()  # cells that threads ran for nothing there
        self._batches = 0
        self._choosing = threading.Lock()
        self.limit = limit(plan)

    @property
    def kept(self) -> tuple[Grid, ...]:
        """The grids that are compiled now."""
        return tuple(self._kept)

    @property
    def owned(self) -> list[object]:
        """What OpenVINO made for all grids."""
        return [thing for compiled in self._kept.values() for thing in compiled.owned]

    def clear(self) -> None:
        """Free what is compiled."""
        with self._choosing:
            self._kept.clear()

    def keep_all(self) -> None:
        """Compile every grid there is, and give none up: from then on no batch waits for a compiler."""
        self.limit = sum(size(self._plan, grid) for grid in self._plan.grids)
        for grid in self._plan.grids:
            with self._choosing:
                if grid not in self._kept:
                    self._add(grid)

    def host(self, grid: Grid) -> CompiledGrid:
        """Return the compiled grid in which the next batch of a grid is to run."""
        with self._choosing:
            self._batches += 1
            compiled = self._kept.get(grid) or self._larger(grid) or self._add(grid)
            compiled.used = self._batches
            return compiled

    def _larger(self, grid: Grid) -> CompiledGrid | None:
        """Return the smallest compiled grid that may stand in for one; None if it should be compiled."""
        larger = [compiled for at, compiled in self._kept.items() if self._hosts(at, grid)]
        if not larger:
            return None
        host = min(larger, key=lambda compiled: compiled.grid.cells)
        self._lodged[grid] += 1
        threads = self._plan.threads_for(host.grid) // self._plan.streams(host.grid)  # that run one batch
        self._wasted[grid] += threads * (host.grid.cells - grid.cells)
        if self._excess(grid) > 0:
            return host if self._wasted[grid] <= PRICE else None
        return host if self._lodged[grid] <= LODGINGS else None

    def _add(self, grid: Grid) -> CompiledGrid:
        """Compile a grid; others make room for it first: those it can host, then the longest unused."""
        leaving = sorted(self._kept.values(), key=lambda kept: (not self._hosts(grid, kept.grid), kept.used))
        while self._excess(grid) > 0 and leaving:
            del self._kept[leaving.pop(0).grid]
        self._kept[grid] = CompiledGrid(self._compile(grid), grid)
        del self._lodged[grid], self._wasted[grid]
        return self._kept[grid]

    def _hosts(self, large: Grid, small: Grid) -> bool:
        """Tell whether a batch of one grid can run in another, with the same bits."""
        holds = large.rows >= small.rows and large.width >= small.width
        return holds and self._plan.precision_of(large) == self._plan.precision_of(small)

    def _excess(self, grid: Grid) -> int:
        """Return by how much this grid, beside those that are kept, would be over the limit."""
        return sum(size(self._plan, at) for at in (*self._kept, grid)) - self.limit


def size(plan: Plan, grid: Grid) -> int:
    """Memory of a compiled grid in units of about 19 MB: one for each stream, and one that these share."""
    return 1 + plan.streams(grid)


def limit(plan: Plan) -> int:
    """How much is kept compiled, in the same units: a grid of each width of several rows, and two lone rows.

    With MiniLM's two such widths and two threads that is 190 MB, and about 350 MB for the whole process. With
    one thread it is as much.
    """
    wide = {grid.width: size(plan, grid) for grid in plan.grids if grid.rows > 1}
    return max(10, sum(wide.values()) + 2 * LONE)
